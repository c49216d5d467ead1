"""environment.d: shell files beside the phase directories whose exported variables the hooks get.

dib-run-parts: names match ``[0-9A-Za-z_.-]+``, links are followed, no executable bit is needed, the order
is that of ``sort -n`` on whole paths, which is bytewise; they are sourced under ``set -ueo pipefail``. Here
bash does that once for a phase, in a process of its own, and without tracing values into the log.
"""

import base64
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from refresh_agent.model import Command, LineSink, Runner, Stream

NAME = re.compile(r"[0-9A-Za-z_.-]+")

SCRIPT = """
set -ueo pipefail
exec 3>&1 1>&2
for file in "$@"; do
    builtin echo "$file" >&3
    builtin source "$file"
done
set -ueo pipefail
builtin echo >&3
/usr/bin/env -0 | /usr/bin/base64 >&3
"""
"""On the real standard output: the name of each file before it is read, an empty line, the variables."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The variables, or the reason why a phase cannot start."""

    variables: Mapping[str, str]
    error: str = ""


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


def evaluate(paths: Sequence[str], env: Mapping[str, str], runner: Runner, sink: LineSink) -> Evaluated:
    """``env`` with what these files export."""
    if not paths:
        return Evaluated(env)
    lines: list[str] = []

    def keep(stream: Stream, line: str) -> None:
        if stream is Stream.STDOUT:
            lines.append(line)
        else:
            sink(stream, line)

    ended = runner(Command("/bin/bash", ("bash", "-c", SCRIPT, "bash", *paths), env), keep)
    if ended.ok and "" in lines:
        return Evaluated(_variables("".join(lines[lines.index("") + 1 :])))
    # What follows the empty line are the variables: not for a message.
    named = lines[: lines.index("")] if "" in lines else lines
    where = named[-1] if named else "environment.d"
    return Evaluated(env, f"{where}: {ended.detail or f'ended with status {ended.status}'}")


def _variables(dump: str) -> dict[str, str]:
    pairs = (pair.partition(b"=") for pair in base64.b64decode(dump).split(b"\0") if pair)
    # "_" is bash's own note of what it ran last.
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs if name != b"_"}
