"""Parse, merge, name, fingerprint and compare metadata."""

import copy
import hashlib
import json
import os
import re
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresh_agent import metadata
from refresh_agent.model import MetadataLimits
from tests.unit.support import BAD_METADATA, BAD_METADATA_IDS, LIMITS, json_objects, json_values, one_of_few


def os_apply_config_merge(contents: list[dict[str, Any]]) -> dict[str, Any]:
    """The rule of os-apply-config's collect_config.py, written down on its own."""

    def merged(old: Any, new: Any) -> Any:
        if not isinstance(old, dict) or not isinstance(new, dict):
            return copy.deepcopy(new)
        both = copy.deepcopy(old)
        for key, value in new.items():
            both[key] = merged(both[key], value) if key in both else copy.deepcopy(value)
        return both

    result: dict[str, Any] = {}
    for content in contents:
        result = merged(result, content)
    return result


# --- parse -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("raw", "words"), [case[1:] for case in BAD_METADATA], ids=BAD_METADATA_IDS)
def test_what_is_not_a_good_object_is_refused_in_words(raw: bytes, words: str) -> None:
    with pytest.raises(metadata.MetadataError, match=re.escape(words)):
        metadata.parse(raw, LIMITS)


@pytest.mark.parametrize("raw", [b'{"password": "geheim', b'{"password": geheim}', b'["geheim"]'])
def test_a_refusal_does_not_repeat_the_content(raw: bytes) -> None:
    with pytest.raises(metadata.MetadataError) as caught:
        metadata.parse(raw, LIMITS)
    assert "geheim" not in str(caught.value)


def test_a_syntax_error_is_told_with_its_line() -> None:
    with pytest.raises(metadata.MetadataError, match="at line 3"):
        metadata.parse(b'{\n"a": 1,\n"b" 2}', LIMITS)


def test_the_limits_themselves_are_allowed() -> None:
    raw = b'{"a":' * 64 + b"1" + b"}" * 64
    assert metadata.parse(raw, MetadataLimits(bytes=len(raw), depth=64))
    with pytest.raises(metadata.MetadataError, match="larger than"):
        metadata.parse(raw + b" ", MetadataLimits(bytes=len(raw), depth=64))


@pytest.mark.parametrize(
    ("raw", "depth"), [(b"{}", 1), (b'{"a": 1}', 1), (b'{"a": []}', 2), (b'{"a": [{}, [[]]]}', 4)]
)
def test_depth_counts_objects_and_lists(raw: bytes, depth: int) -> None:
    assert metadata.parse(raw, MetadataLimits(100, depth)) == json.loads(raw)
    if depth > 1:
        with pytest.raises(metadata.MetadataError, match="deeper"):
            metadata.parse(raw, MetadataLimits(100, depth - 1))


@given(json_objects())
def test_what_is_dumped_parses_to_the_same(content: dict[str, Any]) -> None:
    assert metadata.parse(metadata.dump(content), LIMITS) == content


def test_it_is_dumped_as_os_collect_config_writes_its_cache() -> None:
    assert metadata.dump({"a": {"b": 1}}) == b'{\n "a": {\n  "b": 1\n }\n}'


# --- merge -------------------------------------------------------------------------------------------------


@given(st.lists(one_of_few(), max_size=4))
def test_merging_follows_os_apply_configs_rule(contents: list[dict[str, Any]]) -> None:
    assert metadata.merge(contents) == os_apply_config_merge(contents)


@given(one_of_few())
def test_merging_is_idempotent(content: dict[str, Any]) -> None:
    assert metadata.merge([content, content]) == metadata.merge([content]) == content


@given(one_of_few(), one_of_few(), one_of_few())
def test_merging_is_associative(one: dict[str, Any], two: dict[str, Any], three: dict[str, Any]) -> None:
    assert metadata.merge([metadata.merge([one, two]), three]) == metadata.merge([one, two, three])


@given(one_of_few(), one_of_few())
def test_the_later_wins_wherever_it_is_not_an_object(one: dict[str, Any], two: dict[str, Any]) -> None:
    merged = metadata.merge([one, two])
    for key, value in two.items():
        if not isinstance(value, dict) or not isinstance(one.get(key), dict):
            assert merged[key] == value
    assert merged.keys() == one.keys() | two.keys()


@given(st.lists(one_of_few(), min_size=2, max_size=4))
def test_merging_leaves_what_it_merges_as_it_was(contents: list[dict[str, Any]]) -> None:
    before = copy.deepcopy(contents)
    metadata.merge(contents)
    assert contents == before


def test_lists_are_replaced_and_not_joined() -> None:
    assert metadata.merge([{"a": [1, 2], "b": 1}, {"a": [3]}]) == {"a": [3], "b": 1}


# --- fingerprint -------------------------------------------------------------------------------------------


def shuffled(value: Any) -> Any:
    """The same content with all keys the other way round."""
    if isinstance(value, dict):
        return {key: shuffled(inner) for key, inner in reversed(value.items())}
    return [shuffled(inner) for inner in value] if isinstance(value, list) else value


@given(json_objects(), st.sampled_from([None, 0, 1, 7]))
def test_key_order_and_white_space_do_not_change_the_fingerprint(
    content: dict[str, Any], indent: int | None
) -> None:
    raw = json.dumps(shuffled(content), indent=indent, ensure_ascii=indent is None).encode()
    assert metadata.fingerprint(metadata.parse(raw, LIMITS)) == metadata.fingerprint(content)


