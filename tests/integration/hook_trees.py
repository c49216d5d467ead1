"""Generated hook trees: what can lie in a phase directory, and hooks that can be run."""

import os
import pathlib
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from hypothesis import strategies as st

T = TypeVar("T")


def mostly(usual: st.SearchStrategy[T], odd: st.SearchStrategy[T], one_in: int) -> st.SearchStrategy[T]:
    """``odd`` one time in so many: ``one_of`` has no weights."""
    return st.integers(1, one_in).flatmap(lambda number: odd if number == one_in else usual)


# --- what lies there ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """``what``: file, directory, fifo, socket with a mode; or link with where it leads."""

    what: str
    mode: int = 0o755
    target: str = ""


SIBLINGS = ("10-a", "20-b", "9-z", "_x")
"""Names that are often there, so that links lead to each other and in circles."""

ASIDE: Mapping[str, Entry] = {
    "script": Entry("file", 0o755),
    "plain": Entry("file", 0o644),
    "others": Entry("file", 0o601),
    "directory": Entry("directory"),
    "fifo": Entry("fifo"),
    "socket": Entry("socket"),
    "link": Entry("link", target="script"),
    "far": Entry("link", target="link"),
    "link to plain": Entry("link", target="plain"),
    "link to directory": Entry("link", target="directory"),
    "dangling": Entry("link", target="nowhere"),
    "circle": Entry("link", target="circle back"),
    "circle back": Entry("link", target="circle"),
    "itself": Entry("link", target="itself"),
}
"""Beside the directory, for links."""

FILE_MODES = st.sampled_from([0o600 | bits for bits in (0, 0o1, 0o10, 0o11, 0o100, 0o101, 0o110, 0o111)])
LINK_TARGETS = st.sampled_from(
    [*(f"../aside/{name}" for name in ASIDE), *SIBLINGS, "nowhere", ".", "..", "/bin/true", "/dev/null"]
)
SCRIPT = Entry("file", 0o755)
ODD_ENTRIES = st.one_of(
    st.builds(Entry, st.just("file"), FILE_MODES | st.sampled_from([0o755, 0o644, 0o4755, 0o1711, 0])),
    st.builds(Entry, st.just("link"), target=LINK_TARGETS),
    st.builds(Entry, st.sampled_from(["directory", "fifo", "socket"])),
)
ENTRIES = mostly(st.just(SCRIPT), ODD_ENTRIES, 2)

ODD_CHARACTERS = "019aZ_-.~# \täß$`'\"\\*?[]{}()!;&|<>%=:,@^\r\x01\x1b\x7f"
BYTES = st.sampled_from(sorted(set(range(256)) - set(b"\0\n/")))
NAMES = st.one_of(
    st.sampled_from(SIBLINGS),
    st.from_regex(r"-?[0-9]{1,3}[-_a-zA-Z]?[0-9A-Za-z_-]{0,4}", fullmatch=True),
    st.from_regex(r"[0-9A-Za-z_-]{1,5}", fullmatch=True),
    st.from_regex(r"-{0,2}0{0,2}[0-9][.,]?[0-9]{0,2}[+-]?", fullmatch=True),
    st.text(ODD_CHARACTERS, min_size=1, max_size=6),
    st.lists(BYTES, min_size=1, max_size=6).map(lambda name: os.fsdecode(bytes(name))),
    st.sampled_from(["-n", "-e", "--", "--list", "-maxdepth", "$HOME", "$(id)", "~", "a" * 255, "9" * 200]),
).filter(lambda name: name not in {".", ".."} and not re.search(r"(^|[ \t])\..*[*?[]", name))
"""No line breaks: dib-run-parts takes such a name for several (test_dib_run_parts.REPAIRS). Nothing like .*,
which before bash 5.2 matches "." and ".." even in an empty directory.
"""

TREES = st.lists(st.tuples(NAMES, ENTRIES), min_size=4, max_size=16).map(dict)


def make(directory: pathlib.Path, tree: Mapping[str, Entry]) -> None:
    """``directory`` with these entries."""
    directory.mkdir()
    for name, entry in tree.items():
        path = directory / name
        match entry.what:
            case "file":
                path.write_text("#!/bin/sh\n")
                path.chmod(entry.mode)
            case "directory":
                path.mkdir(entry.mode)
            case "link":
                path.symlink_to(entry.target)
            case kind:
                os.mknod(path, entry.mode | (stat.S_IFIFO if kind == "fifo" else stat.S_IFSOCK))


# --- what is around it -------------------------------------------------------------------------------------

