"""Has the project's own interpreter look for options, and tells what came of it."""

import itertools
import json
import os
import pathlib
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from refresh_agent.errors import ConfigError
from refresh_agent.tools.sampler.identity import HOME, MACHINES

WANTED = "--python takes a Python 3.9 or later that has oslo.config"

PROCESSORS = ({"first": 2, "second": 16}, {"first": 4, "second": 8})
"""Far from each other, so that a number that follows from them shows, whatever bounds it. But it may be out
of its own bounds then; the second pair is for options that bound theirs more closely."""

GRACE = 1.0
"""Seconds for an interpreter to end by itself once it has answered, or closed what it answers on."""

MOST_LINES = 1_000_000
MOST_BYTES = 2**28
"""Of what an interpreter says: a line for each module, and its answer. More comes from no interpreter."""

Process = subprocess.Popen[bytes]

SAMPLER = str(pathlib.Path(__file__).resolve().parent / "sampler" / "__main__.py")
CHECKOUT = str(pathlib.Path(__file__).resolve().parents[2])

PATHS = {"PATH", "PYTHONPATH", "LD_LIBRARY_PATH"}
KEPT = PATHS | {"PBR_VERSION"}
KEPT_PREFIXES = ("SETUPTOOLS_SCM_PRETEND_VERSION", "COVERAGE_")
"""Of the caller's environment: what finds the modules, and what their imports ask about their own version.
The rest is the caller's alone: a default that was taken from it would be true nowhere else."""

FIXED = {
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "EVENTLET_NO_GREENDNS": "yes",  # generate_sample.sh: else its import asks the machine's resolver
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONIOENCODING": "utf-8",
}


@dataclass(frozen=True)
class Request:
    """What to look for, by which interpreter; ``content`` is what ``sampler/finding.py`` reads."""

    python: str
    environment: Mapping[str, str]
    content: Mapping[str, Any]


@dataclass(frozen=True)
class Trouble:
    """``outcome``: what it makes of the sample; ``module``: the one whose options are missing, or ""."""

    what: str
    where: str
    why: str
    outcome: str
    module: str


@dataclass(frozen=True)
class Sample:
    """``namespaces``: those of the project itself; () if it has none, and its modules were looked at.

    ``names``: of all options.
    """

    text: str
    options: int
    names: frozenset[str]
    namespaces: tuple[str, ...]
    troubles: tuple[Trouble, ...]


def sample(request: Request) -> Sample:
    """Look on two machines; if they do not agree, on two that are nearer. Raises ConfigError."""
    answer: dict[str, Any] = {}
    for processors in PROCESSORS:
        answer = _answer(replace(request, content={**request.content, "processors": processors}))
        if answer["agree"]:
            break
    text = answer["text"].encode(errors="backslashreplace").decode()  # a file name may be no text
    troubles = tuple(Trouble(**each) for each in answer["troubles"])
    return Sample(text, answer["options"], frozenset(answer["names"]), tuple(answer["namespaces"]), troubles)


def _answer(request: Request) -> dict[str, Any]:
    """Look again without it for each module that ends the interpreter."""
    fatal: dict[str, str] = {}
    while True:
        answer = _ask(replace(request, content={**request.content, "fatal": fatal}))
        if isinstance(answer, _Ended):
            if not answer.during or answer.during in fatal:
                raise ConfigError(f"{request.python} ended ({answer.how}) before it had any answer: {WANTED}")
            fatal[answer.during] = f"it ends the interpreter ({answer.how})"
        elif "fatal" in answer:
            raise ConfigError(answer["fatal"])
        else:
            return answer


@dataclass(frozen=True)
class _Ended:
    """``during``: what was being loaded, "" if nothing was yet."""

    during: str
    how: str


def _ask(request: Request) -> dict[str, Any] | _Ended:
    """Two processes look, each on a machine of its own; the first is told what the second has found."""
    with _readable(json.dumps(request.content)) as document:
        second = _start(request, document, "second", subprocess.DEVNULL, subprocess.DEVNULL)
        try:
            first = _start(request, document, "first", second.stdout, None)
            try:
                return _heard(first, second)
            finally:
                _end(first)
        finally:
            _end(second)


