"""Which functions tell options, by their names."""

import re

import pytest

from refresh_agent.tools.sampler.customs import lister


@pytest.mark.parametrize(
    ("name", "anywhere", "in_opts"),
    [
        ("list_opts", True, True),
        ("_list_opts", True, True),
        ("list_agent_opts", False, True),
        ("_list_db_opts", False, True),
        ("list_opts_cors", False, True),
        ("list_options", False, False),
        ("my_list_opts", False, False),
        ("list_optsx", False, False),
        ("register_opts", False, False),
    ],
)
def test_a_module_called_opts_may_have_several(name: str, anywhere: bool, in_opts: bool) -> None:
    for module in ("shop.web", "opts.web", "shop.my_opts"):
        assert bool(re.fullmatch(lister(module), name)) is anywhere
    for module in ("opts", "shop.conf.opts"):
        assert bool(re.fullmatch(lister(module), name)) is in_opts
