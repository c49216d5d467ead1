"""environment.d: shell files beside the phase directories whose exported variables the hooks get.

dib-run-parts: names match ``[0-9A-Za-z_.-]+``, links are followed, no executable bit is needed, the order
is that of ``sort -n`` on whole paths, which is bytewise; they are sourced under ``set -ueo pipefail``. Here
bash does that once for a phase, in a process of its own, and without tracing values into the log.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from refresh_agent.model import ByteSink, Command, Runner, Stream
from refresh_agent.systemd import ALWAYS_OURS

NAME = re.compile(r"[0-9A-Za-z_.-]+")

SCRIPT = """
set -ueo pipefail
exec 3>&1 1>&2
for file in "$@"; do
    builtin echo >&3
    builtin source "$file"
done
set -ueo pipefail
builtin printf '\\0' >&3
/usr/bin/env -0 >&3
"""
"""On the real standard output: a line break before each file is read, a NUL, the variables."""


class Evaluated(NamedTuple):
    """The variables, or the reason why a phase cannot start and the status that it then has."""

    variables: Mapping[str, str]
    error: str = ""
    status: int = 0


def inherited(env: Mapping[str, str]) -> dict[str, str]:
    """``env`` without systemd's channel to the agent, and without the variables of another run."""
    return {name: value for name, value in env.items() if not _agents_own(name)}


def _agents_own(name: str) -> bool:
    return name in ALWAYS_OURS or name.startswith("REFRESH_AGENT_") or name == "OS_CONFIG_FILES"


def files(directory: str) -> tuple[str, ...]:
    """The files to source, in order. None if there is no such directory. Raises OSError."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return ()
    paths = [os.path.join(directory, name) for name in names if NAME.fullmatch(name)]
    return tuple(sorted((path for path in paths if os.path.isfile(path)), key=os.fsencode))


def state(paths: Sequence[str]) -> tuple[tuple[str, int, int, int], ...]:
    """Differs when a file came, went or changed. Raises OSError."""
    statuses = ((path, os.stat(path)) for path in paths)
    return tuple((path, status.st_ino, status.st_size, status.st_mtime_ns) for path, status in statuses)


def evaluate(
    paths: Sequence[str],
    env: Mapping[str, str],
    runner: Runner,
    sink: ByteSink,
    tell: Callable[[str], None],
) -> Evaluated:
    """``env`` with what these files export; ``tell`` hears of each as it begins, ``sink`` what they write."""
    if not paths:
        return Evaluated(env)
    answer = bytearray()

    def keep(stream: Stream, data: bytes) -> None:
        if stream is not Stream.STDOUT:
            sink(stream, data)
            return
        begun = _begun(answer)
        answer.extend(data)
        for path in paths[begun : _begun(answer)]:
            tell(path)

    ended = runner(Command("/bin/bash", ("bash", "-c", SCRIPT, "bash", *paths), env), keep)
    _, complete, variables = bytes(answer).partition(b"\0")
    if ended.ok and complete:
        return Evaluated(_variables(variables))
    where = paths[: _begun(answer)][-1:] or ["environment.d"]
    reason = ended.detail or f"ended with status {ended.status}"
    return Evaluated(env, f"{where[0]}: {reason}", ended.status or 1)


def _begun(answer: bytearray) -> int:
    """How many files; what follows the NUL are the variables."""
    end = answer.find(b"\0")
    return answer.count(b"\n", 0, end if end >= 0 else len(answer))


def _variables(dump: bytes) -> dict[str, str]:
    pairs = (pair.partition(b"=") for pair in dump.split(b"\0") if pair)
    # "_" is bash's own note of what it ran last.
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs if name != b"_"}
