"""What OpenStack's projects call the functions that tell their options: known without importing any."""

from __future__ import annotations

LIST_OPTS = "_?list_opts"
"""A pattern."""

LISTER = r"_?list_(\w+_)?opts(_\w+)?"
"""As neutron.opts has: list_agent_opts, list_db_opts, …"""


def lister(module: str) -> str:
    """The pattern of such names in a module; one that is called ``opts`` may have several."""
    return LISTER if module.rpartition(".")[2] == "opts" else LIST_OPTS
