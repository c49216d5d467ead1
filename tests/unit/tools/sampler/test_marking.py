"""A default that holds on one machine only does not get into a sample; every other one stays as it is."""

import io
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oslo_config import cfg, generator

from refresh_agent.tools.sampler.marking import VARIES, agreed, mark, plain, table

SCALARS = st.none() | st.booleans() | st.integers(2, 9) | st.floats(0.1, 0.9) | st.text("ab1", max_size=2)
"""Equal ones are the same ones: no 1 beside True."""

VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=1), inner, max_size=2),
    max_leaves=6,
)


def here_to_all(text: str) -> str:
    return text.replace("node-1", "<host name>").replace("node-2", "<host name>")


def same(value: Any) -> str:
    """Told apart as they are written: 1, 1.0 and True are not the same default."""
    return json.dumps(value, sort_keys=True)


def leaves(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return [value] if inner is None else [leaf for each in inner for leaf in leaves(each)]


# --- what two machines agree on ----------------------------------------------------------------------------


@given(VALUES)
def test_what_is_the_same_on_both_stays_as_it_is(value: Any) -> None:
    assert same(agreed(value, json.loads(json.dumps(value)))) == same(value)


@given(VALUES, VALUES)
def test_it_does_not_matter_which_machine_is_asked_first(one: Any, other: Any) -> None:
    assert same(agreed(one, other)) == same(agreed(other, one))


@given(VALUES, VALUES)
def test_what_is_agreed_on_stays_so(one: Any, other: Any) -> None:
    once = agreed(one, other)
    assert same(agreed(once, once)) == same(once)
    assert same(agreed(once, agreed(other, one))) == same(once)


@given(VALUES, VALUES)
def test_nothing_that_only_one_machine_says_is_in_the_answer(one: Any, other: Any) -> None:
    both = [leaf for leaf in leaves(one) if any(same(leaf) == same(each) for each in leaves(other))]
    for leaf in leaves(agreed(one, other)):
        assert leaf == VARIES or same(leaf) in map(same, both)


@given(st.lists(SCALARS, max_size=5), st.randoms(use_true_random=False))
def test_a_set_comes_in_the_same_order_however_it_was_found(members: list[Any], random: Any) -> None:
    one, other = list(members), list(members)
    random.shuffle(one)
    random.shuffle(other)
    if one != other:
        assert agreed(one, other) == agreed(other, one) == sorted(members, key=repr)


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ("a", "b", VARIES),
        (2, 16, VARIES),
        ("2", 2, VARIES),
        (None, "a", VARIES),
        (["a", "b"], ["a", "c"], ["a", VARIES]),
        (["a"], ["a", "b"], VARIES),
        ([], ["a"], VARIES),
        (["b", "a"], ["a", "b"], ["a", "b"]),
        ({"k": 1, "l": "x"}, {"k": 2, "l": "x"}, {"k": VARIES, "l": "x"}),
        ({"k": 1}, {"l": 1}, VARIES),
        ({"k": {"l": ["b", "a"]}}, {"k": {"l": ["a", "b"]}}, {"k": {"l": ["a", "b"]}}),
        ([{"a": 1}], [{"a": 2}], [{"a": VARIES}]),
        (["a"], {"a": 1}, VARIES),
    ],
)
def test_only_what_differs_is_said_to_vary(one: Any, other: Any, told: Any) -> None:
    assert agreed(one, other) == agreed(other, one) == told


# --- what can be told to the other machine -----------------------------------------------------------------


class Thing:
    def __str__(self) -> str:
        return "a thing on node-1"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (0.5, 0.5),
        ("node-1", "<host name>"),
        (("node-1", 2), ["<host name>", 2]),
        (
            {"node-1": ["node-1:80"], 3: Thing()},
            {"<host name>": ["<host name>:80"], "3": "a thing on <host name>"},
        ),
        ({"node-1"}, ["<host name>"]),
        (frozenset({4}), [4]),
        (b"node-1", "b'<host name>'"),
    ],
)
def test_every_value_becomes_what_json_can_hold_in_words_for_all(value: Any, told: Any) -> None:
    assert same(plain(value, here_to_all)) == same(told)


@given(VALUES | st.tuples(SCALARS, SCALARS) | st.binary(max_size=3) | st.frozensets(st.text(max_size=2)))
def test_what_is_plain_stays_so_and_survives_the_way(value: Any) -> None:
    once = plain(value, str)
    assert same(plain(once, str)) == same(once)
    assert same(json.loads(json.dumps(once))) == same(once)


