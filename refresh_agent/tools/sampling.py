"""Has the project's own interpreter look for options, and tells what came of it."""

import json
import os
import pathlib
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from refresh_agent.errors import ConfigError

SAMPLER = str(pathlib.Path(__file__).resolve().parent / "sampler" / "__main__.py")
CHECKOUT = str(pathlib.Path(__file__).resolve().parents[2])

KEPT = {"PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PBR_VERSION"}
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
    """``namespaces``: those of the project itself; () if it has none, and its modules were looked at."""

    text: str
    options: int
    namespaces: tuple[str, ...]
    troubles: tuple[Trouble, ...]


def sample(request: Request) -> Sample:
    """Look again without it for each module that ends the interpreter. Raises ConfigError."""
    fatal: dict[str, str] = {}
    while True:
        answer = _ask(replace(request, content={**request.content, "fatal": fatal}))
        if isinstance(answer, _Ended):
            if not answer.during or answer.during in fatal:
                raise ConfigError(f"{request.python} {answer.how} before it had any answer")
            fatal[answer.during] = f"it ends the interpreter, which {answer.how}"
        elif "fatal" in answer:
            raise ConfigError(answer["fatal"])
        else:
            troubles = tuple(Trouble(**each) for each in answer["troubles"])
            return Sample(answer["text"], answer["options"], tuple(answer["namespaces"]), troubles)


@dataclass(frozen=True)
class _Ended:
    during: str
    how: str


def _ask(request: Request) -> dict[str, Any] | _Ended:
    """Two processes look, each on a machine of its own; the first is told what the second has found."""
    with _readable(json.dumps(request.content)) as document:
        second = _start(request, document, "second", subprocess.DEVNULL, subprocess.DEVNULL)
        try:
            first = _start(request, document, "first", second.stdout, None)
            try:
                output = first.communicate()[0].decode()
            finally:
                _end(first)
        finally:
            _end(second)
    lines = [json.loads(line) for line in output.splitlines()]
    if first.returncode == 0 and lines and isinstance(lines[-1], dict):
        return lines[-1]
    return _Ended(
        next((line for line in reversed(lines) if isinstance(line, str)), ""), _how(first.returncode)
    )


def _readable(text: str) -> Any:
    """An open file in memory: nothing is left behind, however this ends."""
    file = os.fdopen(os.memfd_create("request", os.MFD_CLOEXEC), "w+", encoding="utf-8")
    file.write(text)
    file.flush()
    return file


def _start(
    request: Request, document: Any, machine: str, stdin: Any, stderr: Any
) -> "subprocess.Popen[bytes]":
    descriptor = document.fileno()
    seed = "0" if machine == "first" else "1"  # the order of a set must not matter
    try:
        return subprocess.Popen(
            [request.python, SAMPLER, str(descriptor), machine],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=_environment(request.environment) | {"PYTHONHASHSEED": seed},
            cwd=request.content["base"],
            pass_fds=(descriptor,),
        )
    except OSError as error:
        raise ConfigError(
            f"{request.python} cannot be started: {error.strerror}; --python takes a Python interpreter"
        ) from error


def _environment(wanted: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if name in KEPT or name.startswith(KEPT_PREFIXES)
    }
    # Our own checkout is there for us, not for the project: the scripts have put it there.
    path = [entry for entry in kept.get("PYTHONPATH", "").split(os.pathsep) if entry and entry != CHECKOUT]
    exported = {name: value for name, value in wanted.items() if not name.startswith("OS_")}
    return kept | {"PYTHONPATH": os.pathsep.join(path)} | exported | FIXED


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.stdout is not None:
        process.stdout.close()
    with suppress(ProcessLookupError):
        process.kill()
    process.wait()


def _how(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with {status}"
