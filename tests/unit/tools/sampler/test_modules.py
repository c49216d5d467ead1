"""What modules say of their options, when they are imported and when they are asked."""

import pathlib
import sys
from typing import Any

import pytest

from refresh_agent.tools.sampler.modules import Modules
from refresh_agent.tools.sampler.registered import Registrations
from tests.unit.tools.support import tree

CFG = "from oslo_config import cfg\n"
Options = dict[str, list[tuple[str, str]]]

LOOSE = "does not register all of its options when it is imported"


class Shop:
    """Modules that can be imported: every name is the file's."""

    def __init__(self, base: pathlib.Path, registrations: Registrations) -> None:
        self.base = base
        self.told: list[str] = []
        self.modules = Modules(registrations, str(base), self.told.append)

    def write(self, **files: str) -> "Shop":
        tree(self.base, {f"{name}.py": CFG + text for name, text in files.items()})
        return self

    def options(
        self, *names: str, wanted: tuple[str, ...] = (), fatal: dict[str, str] | None = None
    ) -> Options:
        """Of each module, the group and the name of each of its options."""
        loaded = self.modules.load(list(names), fatal or {})
        found = self.modules.listing(loaded, lambda name: name in wanted)
        return {
            name: [
                (str(getattr(group, "name", group)), option.dest)
                for group, options in groups
                for option in options
            ]
            for name, groups in found
        }

    @property
    def troubles(self) -> list[tuple[str, str, str]]:
        """What was tried, why it failed, and what comes of it."""
        return [(each["what"], each["why"], each["outcome"]) for each in self.modules.troubles]


@pytest.fixture
def modules(shop: pathlib.Path, registrations: Registrations) -> Shop:
    return Shop(shop, registrations)


# --- imports -----------------------------------------------------------------------------------------------


def test_what_a_module_registers_is_its_own(modules: Shop) -> None:
    modules.write(
        registers="CONF = cfg.ConfigOpts()\nOPTIONS = [cfg.StrOpt('a'), cfg.StrOpt('b')]\n"
        "CONF.register_opts(OPTIONS, 'g')\nCONF.register_opt(cfg.IntOpt('c'))\n"
    )
    assert modules.options("registers") == {"registers": [("g", "a"), ("g", "b"), ("None", "c")]}
    assert (modules.troubles, modules.told) == ([], ["registers"])


def test_what_others_register_meanwhile_comes_in_if_it_is_wanted(modules: Shop) -> None:
    modules.write(
        importing="import wanted_one, other_one\ncfg.ConfigOpts().register_opt(cfg.StrOpt('a'))\n",
        wanted_one="cfg.ConfigOpts().register_opt(cfg.StrOpt('b'), 'g')\n",
        other_one="cfg.ConfigOpts().register_opt(cfg.StrOpt('c'))\n",
    )
    found = modules.options("importing", wanted=("wanted_one",))
    assert found == {"importing": [("None", "a")], "wanted_one": [("g", "b")]}
    assert list(found) == sorted(found)