def test_one_and_one_point_nought_and_true_have_different_fingerprints() -> None:
    values: list[Any] = [1, 1.0, True, "1", [1], None]
    assert len({metadata.fingerprint({"a": value}) for value in values}) == len(values)


def test_the_order_of_a_list_changes_the_fingerprint() -> None:
    assert metadata.fingerprint({"a": [1, 2]}) != metadata.fingerprint({"a": [2, 1]})


def test_half_a_surrogate_has_a_fingerprint_too() -> None:
    content = metadata.parse(rb'{"a\ud800": "\udfff"}', LIMITS)
    assert metadata.fingerprint(content) != metadata.fingerprint({})
    assert metadata.parse(metadata.dump(content), LIMITS) == content


def test_the_digest_is_of_the_bytes() -> None:
    assert metadata.digest(b'{"a":1}') != metadata.digest(b'{"a": 1}')


# --- diff --------------------------------------------------------------------------------------------------


@given(one_of_few(), one_of_few())
def test_nothing_differs_exactly_when_the_fingerprints_are_equal(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    same = metadata.fingerprint(before) == metadata.fingerprint(after)
    assert (metadata.diff(before, after) == ()) is same


@given(one_of_few())
def test_nothing_differs_from_itself_in_another_order(content: dict[str, Any]) -> None:
    assert metadata.diff(content, shuffled(content)) == ()


def at(content: Any, path: str) -> Any:
    """The JSON text at a dotted path; None where there is nothing."""
    for key in path.split("."):
        if not isinstance(content, dict) or key not in content:
            return None
        content = content[key]
    return json.dumps(content, sort_keys=True)


@given(one_of_few(), one_of_few())
def test_every_key_that_is_reported_really_differs(before: dict[str, Any], after: dict[str, Any]) -> None:
    keys = metadata.diff(before, after)
    assert list(keys) == sorted(set(keys))
    for key in keys:
        assert at(before, key) != at(after, key)


@given(one_of_few(), one_of_few())
def test_it_differs_both_ways_in_the_same_keys(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert metadata.diff(before, after) == metadata.diff(after, before)


def test_objects_are_descended_into_and_lists_are_not() -> None:
    before = {"a": {"b": 1, "c": 2}, "l": [1, {"x": 1}], "gone": {"deep": 1}, "kind": {"a": 1}}
    after = {"a": {"b": 1, "c": 3}, "l": [1, {"x": 2}], "new": None, "kind": [1]}
    assert metadata.diff(before, after) == ("a.c", "gone", "kind", "l", "new")


def test_one_and_true_differ() -> None:
    assert metadata.diff({"a": 1, "b": 0, "c": 1}, {"a": True, "b": 0.0, "c": 1}) == ("a", "b")


# --- safe_name ---------------------------------------------------------------------------------------------

PLAIN = st.text(string.ascii_letters + string.digits + "_.-", min_size=1, max_size=40)
ANY_NAME = (
    st.text(max_size=30) | PLAIN | st.sampled_from(["..", ".", "", "../evil", "os_config_files", "a" * 400])
)


@given(ANY_NAME, st.text(max_size=10))
def test_a_safe_name_never_leaves_its_directory(name: str, identity: str) -> None:
    """os-collect-config defect 4: "../evil" is written outside the cache, "a/b" ends the daemon."""
    safe = metadata.safe_name(name, identity)
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", safe)
    assert not safe.startswith(".")
    assert len(safe) < 220
    assert os.path.normpath(f"/cache/{safe}.json") == f"/cache/{safe}.json"
    assert os.path.dirname(f"/cache/{safe}.json") == "/cache"


@given(st.lists(st.tuples(ANY_NAME, st.text(max_size=3)), max_size=12))
def test_safe_names_are_unique_and_deterministic(items: list[tuple[str, str]]) -> None:
    """os-collect-config defect 3: two deployments of one name share a file."""

    def named() -> list[str]:
        taken: list[str] = []
        for name, identity in items:
            taken.append(metadata.safe_name(name, identity, taken))
        return taken

    assert len(set(named())) == len(items)
    assert named() == named()


@given(PLAIN)
def test_a_plain_name_stays_as_it_is(name: str) -> None:
    if not name.startswith(".") and name not in metadata.RESERVED_NAMES:
        assert metadata.safe_name(name, "whatever") == name


def test_the_lists_own_name_is_not_for_documents() -> None:
    """os-collect-config defect 4: a deployment "os_config_files" overwrites the list."""
    assert re.fullmatch(r"os_config_files-[0-9a-f]{8}", metadata.safe_name("os_config_files", "7"))


def test_names_that_look_alike_once_they_are_safe_are_told_apart_by_their_identity() -> None:
    assert metadata.safe_name("a/b", "1") != metadata.safe_name("a b", "2")


def test_a_name_with_a_line_break_at_its_end_is_not_plain() -> None:
    assert metadata.safe_name("a\n", "1") != "a\n"


def test_a_name_that_is_not_utf_8_is_made_safe_too() -> None:
    name = os.fsdecode(b"\xff.json")
    assert re.fullmatch(r"_\.json-[0-9a-f]{8}", metadata.safe_name(name, name))


@given(st.integers(0, 200), st.integers(0, 200), json_values())
def test_a_fingerprint_made_in_pieces_is_that_of_the_whole(wide: int, long: int, value: Any) -> None:
    content = {
        "wide": {f"k{n}": {"n": n, "v": value} for n in range(wide)},
        "long": [{"deep": [value, n]} for n in range(long)],
        "other": {"a": {"b": {"c": {"d": value}}}},
    }
    whole = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    assert metadata.fingerprint(content) == hashlib.sha256(whole).hexdigest()
