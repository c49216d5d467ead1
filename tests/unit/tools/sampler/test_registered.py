"""Who registers what, heard while it happens."""

import importlib
import pathlib

import pytest
from oslo_config import cfg

from refresh_agent.tools.sampler.registered import Registrations, in_files, in_place
from tests.unit.tools.support import tree

A, B = cfg.StrOpt("a"), cfg.IntOpt("b-c")


def heard(registrations: Registrations, module: str = __name__) -> list[tuple[str, str]]:
    """Group and option, by their names."""
    return [(str(getattr(group, "name", group)), option.dest) for group, option in registrations.by(module)]


def test_every_way_in_is_heard_in_order_with_the_group(registrations: Registrations) -> None:
    conf, group = cfg.ConfigOpts(), cfg.OptGroup("g")
    conf.register_opt(A)
    conf.register_opts([A, B], "named")
    conf.register_cli_opt(A, group=group)
    conf.register_cli_opts([B], group)
    assert heard(registrations) == [("None", "a"), ("named", "a"), ("named", "b_c"), ("g", "a"), ("g", "b_c")]
    assert registrations.modules() == [__name__]


def test_what_is_heard_is_registered_nevertheless(registrations: Registrations) -> None:
    conf = cfg.ConfigOpts()
    assert conf.register_opt(A) is True
    assert conf.register_opt(A) is False
    conf.register_opt(B, group="g")
    conf([])
    assert (conf.a, conf.g.b_c) == (None, None)
    with pytest.raises(cfg.DuplicateOptError):
        conf.register_opt(cfg.IntOpt("a"))


def test_a_group_that_is_known_comes_with_its_help(registrations: Registrations) -> None:
    conf, group = cfg.ConfigOpts(), cfg.OptGroup("g", help="What it is for.")
    conf.register_group(group)
    conf.register_opt(A, group="g")
    conf.register_opt(A, group="unknown")
    cfg.ConfigOpts().register_group(cfg.OptGroup("g", help="Another one, later."))
    (first, _), (unknown, _) = registrations.by(__name__)
    assert first is group
    assert getattr(unknown, "name", unknown) == "unknown"


def test_the_module_is_the_one_that_calls_not_the_one_that_has_made_the_option(
    registrations: Registrations, shop: pathlib.Path
) -> None:
    tree(
        shop,
        {
            "definer.py": "from oslo_config import cfg\nOPTIONS = [cfg.StrOpt('x')]\n",
            "registrar.py": "from oslo_config import cfg\nfrom definer import OPTIONS\n"
            "cfg.ConfigOpts().register_opts(OPTIONS, 'shop')\n",
        },
    )
    importlib.import_module("registrar")
    assert heard(registrations, "registrar") == [("shop", "x")]
    assert registrations.by("definer") == []
    assert registrations.modules() == ["registrar"]


def test_what_oslo_config_registers_for_itself_is_nobodys(registrations: Registrations) -> None:
    conf = cfg.ConfigOpts()
    conf([], project="shop", default_config_files=[], default_config_dirs=[])
    assert conf.config_file == []
    assert registrations.modules() == []


class Stricter(cfg.ConfigOpts):
    """As libraries have it: the ways in over again."""

    def register_opt(self, opt: cfg.Opt, group: object = None, **more: bool) -> bool:
        return super().register_opt(opt, group, **more)


def test_a_subclass_with_ways_in_of_its_own_is_heard_too(registrations: Registrations) -> None:
    conf = Stricter()
    conf([], project="shop", default_config_files=[], default_config_dirs=[])
    assert registrations.modules() == []
    conf.register_opts([A], "g")
    assert heard(registrations) == [("g", "a")]


def test_it_is_known_who_has_registered_an_option_and_where(registrations: Registrations) -> None:
    conf, group = cfg.ConfigOpts(), cfg.OptGroup("g")
    conf.register_group(group)
    conf.register_opt(A)
    conf.register_opt(A, "g")
    assert registrations.of(A) == [(__name__, None), (__name__, group)]
    assert registrations.of(B) == []


def test_subcommands_are_not_for_files(registrations: Registrations) -> None:
    conf = cfg.ConfigOpts()
    command, positional = cfg.SubCommandOpt("command"), cfg.StrOpt("p", positional=True)
    conf.register_cli_opts([command, positional, A])
    assert heard(registrations) == [("None", "p"), ("None", "a")]
    assert [in_files(option) for option in (command, positional, A)] == [False, True, True]


@pytest.mark.parametrize(
    ("library", "registrar"), [("library_helper", "asking"), ("library_declared", "library_declared")]
)
def test_what_a_library_registers_when_it_is_asked_is_the_askers_unless_it_has_entry_points(
    registrations: Registrations, shop: pathlib.Path, library: str, registrar: str
) -> None:
    tree(
        shop,
        {
            f"{library}.py": "def register(conf, option):\n    conf.register_opt(option)\n",
            "asking.py": f"from oslo_config import cfg\nimport {library}\n"
            f"{library}.register(cfg.ConfigOpts(), cfg.StrOpt('x'))\n",
        },
    )
    importlib.import_module("asking")
    assert registrations.modules() == [registrar]


def test_what_a_library_registers_for_itself_is_its_own_whoever_imports_it(
    registrations: Registrations, shop: pathlib.Path
) -> None:
    text = "from oslo_config import cfg\ncfg.ConfigOpts().register_opt(cfg.StrOpt('x'))\n"
    tree(shop, {"library_alone.py": text, "importing.py": "import library_alone\n"})
    importlib.import_module("importing")
    assert registrations.modules() == ["library_alone"]


def test_an_option_is_known_itself_and_its_place_as_a_file_has_it(registrations: Registrations) -> None:
    conf = cfg.ConfigOpts()
    conf.register_opt(B, group=cfg.OptGroup("G"))
    conf.register_opt(A)
    assert registrations.of(A)
    assert not registrations.of(cfg.StrOpt("a"))
    assert registrations.places({__name__}) == {("g", "b_c"), ("default", "a")}
    assert registrations.places({"another"}) == set()
    assert in_place("g", cfg.StrOpt("b-c")) == ("g", "b_c")
    assert in_place(None, A) == in_place("DEFAULT", A) == in_place(cfg.OptGroup("DEFAULT"), A)


def test_what_is_refused_is_not_registered(registrations: Registrations) -> None:
    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.StrOpt("a", default="one"))
    with pytest.raises(cfg.DuplicateOptError):
        conf.register_opt(cfg.StrOpt("a", default="two"))
    assert [option.default for _, option in registrations.by(__name__)] == ["one"]


def test_before_it_listens_nothing_is_heard() -> None:
    registrations = Registrations(lambda module: True, set())
    cfg.ConfigOpts().register_opt(A)
    assert registrations.modules() == []


def test_a_group_that_was_a_name_at_first_comes_with_its_help(registrations: Registrations) -> None:
    conf = cfg.ConfigOpts()
    conf.register_opt(A, group="g")
    group = cfg.OptGroup("g", help="What it is for.")
    cfg.ConfigOpts().register_group(group)
    ((found, _),) = registrations.by(__name__)
    assert found is group