@given(VALUES)
def test_values_that_name_no_machine_are_not_changed(value: Any) -> None:
    assert same(plain(value, here_to_all)) == same(value)


# --- the options themselves --------------------------------------------------------------------------------


def listing(*options: Any, group: Any = None) -> Any:
    return [("shop", [(group, list(options))])]


def marked(option: Any, there: Any) -> Any:
    """The option as the first machine marks it, who hears that the other one has ``there``."""
    elsewhere = table(listing(option), here_to_all)
    mark(listing(option), here_to_all, {**elsewhere, f"shop\n\n{option.dest}\ndefault": there})
    return option


def written(option: Any) -> tuple[bool, list[str]]:
    """What oslo-config-generator writes: whether it has its note on sample defaults, and the values."""
    conf, text = cfg.ConfigOpts(), io.StringIO()
    generator.register_cli_opts(conf)
    conf(["--namespace", "shop"], default_config_files=[], default_config_dirs=[])
    generator._OptFormatter(conf, text).format(option, "DEFAULT")
    values = re.findall(rf"^#{option.dest} =(.*)$", text.getvalue(), re.MULTILINE)
    return "sample default" in text.getvalue(), [value.strip() for value in values]


OPTIONS = [
    (cfg.StrOpt("a", default="node-1"), "node-2", ["<host name>"]),
    (cfg.StrOpt("a", default="x"), "y", [VARIES]),
    (cfg.StrOpt("a"), "y", [VARIES]),
    (cfg.IntOpt("a", default=2, min=1, max=64), 16, [VARIES]),
    (cfg.FloatOpt("a", default=0.5), 0.25, [VARIES]),
    (cfg.PortOpt("a", default=80), 81, [VARIES]),
    (cfg.BoolOpt("a", default=True), False, [VARIES]),
    (cfg.HostAddressOpt("a", default="node-1"), "node-2", ["<host name>"]),
    (cfg.IPOpt("a", default="192.0.2.1"), "192.0.2.2", [VARIES]),
    (cfg.URIOpt("a", default="http://node-1/"), "http://node-2/", ["http://<host name>/"]),
    (cfg.ListOpt("a", default=["x", "node-1"]), ["x", "node-2"], ["x,<host name>"]),
    (cfg.ListOpt("a", default=["x", "1"]), ["x", "2"], [f"x,{VARIES}"]),
    (cfg.ListOpt("a", default=["b", "a"]), ["a", "b"], ["a,b"]),
    (cfg.DictOpt("a", default={"k": "node-1"}), {"k": "node-2"}, ["k:<host name>"]),
    (cfg.DictOpt("a", default={"k": "1", "l": "m"}), {"k": "2", "l": "m"}, [f"k:{VARIES},l:m"]),
    (cfg.MultiStrOpt("a", default=["x", "node-1"]), ["x", "node-2"], ["x", "<host name>"]),
    (cfg.MultiStrOpt("a", default=["x", "y"]), ["x"], [VARIES]),
    (cfg.MultiStrOpt("a", default=None), ["x"], [VARIES]),
]


@pytest.mark.parametrize(
    ("option", "there", "values"),
    OPTIONS,
    ids=[f"{type(option).__name__}-{told}" for option, _, told in OPTIONS],
)
def test_of_every_type_of_option_the_generator_writes_what_holds_everywhere_and_says_so(
    option: Any, there: Any, values: list[str]
) -> None:
    assert written(marked(option, plain(there, here_to_all))) == (True, values)


@pytest.mark.parametrize("there", [["x"], {"other": "x"}, None, "x"])
@pytest.mark.parametrize("kind", [cfg.ListOpt, cfg.DictOpt, cfg.MultiStrOpt])
def test_where_a_whole_list_varies_there_is_one_value_that_says_so(kind: Any, there: Any) -> None:
    default = {"a": "x"} if kind is cfg.DictOpt else ["a", "b"]
    assert VARIES in "".join(written(marked(kind("a", default=default), there))[1])


