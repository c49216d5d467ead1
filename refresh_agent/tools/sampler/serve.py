"""One request, read as JSON; one answer, written as JSON.

The command line: a descriptor that the request is read from, and which of the two machines to be on. The
first reads the defaults that the second has found from its standard input. On standard output a line says
what is going to be imported, before it is, so that the reader knows what has ended the interpreter; then
comes the answer.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
from json import dumps, loads  # modules may do anything to others, json among them
from typing import Any, TextIO

from .identity import MACHINES, neutral, pretend
from .trouble import Trouble, missing, reason, trouble

PR_SET_PDEATHSIG = 1

NOT_FORMATTED = "# Warning: Failed to format sample for "
"""oslo-config-generator leaves an option out with these words."""


def main(arguments: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _end_with_parent()
    descriptor, name = int(arguments[0]), arguments[1]
    # What modules read and write is neither the other's table nor our answer.
    table, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    with open(f"/proc/self/fd/{descriptor}", encoding="utf-8") as file:
        request = loads(file.read())
    os.close(descriptor)
    try:
        answer = _answer(request, name, table, answers)
    except _CannotError as error:
        answer = {"fatal": str(error)}
    except BaseException as error:  # noqa: BLE001 - what modules may have done to the interpreter has no end
        answer = {"fatal": f"{sys.executable} cannot go on after the project's modules: {reason(error)}"}
    _tell(answers, answer)


def _end_with_parent() -> None:
    """Also when that is killed. Not every Python has been built with ctypes."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes  # noqa: PLC0415

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class _CannotError(Exception):
    pass


def _tell(answers: TextIO, what: Any) -> None:
    answers.write(dumps(what) + "\n")
    answers.flush()


def _answer(request: dict[str, Any], name: str, table: TextIO, answers: TextIO) -> dict[str, Any]:
    machine = MACHINES[name]._replace(processors=request["processors"][name])
    pretend(machine)
    neutralize = neutral(machine, [request["root"], request["base"]])
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    sys.argv = ["oslo-config-generator"]  # some projects have it in a default
    sys.path.insert(0, request["root"])
    # Help texts look the same whether docutils' additions for it are there or not.
    sys.modules["rst2txt"] = None  # type: ignore[assignment]
    try:
        from . import finding, marking  # noqa: PLC0415 - they need oslo.config
    except ImportError as error:
        raise _CannotError(
            f"{sys.executable} has no oslo.config that can be imported ({reason(error)}): --python takes the "
            "interpreter that can import the project"
        ) from error
    found = finding.find(request, lambda what: _tell(answers, what))
    if name == "second":
        return {"table": marking.table(found.listing, neutralize), "troubles": found.troubles}
    elsewhere = _heard(table)
    if "table" not in elsewhere:
        return elsewhere
    agree = {each["what"] for each in found.troubles} == {each["what"] for each in elsewhere["troubles"]}
    found.troubles.extend(_differences(found.troubles, elsewhere["troubles"]))
    unknown = marking.mark(found.listing, neutralize, elsewhere["table"])
    if unknown:
        why = f"only one of two imports knew {', '.join(unknown)}"
        outcome = "their defaults may be those of a machine that does not exist"
        found.troubles.append(trouble("cannot compare all defaults", why, outcome))
    return {**_rendered(found, request["format"]), "agree": agree and not unknown}


def _differences(here: list[Trouble], there: list[Trouble]) -> list[Trouble]:
    """What went wrong on the other machine only."""
    known = {each["what"] for each in here}
    outcome = "its defaults may be those of a machine that does not exist"
    only = [each for each in there if each["what"] not in known]
    return [
        {**each, "what": f"{each['what']} on every machine", "outcome": outcome, "module": ""}
        for each in only
    ]


def _heard(table: TextIO) -> dict[str, Any]:
    """The answer of the second; if it has none, what it was loading when it ended, as ``second``."""
    during = ""
    for line in table:
        said = loads(line)
        if isinstance(said, dict):
            return said
        during = said
    return {"second": during}


def _names(listing: Any) -> set[str]:
    """What options are called where they are defined: by their names, or as in files."""
    every = [option for _, groups in listing for _, options in groups for option in options]
    return {name for option in every for name in (option.dest, option.name.replace("-", "_"))}


def _rendered(found: Any, form: str) -> dict[str, Any]:
    count = sum(len(options) for _, groups in found.listing for _, options in groups)
    text = _text(found.listing, form) if count else ""
    failed = [line[len(NOT_FORMATTED) :] for line in text.splitlines() if line.startswith(NOT_FORMATTED)]
    what = "oslo-config-generator cannot format every option"
    for name in failed:
        found.troubles.append(trouble(what, "it says why, in the sample", missing(f"option {name}")))
    return {
        "namespaces": found.namespaces,
        "names": sorted(_names(found.listing)),
        "options": count - len(failed),
        "text": text,
        "troubles": found.troubles,
    }


def _text(listing: Any, form: str) -> str:
    from oslo_config import cfg, generator  # noqa: PLC0415

    generator._list_opts = lambda namespaces: listing  # noqa: ARG005, SLF001 - "rst" asks it too
    conf, text = cfg.ConfigOpts(), io.StringIO()
    generator.register_cli_opts(conf)
    names = [word for name, _ in listing for word in ("--namespace", name)]
    try:
        conf(
            [*names, "--format", form],
            prog="oslo-config-generator",
            default_config_files=[],
            default_config_dirs=[],
        )
        generator.generate(conf, text)
    except Exception as error:
        hint = f"; install Sphinx for {sys.executable}" if form == "rst" else ""
        raise _CannotError(
            f"oslo-config-generator cannot write this as {form}: {reason(error)}{hint}"
        ) from error
    return text.getvalue()