LOCALES = st.sampled_from(
    [
        {"LANG": "C"},
        {"LANG": "C.UTF-8"},
        {"LANG": "POSIX"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C.UTF-8"},
        {"LC_ALL": "POSIX"},
        {"LANG": "C", "LC_ALL": "C.UTF-8"},
        {"LANG": "C.UTF-8", "LC_ALL": ""},
        {"LANG": "xx_XX.UTF-8"},
        {},
    ]
)

PIECES = r"""
    a b Z 1 10 _ \. . ^ $ | (a|b) ( ) * + ? {2} {,1} { [a-z] [^a-z] []a] [^]a] [a-] [a [z-a] [\d] [a\]
    [[:alpha:]] [[:digit:]_] \ \d \< \> \b \w \W \s \S (.)\1 \2 (?:a) *? ä
"""
MATCHING_MUCH = r"""
    . [^.] ^[0-9A-Za-z_.-]+$ ^[^[:space:]]+$ [[:alnum:]] \w ^\S (^|.)[^a] _|- \.sh$ ^[0-9]+-
    ^[[:digit:]]{1,2}-[[:alnum:]_-]+$ ^[]0-9a-z_-]*$ ^[\d_-]|[0-9]{2,}
"""
REGEXES = mostly(
    st.sampled_from(["", *MATCHING_MUCH.split()]),
    st.lists(st.sampled_from(PIECES.split()), min_size=1, max_size=4).map("".join),
    2,
)
"""None begins with a hyphen: to dib-run-parts' grep that is an option."""


# --- hooks that can be run ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hook:
    """A script that notes in $RAN that it runs. ``first`` is its first line."""

    first: str = "#!/bin/sh\n"
    deeds: tuple[str, ...] = ()
    end: str = ""
    mode: int = 0o755

    @property
    def text(self) -> str:
        return "\n".join((f'{self.first}printf \'%s\\n\' "${{0##*/}}" >> "$RAN"', *self.deeds, self.end, ""))


INTERPRETED = st.sampled_from(["#!/bin/sh\n", "#!/bin/bash\n", "#! /bin/sh -e\n", "#!/usr/bin/env bash\n"])
NOT_INTERPRETED = st.sampled_from(["", "\n", "# no interpreter\n", " #!/bin/sh\n"])
NOT_TO_BE_STARTED = st.sampled_from(["#!/no/such/interpreter\n", "#!/bin/sh\r\n", "#!/etc/passwd\n"])
FIRST_LINES = mostly(mostly(INTERPRETED, NOT_INTERPRETED, 3), NOT_TO_BE_STARTED, 12)
A_DEED = st.sampled_from(
    [
        *('echo "$0 $#"', 'echo "${SHOWN-unset}"', 'echo "${FROM_ENV-unset}"', "env | grep ^OTHER", "f"),
        *('read -r line; echo "read $? $line"', "cat", "echo trouble >&2", "pwd", "umask", "false"),
        *("printf 'no end of line'", r"printf '\377\000\033[31m\r\n'", "printf '%9000s\\n' x", "echo; echo"),
        *("export SHOWN=changed", "cd /", "umask 077", "trap '' TERM"),
        *('rm -f "${0%/*}/20-b"', 'chmod a-x "${0%/*}/20-b"', 'echo "echo late" > "${0%/*}/20-b"'),
        'printf "#!/bin/sh\\necho late\\n" > "${0%/*}/25-late"; chmod 755 "${0%/*}/25-late"',
    ]
)
DEEDS = st.lists(A_DEED, max_size=4).map(tuple)
GOOD_ENDS = st.sampled_from(["", "exit", "exit 0", "true"])
BAD_ENDS = st.one_of(
    st.integers(1, 255).map("exit {}".format),
    st.sampled_from([1, 2, 9, 13, 14, 15]).map("kill -{} $$".format),
    st.sampled_from(["exec /no/such/program", "exec /etc/passwd", "if then"]),
)
HOOKS = mostly(
    st.builds(Hook, FIRST_LINES, DEEDS, mostly(GOOD_ENDS, BAD_ENDS, 8)),
    st.builds(Hook, mode=st.sampled_from([0o644, 0o700, 0o711])),
    5,
)
HOOK_NAMES = st.one_of(
    st.sampled_from([*SIBLINGS, "30-c"]),
    st.from_regex(r"-?[0-9]{1,2}[-_][a-z]{0,2}", fullmatch=True),
    st.from_regex(r"[0-9]{1,2}\.[a-z]{0,2}", fullmatch=True),
)
HOOK_TREES = st.lists(st.tuples(HOOK_NAMES, HOOKS), min_size=2, max_size=6).map(dict)

ENVIRONMENT_NAMES = st.sampled_from(["10-a", "9-b", "set_var.bash", ".hidden", "A", "a~", "1 b", "ü"])
SOUND_FILES = st.sampled_from(
    [
        *("export FROM_ENV=one", "FROM_ENV=plain", "unset SHOWN", "export SHOWN='*'", "# nothing", ""),
        *(
            'FROM_ENV="${FROM_ENV-}:two"; export FROM_ENV',
            "export FROM_ENV=early; return; export FROM_ENV=late",
        ),
        *("export OTHER1='a  b' OTHER2=$'\\n' OTHER3=\"$SHOWN\"", "f() { echo called; }; export -f f"),
        *("set +u; export OTHER4=$missing; set -u", "if false; then :; fi", "export PATH=$PATH:/nowhere"),
    ]
)
FAILING_FILES = st.sampled_from(
    [
        "false",
        "false | true",
        "(exit 42)",
        "exit 7",
        "echo $missing",
        "exec /bin/false",
        "no-such-program-at-all",
    ]
)
ENVIRONMENTS = st.dictionaries(ENVIRONMENT_NAMES, mostly(SOUND_FILES, FAILING_FILES, 15), max_size=4).map(
    lambda files: {**files, "50-common": "export COMMON=1"}
)
"""One file at least has a name that is sourced: without, dib-run-parts ends with 1."""
