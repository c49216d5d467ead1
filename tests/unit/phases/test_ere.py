"""Extended regular expressions: what they mean, and that nothing around the agent changes that."""

import errno
import os
import pathlib
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refresh_agent.phases import ere


def case(identity: str, regex: str, yes: list[str], no: list[str]) -> object:
    return pytest.param(regex, yes, no, id=identity)


@pytest.mark.parametrize(
    ("regex", "yes", "no"),
    [
        # What Python's re takes for something else, or not at all.
        case("a class", "^[[:digit:]]+$", ["10"], ["a", "d:]"]),
        case("a class is of ASCII", "^[[:alpha:]]+$", ["aZ"], ["ü", "_"]),
        case("a class that is negated", "^[^[:alnum:]-]$", ["_"], ["a", "1", "-"]),
        case("equivalents, a collating element", "^[[=a=][.-.]]+$", ["a-a"], ["=", "."]),
        case("a backslash in brackets", r"^[\d]+$", ["\\", "d"], ["1"]),
        case("a backslash at their end", r"^[a\]+$", ["a\\"], ["]"]),
        case("a backslash does not quote there", r"^[\]]$", ["\\]"], ["]", "\\"]),
        case("no class of digits", r"^\d$", ["d"], ["1"]),
        case("no end of text", r"b\Z", ["bZ"], ["b"]),
        case("no extension", "^(?a)$", ["a"], ["?a", "(?a)"]),
        case("two repetitions", "^a**$", ["a", "aa"], ["a*"]),
        case("nothing to repeat", "^*a$", ["a", "*a"], ["ab"]),
        case("nothing to repeat in an alternative", "^(a|*b)$", ["a", "b"], ["*b"]),
        case("a parenthesis that was not opened", "a)", ["a)"], ["a"]),
        case("the beginning of a word", r"\<b", ["b", "a-b"], ["ab", "a_b"]),
        case("the end of a word", r"a\>", ["a", "a-b"], ["ab", "a_b"]),
        case("the ends of the text", r"^\`b\'$", ["b"], ["`b'"]),
        case("a line break between two", "^a$\n^b", ["a", "bc"], ["ab"]),
        case("a letter of two bytes", "^..$", ["ab", "ü"], ["üü"]),
        case("a letter of two bytes in brackets", "^[ü]$", ["\udcc3", "\udcbc"], ["ü"]),
        case("only ASCII makes words", r"^\w+$", ["a_1"], ["ü"]),
        # What means the same.
        case("a bracket in brackets", "^[]a]$", ["]", "a"], ["[", "a]"]),
        case("anything but a bracket", "^[^]a]$", ["b"], ["]", "a"]),
        case("a hyphen at the end", "^[a-]$", ["a", "-"], ["b"]),
        case("a brace that is none", "^a{2$", ["a{2"], ["aa"]),
        case("at most", "^a{,2}$", ["a", "aa"], ["aaa", "a{,2}"]),
        case("not lazy: at will", "^a*?b$", ["b", "aab"], ["a"]),
        case("not lazy: one and more, or none", "^a+?b$", ["ab", "aab"], ["a"]),
        case("an empty alternative", "^(|a)b$", ["b", "ab"], ["aab"]),
        case("a back reference", r"^(.)\1$", ["aa", "--"], ["ab"]),
        case("an edge of a word", r"\bb", ["a-b"], ["ab"]),
        case("white space", r"^\S\s\S$", ["a b", "a\tb"], ["a-b"]),
        case("case", "^a$", ["a"], ["A"]),
        case("anywhere", "b", ["abc"], ["ac"]),
        case("what looks like an option", "-v", ["a-v"], ["a"]),
        case("nothing", "", ["a"], []),
    ],
)
def test_what_it_means(regex: str, yes: list[str], no: list[str]) -> None:
    assert ere.matching([*no, *yes], regex) == set(yes)


@pytest.mark.parametrize(
    ("regex", "reason"),
    [
        ("(", "Unmatched ( or \\("),
        ("(?:a|b", "Unmatched ( or \\("),
        ("[a", "Unmatched [, [^, [:, [., or [="),
        ("[b-a]", "Invalid range end"),
        ("[[:ALPHA:]]", "Invalid character class name"),
        ("[:alpha:]", "character class syntax is [[:space:]], not [:space:]"),
        ("a{2,1}", "Invalid content of \\{\\}"),
        ("a{99999}", "Regular expression too big"),
        ("a\\", "Trailing backslash"),
        ("(a)\\2", "Invalid back reference"),
        ("(\\d", "Unmatched ( or \\("),  # after a warning of newer greps
    ],
)
def test_what_is_none_is_told_in_greps_words(regex: str, reason: str) -> None:
    with pytest.raises(OSError, match="RUN_PARTS_REGEX") as caught:
        ere.matching(["a"], regex)
    assert caught.value.errno == errno.EINVAL
    expected = f"RUN_PARTS_REGEX {regex!r} is not an extended regular expression: {reason}"
    assert caught.value.strerror == expected