@pytest.mark.parametrize(
    ("text", "why", "where"),
    [
        ("\nraise ValueError('no')", "ValueError: no", "broken_one.py, line 3"),
        ("import sys\nsys.exit('bye')", "it ends the program (sys.exit('bye'))", "broken_one.py, line 3"),
        ("def f(:", "SyntaxError: invalid syntax (broken_one.py, line 2)", "broken_one.py, line 2"),
        ("import no_such", "ModuleNotFoundError: No module named 'no_such'", "broken_one.py, line 2"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_and_the_others_go_on(
    modules: Shop, text: str, why: str, where: str
) -> None:
    modules.write(broken_one=text, good_one="cfg.ConfigOpts().register_opt(cfg.StrOpt('a'))\n")
    assert modules.options("broken_one", "good_one") == {"good_one": [("None", "a")]}
    assert modules.modules.troubles == [
        {
            "what": "cannot import broken_one",
            "why": why,
            "where": where,
            "outcome": "missing from the sample: its options",
            "module": "broken_one",
        }
    ]
    assert modules.told == ["broken_one", "good_one"]


def test_of_a_module_that_breaks_half_way_nothing_is_taken(modules: Shop) -> None:
    modules.write(half_way="cfg.ConfigOpts().register_opt(cfg.StrOpt('a'))\nraise ValueError\n")
    assert modules.options("half_way", wanted=("half_way",)) == {}
    assert len(modules.troubles) == 1


def test_a_module_that_is_known_to_end_the_interpreter_is_not_imported(modules: Shop) -> None:
    modules.write(deadly="import os\nos._exit(9)\n")
    assert modules.options("deadly", fatal={"deadly": "it ends the interpreter"}) == {}
    told = ("cannot import deadly", "it ends the interpreter", "missing from the sample: its options")
    assert modules.troubles == [told]


@pytest.mark.parametrize("other", ["object()", "cfg"])
def test_of_a_module_that_puts_something_else_into_its_place_what_it_has_registered_is_known(
    modules: Shop, other: str
) -> None:
    modules.write(
        changeling="import sys\ncfg.ConfigOpts().register_opt(cfg.StrOpt('a'))\n"
        f"sys.modules[__name__] = {other}\n"
    )
    assert modules.options("changeling", wanted=("changeling",)) == {"changeling": [("None", "a")]}
    assert modules.troubles == []


def test_whatever_a_module_raises_it_is_that_modules_fault(modules: Shop) -> None:
    modules.write(
        interrupted="raise KeyboardInterrupt\n", asked_one="def list_opts():\n    raise KeyboardInterrupt\n"
    )
    assert modules.options("interrupted", "asked_one") == {"asked_one": []}
    assert [(what, why) for what, why, _ in modules.troubles] == [
        ("cannot import interrupted", "KeyboardInterrupt"),
        ("cannot ask asked_one.list_opts() for options", "KeyboardInterrupt"),
    ]


# --- questions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "returned",
    [
        "{'g': OPTIONS, None: [cfg.IntOpt('b')]}",
        "[('g', OPTIONS), (None, [cfg.IntOpt('b')])]",
        "iter([('g', iter(OPTIONS)), (None, (cfg.IntOpt('b'),))])",
    ],
)
def test_a_module_that_lists_its_options_is_asked(modules: Shop, returned: str) -> None:
    modules.write(listing=f"OPTIONS = [cfg.StrOpt('a')]\ndef list_opts():\n    return {returned}\n")
    assert modules.options("listing") == {"listing": [("g", "a"), ("None", "b")]}
    assert modules.troubles == []


@pytest.mark.parametrize("signature", ["conf", "conf, group='g'", "conf, *more, **words"])
def test_a_module_that_registers_on_request_is_asked(modules: Shop, signature: str) -> None:
    modules.write(
        willing="OPTIONS = [cfg.StrOpt('a')]\n"
        f"def register_opts({signature}):\n    conf.register_opts(OPTIONS, 'g')\n"
    )
    assert modules.options("willing") == {"willing": [("g", "a")]}
    assert modules.troubles == []


def test_what_a_module_has_registered_it_is_not_asked_for_again(modules: Shop) -> None:
    modules.write(
        both="OPTIONS = [cfg.StrOpt('a')]\ncfg.ConfigOpts().register_opts(OPTIONS, 'g')\n"
        "def register_opts(conf):\n    raise ValueError\n"
    )
    assert modules.options("both") == {"both": [("g", "a")]}
    assert modules.troubles == []


def test_a_module_that_has_registered_all_of_its_own_may_list_more(modules: Shop) -> None:
    """Those of a library's helper, as nova's for keystoneauth. In another case it is the same group."""
    modules.write(
        both="OPTIONS = [cfg.StrOpt('a')]\ncfg.ConfigOpts().register_opts(OPTIONS, 'G')\n"
        "def list_opts():\n    return {'g': [cfg.StrOpt('a'), cfg.StrOpt('b')], 'G': [cfg.StrOpt('b')]}\n"
    )
    assert modules.options("both") == {"both": [("G", "a"), ("g", "b")]}
    assert modules.troubles == []


def test_what_a_function_tells_of_other_modules_too_comes_once(modules: Shop) -> None:
    """As oslo_middleware.opts, which tells copies of options that the others register when they are used."""
    modules.write(
        cors="import copy\nOPTIONS = [cfg.StrOpt('origin')]\n",
        conf_opts="import copy, cors\n"
        "def list_opts():\n    return [('cors', copy.deepcopy(cors.OPTIONS)), ('x', [cfg.StrOpt('a')])]\n",
        last="def _list_opts():\n    return [('x', [cfg.StrOpt('a'), cfg.StrOpt('b')])]\n",
    )
    found = modules.options("conf_opts", "cors", "last")
    assert found == {"conf_opts": [("cors", "origin"), ("x", "a")], "cors": [], "last": [("x", "b")]}
    assert modules.troubles == []


def test_in_a_module_called_opts_every_function_of_that_kind_is_asked(modules: Shop) -> None:
    """As neutron.opts; elsewhere a function of such a name may be anything."""
    text = (
        "def list_agent_opts():\n    return [('g', [cfg.StrOpt('a')])]\n"
        "def list_opts_cors():\n    return [('g', [cfg.StrOpt('b')])]\n"
        "def list_all():\n    raise ValueError\ndef list_db_opts(engine):\n    raise ValueError\n"
    )
    modules.write(opts=text, other=text)
    assert modules.options("opts", "other") == {"opts": [("g", "a"), ("g", "b")], "other": []}
    assert modules.troubles == []


@pytest.mark.parametrize("tells", ["['a']", "[cfg.StrOpt('a')]", "{'g': ['a']}", "7", "None", "'ab'"])
def test_a_helper_of_such_a_name_may_tell_anything(modules: Shop, tells: str) -> None:
    modules.write(
        opts=f"def _list_web_opts():\n    return {tells}\n"
        "def list_opts():\n    return [('g', [cfg.StrOpt('a')])]\n"
    )
    assert modules.options("opts") == {"opts": [("g", "a")]}
    assert modules.troubles == []


@pytest.mark.parametrize(
    ("tells", "why"),
    [
        ("[('g', [[cfg.StrOpt('a')]])]", "TypeError: it tells of list, which is no option"),
        ("7", "TypeError: 'int' object is not iterable"),
    ],
)
def test_what_is_no_option_is_the_modules_fault(modules: Shop, tells: str, why: str) -> None:
    modules.write(odd=f"def list_opts():\n    return {tells}\n", good="OPTIONS = []\n")
    assert modules.options("odd", "good") == {"good": [], "odd": []}
    assert [(what, why) for what, why, _ in modules.troubles] == [
        ("cannot ask odd.list_opts() for options", why)
    ]


def test_a_function_whose_signature_cannot_be_had_is_not_asked(modules: Shop) -> None:
    modules.write(odd="def list_opts():\n    return 7\nlist_opts.__signature__ = 'none'\n")
    assert modules.options("odd") == {"odd": []}
    assert modules.troubles == []


def test_a_function_that_tells_nothing_has_nothing_to_tell(modules: Shop) -> None:
    """It prints them, say."""
    modules.write(prints="def list_opts():\n    pass\n")
    assert modules.options("prints") == {"prints": []}
    assert modules.troubles == []


DRIVER = "OPTIONS = [cfg.StrOpt('url', help='{help}')]\ndef list_opts():\n    return {{'d': {told}}}\n"


@pytest.mark.parametrize("told", ["OPTIONS", "[cfg.StrOpt('url', help=__name__)]"])
def test_two_of_one_name_that_are_not_alike_are_both_told(modules: Shop, told: str) -> None:
    one, other = (DRIVER.format(help=help_text, told=told) for help_text in ("one", "other"))
    if told != "OPTIONS":
        one, other = one.partition("\n")[2], other.partition("\n")[2]
    modules.write(one=one, other=other)
    assert modules.options("one", "other") == {"one": [("d", "url")], "other": [("d", "url")]}
    assert modules.troubles == []


def test_what_a_stranger_tells_in_the_same_words_is_another_option(modules: Shop) -> None:
    option = "OPTIONS = [cfg.BoolOpt('enabled', help='Use it.')]\n"
    modules.write(
        stranger=option + "def list_opts():\n    return [('a', OPTIONS)]\n",
        waiting=option + "def setup(conf):\n    conf.register_opts(OPTIONS, group='x')\n",
        lonely=option,
    )
    found = modules.options("stranger", "waiting", "lonely")
    assert found == {
        "stranger": [("a", "enabled")],
        "waiting": [("x", "enabled")],
        "lonely": [("DEFAULT", "enabled")],
    }
    assert [what for what, _, _ in modules.troubles] == [f"lonely {LOOSE}"]


def test_what_is_registered_while_another_one_is_asked_comes_once(modules: Shop) -> None:
    modules.write(
        asked="def list_opts():\n    return [('g', [cfg.StrOpt('a')])]\n",
        busy="def list_opts():\n    cfg.ConfigOpts().register_opt(cfg.StrOpt('a'), group='g')\n",
    )
    assert modules.options("asked", "busy") == {"asked": [], "busy": [("g", "a")]}


def test_registrations_that_are_not_listed_are_in_no_answers_way(modules: Shop) -> None:
    """The project has entry points for those of ``unwanted``, and ``-m`` names the other one."""
    modules.write(
        unwanted="cfg.ConfigOpts().register_opt(cfg.StrOpt('a'), group='g')\n",
        asked="import unwanted\ndef list_opts():\n    return [('g', [cfg.StrOpt('a')])]\n",
    )
    assert modules.options("asked") == {"asked": [("g", "a")]}


@pytest.mark.parametrize(("lister", "asked"), [("list_opts", False), ("_list_db_opts", True)])
def test_list_opts_goes_before_register_opts(modules: Shop, lister: str, asked: bool) -> None:
    modules.write(
        opts=f"def {lister}():\n    return [('db', [cfg.StrOpt('url')])]\n"
        "def register_opts(conf):\n    conf.register_opts([cfg.StrOpt('url')], 'db')\n"
        "    conf.register_opts([cfg.StrOpt('port')], 'web')\n"
    )
    assert (("web", "port") in modules.options("opts")["opts"]) is asked
    assert len(modules.options("opts")["opts"]) == 1 + asked


@pytest.mark.parametrize(
    ("text", "silent"),
    [
        ("x = 1\n", True),
        ("OPTIONS = [cfg.StrOpt('a')]\n", False),
        ("cfg.ConfigOpts().register_opt(cfg.StrOpt('a'))\n", False),
        ("def list_opts():\n    return [(None, [cfg.StrOpt('a')])]\n", False),
        ("def list_opts():\n    raise ValueError\n", False),
    ],
)
def test_a_module_says_nothing_if_there_is_nothing_in_it(modules: Shop, text: str, silent: bool) -> None:
    modules.write(module=text)
    modules.options("module")
    assert modules.modules.says_nothing(sys.modules["module"]) is silent


@pytest.mark.parametrize("conf", ["cfg.ConfigOpts()", "conf"])
def test_what_is_registered_again_and_again_comes_once(modules: Shop, conf: str) -> None:
    """keystoneauth's helpers make new options each time that they are asked; so does castellan."""
    modules.write(
        again="conf = cfg.ConfigOpts()\nfor n in range(3):\n"
        f"    {conf}.register_opt(cfg.StrOpt('a'), cfg.OptGroup('g'))\n"
    )
    assert modules.options("again") == {"again": [("g", "a")]}


ODD = {
    "class": "class Odd:\n    __class__ = property(lambda self: 1 / 0)\nODD = Odd()\n",
    "list": "class Odd(list):\n    def __iter__(self):\n        raise SystemExit(1)\nODD = Odd()\n",
    "attributes": "def __getattr__(name):\n    raise SystemExit(1)\n",
}


@pytest.mark.parametrize("what", list(ODD))
def test_an_odd_object_is_in_nobodys_way(modules: Shop, what: str) -> None:
    modules.write(odd=ODD[what] + "OPTIONS = [cfg.StrOpt('a')]\ncfg.ConfigOpts().register_opts(OPTIONS)\n")
    assert modules.options("odd") == {"odd": [("None", "a")]}
    assert modules.troubles == []


def test_what_a_helper_elsewhere_registers_for_a_module_is_the_modules(modules: Shop) -> None:
    modules.write(
        library_declared="def register(conf, options):\n    conf.register_opts(options, 'g')\n",
        helped="import library_declared\nOPTIONS = [cfg.StrOpt('a')]\n"
        "library_declared.register(cfg.ConfigOpts(), OPTIONS)\n",
    )
    assert modules.options("helped") == {"helped": [("g", "a")]}
    assert modules.troubles == []


def test_what_is_listed_for_the_helper_is_not_listed_again(modules: Shop) -> None:
    modules.write(
        library_declared="def register(conf, options):\n    conf.register_opts(options, 'g')\n",
        helped="import library_declared\nOPTIONS = [cfg.StrOpt('a')]\n"
        "library_declared.register(cfg.ConfigOpts(), OPTIONS)\n",
    )
    found = modules.options("helped", wanted=("library_declared",))
    assert found == {"helped": [], "library_declared": [("g", "a")]}


def test_what_is_listed_as_well_as_registered_comes_once(modules: Shop) -> None:
    modules.write(
        partly="import copy\nONE, TWO = [cfg.StrOpt('a')], [cfg.StrOpt('b')]\n"
        "cfg.ConfigOpts().register_opts(ONE, 'g')\n"
        "def list_opts():\n    return [('g', copy.deepcopy(ONE) + TWO)]\n"
    )
    assert modules.options("partly")["partly"][:2] == [("g", "a"), ("g", "b")]


@pytest.mark.parametrize(
    "text",
    [
        "from elsewhere import list_opts",
        "def list_opts(conf): raise ValueError",
        "def register_opts(conf, group): raise ValueError",
        "def register_opts(): raise ValueError",
        "list_opts = 'no function'",
    ],
)
def test_what_is_no_question_is_not_asked(modules: Shop, text: str) -> None:
    modules.write(elsewhere="def list_opts():\n    raise ValueError\n", silent=text)
    assert modules.options("silent") == {"silent": []}
    assert modules.troubles == []


def test_a_question_that_fails_is_named_with_the_options_that_nobody_tells_of_now(modules: Shop) -> None:
    modules.write(
        failing="OPTIONS = [cfg.StrOpt('b'), cfg.StrOpt('a-1')]\n"
        "def list_opts():\n    raise ValueError('no')\n"
    )
    assert modules.options("failing") == {"failing": [("DEFAULT", "b"), ("DEFAULT", "a_1")]}
    asked, guessed = modules.modules.troubles
    assert asked == {
        "what": "cannot ask failing.list_opts() for options",
        "why": "ValueError: no",
        "where": "failing.py, line 4",
        "outcome": "missing from the sample: what it would have told",
        "module": "",
    }
    assert guessed["outcome"] == "listed under [DEFAULT]: a_1, b"


def test_ways_out_of_a_question_are_none(modules: Shop) -> None:
    modules.write(leaving="def register_opts(conf):\n    raise SystemExit(3)\n")
    assert modules.options("leaving") == {"leaving": []}
    ((what, why, outcome),) = modules.troubles
    assert (what, why) == (
        "cannot ask leaving.register_opts() for options",
        "it ends the program (sys.exit(3))",
    )
    assert outcome == "missing from the sample: what it would have told"


# --- guesses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["ONE = cfg.StrOpt('a')", "ONE = [cfg.StrOpt('a')]", "ONE = (cfg.StrOpt('a'),)"]
)
def test_options_that_nobody_has_put_into_a_group_are_listed_with_a_warning(modules: Shop, text: str) -> None:
    modules.write(loose=text)
    assert modules.options("loose") == {"loose": [("DEFAULT", "a")]}
    told = (f"loose {LOOSE}", "their group cannot be known", "listed under [DEFAULT]: a")
    assert modules.troubles == [told]


def test_where_a_function_that_nobody_calls_would_put_options_is_where_they_are_listed(modules: Shop) -> None:
    modules.write(
        waiting="ONE, TWO, THREE = [cfg.StrOpt('a')], cfg.StrOpt('b'), cfg.StrOpt('c')\n"
        "def f(conf, more):\n    conf.register_opts(ONE, 'g')\n    conf.register_opts(ONE, 'h')\n",
        asking="import waiting\ndef f(conf, x):\n    conf.register_opt(waiting.TWO, group='i')\n",
    )
    found = modules.options("asking", "waiting")
    assert found == {"asking": [], "waiting": [("g", "a"), ("h", "a"), ("i", "b"), ("DEFAULT", "c")]}
    told = (f"waiting {LOOSE}", "their group cannot be known", "listed under [DEFAULT]: c")
    assert modules.troubles == [told]


def test_what_one_module_defines_and_another_one_registers_or_lists_is_no_guess(modules: Shop) -> None:
    modules.write(
        definer="ONE, TWO = [cfg.StrOpt('a')], [cfg.StrOpt('b')]\n",
        registrar="import definer\ncfg.ConfigOpts().register_opts(definer.ONE, 'g')\n",
        lister="from definer import TWO\ndef list_opts():\n    return [('h', TWO)]\n",
    )
    assert modules.options("definer", "lister", "registrar") == {
        "definer": [],
        "lister": [("h", "b")],
        "registrar": [("g", "a")],
    }
    assert modules.troubles == []


@pytest.mark.parametrize(
    "text",
    [
        "from theirs import ONE",
        "from theirs import ONE as MINE",
        "import theirs",
        "ONE = [cfg.SubCommandOpt('a')]",
        "ONE = ['a', cfg.StrOpt('a')]",
        "ONE = []",
        "def f():\n    return cfg.StrOpt('a')",
    ],
)
def test_what_is_somebody_elses_or_no_option_for_files_is_not_listed(modules: Shop, text: str) -> None:
    modules.write(theirs="ONE = cfg.StrOpt('a')\n", mine=text)
    assert modules.options("mine") == {"mine": []}
    assert modules.troubles == []


def test_the_answer_does_not_depend_on_the_order_of_the_question(modules: Shop, registrations: Any) -> None:
    modules.write(
        z_module="cfg.ConfigOpts().register_opt(cfg.StrOpt('z'))\n",
        a_module="ONE = cfg.StrOpt('a')\nTWO = cfg.StrOpt('b')\n",
    )
    once = modules.options("z_module", "a_module")
    again = Shop(modules.base, registrations)
    assert list(once.items()) == list(again.options("a_module", "z_module").items())
    assert list(once) == ["a_module", "z_module"]