def _heard(first: Process, second: Process) -> dict[str, Any] | _Ended:
    """Its answer; what comes after that does not count, such as an exit that takes its time."""
    during = ""
    for line in itertools.islice(_lines(first, second), MOST_LINES):
        said = _parsed(line)
        if isinstance(said, str):
            during = said
        elif isinstance(said, dict) and "second" in said:
            return _Ended(said["second"], "on one of the two machines that it is shown")
        elif isinstance(said, dict):
            _wait(first, GRACE)
            return said
    return _Ended(during, _how(first) if _wait(first, GRACE) else "by us, since it does not answer")


def _lines(first: Process, second: Process) -> Iterator[bytes]:
    """What the first one says. Children that were forked hold the ends of pipes: they do not count."""
    assert first.stdout is not None
    answers, rest = first.stdout.fileno(), b""
    with _watched(first) as first_ended, _watched(second) as second_ended:
        awaited = [answers, first_ended, second_ended]
        while len(rest) < MOST_BYTES:
            ready = select.select(awaited, [], [])[0]
            if second_ended in ready:
                _kill(second)  # the first one may wait for more than it will ever hear
                awaited.remove(second_ended)
            elif answers in ready and (said := os.read(answers, 2**16)):
                *lines, rest = (rest + said).split(b"\n")
                yield from lines
            else:
                return


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:  # what was started is no Python
        return None


def _readable(text: str) -> Any:
    """An open file in memory: nothing is left behind, however this ends."""
    file = os.fdopen(os.memfd_create("request"), "w+", encoding="utf-8")
    file.write(text)
    file.flush()
    return file


def _start(request: Request, document: Any, machine: str, stdin: Any, stderr: Any) -> Process:
    descriptor = document.fileno()
    try:
        # A session of its own: what modules start and leave running ends with it, and no terminal is asked.
        return subprocess.Popen(
            [request.python, SAMPLER, str(descriptor), machine],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=_environment(request.environment, machine),
            cwd=request.content["base"],
            pass_fds=(descriptor,),
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigError(f"{request.python} cannot be started: {error.strerror}: {WANTED}") from error


def _environment(wanted: Mapping[str, str], machine: str) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if name in KEPT or name.startswith(KEPT_PREFIXES)
    }
    # Our own checkout is there for us, not for the project: the scripts have put it there.
    path = [entry for entry in kept.get("PYTHONPATH", "").split(os.pathsep) if entry and entry != CHECKOUT]
    exported = {name: value for name, value in wanted.items() if not name.startswith("OS_")}
    found = kept | {"PYTHONPATH": os.pathsep.join(path)} | exported
    if machine == "second":  # on another machine these are others, so that a default made of one shows it
        found |= {name: found[name] + os.pathsep + HOME for name in PATHS if found.get(name)}
    seed = {"PYTHONHASHSEED": "0" if machine == "first" else "1"}  # the order of a set must not matter
    return found | FIXED | MACHINES[machine].environment() | seed


def _wait(process: Process, seconds: float) -> bool:
    """Has it ended by then? Its number stays its own, and that of its session, until ``_end``."""
    with _watched(process) as ended:
        return bool(select.select([ended], [], [], seconds)[0])


@contextmanager
def _watched(process: Process) -> Iterator[int]:
    """A descriptor that can be read once the process has ended."""
    descriptor = os.pidfd_open(process.pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _end(process: Process) -> None:
    if process.stdout is not None:
        process.stdout.close()
    _kill(process)
    process.wait()


def _kill(process: Process) -> None:
    """With all that is in its session."""
    os.killpg(process.pid, signal.SIGKILL)


def _how(process: Process) -> str:
    ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None  # it is waited for
    if ended.si_code == os.CLD_EXITED:
        return f"exit code {ended.si_status}"
    with suppress(ValueError):  # a real-time signal has no name
        return signal.Signals(ended.si_status).name
    return f"signal {ended.si_status}"