PIECES = st.sampled_from(
    [
        *("a", "b", "Z", "1", "10", "-", "_", ".", "^", "$", "|", "(", ")", "()", "*", "+", "?", "*?", "+?"),
        *("{", "}", "{2}", "{1,2}", "{,1}", "{2,", "{a", ",", " ", "ü", "/", "&"),
        *("[a-z]", "[^a-z]", "[]a]", "[^]a]", "[a-]", "[a", "[", "]", "[[:alpha:]]", "[[:digit:]_]", "[z-a]"),
        *("[[:nothing:]]", "[:digit:]", "[[.-.]]", "[[=a=]]", r"[\d]", r"[\]]", r"[a\]"),
        *("\\", r"\.", r"\(", r"\{", r"\d", r"\Z", r"\<", r"\>", r"\b", r"\B", r"\w", r"\W", r"\s", r"\S"),
        *(r"\1", r"\2", "(a)", "(a|b)", "(.)", "(?:a)", "(?i)", "(?=a)", r"\`", r"\'", "\n"),
    ]
)
REGEXES = st.lists(PIECES, max_size=6).map("".join)
SOME_NAMES = st.lists(
    st.text("abdZ1-_.^$*+?{}[]()|\\ü\udcff ", min_size=1, max_size=5), min_size=5, max_size=40, unique=True
)


def by_us(names: list[str], regex: str) -> set[str] | None:
    """None if it is no expression."""
    try:
        return set(ere.matching(names, regex))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None


def by_grep(names: list[str], regex: str) -> set[str] | None:
    """As dib-run-parts asks it; None if it ends with an error."""
    done = subprocess.run(
        ["sh", "-c", 'grep -E -- "$RUN_PARTS_REGEX"'],
        input=b"".join(os.fsencode(f"{name}\n") for name in names),
        env={"PATH": os.environ["PATH"], "LC_ALL": "C", "RUN_PARTS_REGEX": regex},
        capture_output=True,
    )
    lines = {os.fsdecode(line) for line in done.stdout.split(b"\n")[:-1]}
    return lines if done.returncode < 2 else None


@settings(max_examples=200, deadline=None)
@given(regex=REGEXES, names=SOME_NAMES)
def test_it_is_what_dib_run_parts_makes_of_it(regex: str, names: list[str]) -> None:
    assert by_us(names, regex) == by_grep(names, regex)


def test_it_does_not_take_for_ever() -> None:
    """Python's re tries every way to divide the name in two."""
    name = "a" * 200 + "b"
    assert ere.matching([name], "^(a|aa)+$") == set()


def test_what_is_around_the_agent_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    script(tmp_path / "grep", f"touch {tmp_path}/ran")
    for name, value in {
        "PATH": str(tmp_path),
        "GREP_OPTIONS": "-v",
        "GREP_COLORS": "mt=1",
        "LC_ALL": "C.UTF-8",
        "POSIXLY_CORRECT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    assert ere.matching(["a", "ü", "b"], "^.$") == {"a", "b"}
    assert not (tmp_path / "ran").exists()


def test_names_that_are_not_utf_8_hide_nothing() -> None:
    """In other locales grep says "binary file matches" and is silent from there on."""
    names = [os.fsdecode(b"a\xff"), os.fsdecode(b"a\xc3"), "ab"]
    assert ere.matching(names, "a") == set(names)


def script(path: pathlib.Path, body: str) -> pathlib.Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (None, "cannot be run: No such file or directory"),
        ("kill -9 $$", "ended with status -9"),
        ("exit 3", "ended with status 3"),
        ("exec tail -f /dev/null", "has found no answer in 0.2 s"),
    ],
)
def test_without_an_answer_nothing_is_selected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, body: str | None, reason: str
) -> None:
    grep = tmp_path / "grep"
    if body:
        script(grep, body)
    monkeypatch.setattr(ere, "GREP", str(grep))
    monkeypatch.setattr(ere, "PATIENCE", 0.2 if "0.2" in reason else 60)
    with pytest.raises(OSError, match="cannot be applied") as caught:
        ere.matching(["a"], "a")
    assert caught.value.errno == errno.EIO
    assert caught.value.strerror == f"RUN_PARTS_REGEX 'a' cannot be applied: {grep} {reason}"
