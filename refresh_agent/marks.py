"""What marks the processes of a hook, so that they can be found again, by the next agent too."""

import itertools
from collections.abc import Iterator

HOOK_ID = "REFRESH_AGENT_HOOK_ID"
"""The variable in their environment."""


def hook_ids(run_id: str) -> Iterator[str]:
    """One for each hook of a run, in its order; nobody else's run has the same."""
    return (f"{run_id}-{number}" for number in itertools.count(1))


def is_of_run(hook_id: str, run_id: str) -> bool:
    return hook_id.rpartition("-")[0] == run_id