@pytest.mark.parametrize(
    ("kind", "default"),
    [
        (cfg.StrOpt, "x"),
        (cfg.StrOpt, None),
        (cfg.IntOpt, 2),
        (cfg.BoolOpt, False),
        (cfg.ListOpt, ["b", "a"]),
        (cfg.DictOpt, {"b": "1", "a": "2"}),
        (cfg.MultiStrOpt, ["b", "a"]),
        (cfg.HostAddressOpt, "localhost"),
    ],
)
def test_what_is_the_same_everywhere_is_the_very_same_afterwards(kind: Any, default: Any) -> None:
    option = kind("a", default=default)
    before = written(option)
    marked(option, plain(default, here_to_all))
    assert option.default is default
    assert option.sample_default is None
    assert written(option) == before


def test_an_authors_own_sample_default_is_kept_unless_it_names_the_machine() -> None:
    kept = cfg.StrOpt("a", default="node-1", sample_default="your host")
    mended = cfg.ListOpt("b", default=["x"], sample_default=["node-1", "y"])
    mark(listing(kept, mended), here_to_all, table(listing(kept, mended), here_to_all))
    assert (kept.default, kept.sample_default) == ("<host name>", "your host")
    assert (mended.default, mended.sample_default) == (["x"], ["<host name>", "y"])
    assert written(kept) == (True, ["your host"])
    assert written(mended) == (True, ["<host name>,y"])


def test_the_table_tells_the_options_apart_by_namespace_group_and_name() -> None:
    group = cfg.OptGroup("g")
    options = [cfg.StrOpt("two-words", default="node-1"), cfg.IntOpt("b", default=2, sample_default=3, max=4)]
    told = table([("n", [(None, options[:1]), (group, options)]), ("m", [("g", options[1:])])], here_to_all)
    places = {("n", ""): "two_words", ("n", "g"): "two_words b", ("m", "g"): "b"}
    values = {"two_words": {"default": "<host name>"}, "b": {"default": 2, "sample_default": 3, "max": 4}}
    assert told == {
        "\n".join((*place, name, field)): values[name].get(field)
        for place, names in places.items()
        for name in names.split()
        for field in ("default", "sample_default", "min", "max")
    }


def test_options_that_the_other_machine_does_not_know_are_told_and_left_alone() -> None:
    options = [cfg.StrOpt("b", default="x"), cfg.IntOpt("a-1", default=2), cfg.IntOpt("c", default=3)]
    known = {key: value for key, value in table(listing(*options), here_to_all).items() if "\nc\n" in key}
    assert mark(listing(*options), here_to_all, known) == ["a_1", "b"]
    assert [(option.default, option.sample_default) for option in options] == [
        ("x", None),
        (2, None),
        (3, None),
    ]


def test_limits_that_differ_are_said_to_vary() -> None:
    option = cfg.IntOpt("a", default=1, min=1, max=2)
    elsewhere = table(listing(cfg.IntOpt("a", default=1, min=1, max=16)), here_to_all)
    assert mark(listing(option), here_to_all, elsewhere) == []
    assert (option.type.min, option.type.max) == (1, VARIES)
    assert written(option) == (False, ["1"])


def test_texts_are_told_in_words_for_all() -> None:
    group = cfg.OptGroup("g", title="Of node-1", help="On node-1.")
    option = cfg.StrOpt(
        "a", help="Is node-1.", deprecated_for_removal=True, deprecated_reason="node-1 is old."
    )
    mark(listing(option, group=group), here_to_all, {})
    assert (group.title, group.help) == ("Of <host name>", "On <host name>.")
    assert (option.help, option.deprecated_reason) == ("Is <host name>.", "<host name> is old.")


def test_choices_are_told_in_words_for_all() -> None:
    option = cfg.StrOpt("a", choices=[("node-1", "This one."), ("x", None)])
    number = cfg.IntOpt("b", choices=[1, 2])
    mark(listing(option, number), here_to_all, {})
    assert list(option.type.choices.items()) == [("<host name>", "This one."), ("x", None)]
    assert list(number.type.choices) == [1, 2]


def test_an_option_that_is_listed_twice_is_marked_once_and_for_all() -> None:
    option = cfg.StrOpt("a", default="x")
    twice = [("m", [(None, [option])]), ("n", [(None, [option])])]
    elsewhere = table(twice, here_to_all)
    elsewhere |= {f"{namespace}\n\na\ndefault": "y" for namespace in "mn"}
    mark(twice, here_to_all, elsewhere)
    assert (option.default, option.sample_default) == (VARIES, VARIES)


def test_what_is_marked_has_no_aliases_in_yaml() -> None:
    option = marked(cfg.ListOpt("a", default=["node-1"]), ["<host name>"])
    assert option.default == option.sample_default == ["<host name>"]
    assert option.default is not option.sample_default
