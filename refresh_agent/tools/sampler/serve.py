"""One request, read as JSON; one answer, written as JSON.

The command line: a descriptor that the request is read from, and which of the two machines to be on. The
first reads the defaults that the second has found from its standard input. On standard output a line says
what is going to be imported, before it is, so that the reader knows what has ended the interpreter; the last
line is the answer.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading
from typing import Any, TextIO

from .identity import MACHINES, neutral, pretend
from .trouble import reason


def main(arguments: list[str]) -> None:
    descriptor, machine = int(arguments[0]), MACHINES[arguments[1]]
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what modules print is not part of the answer
    with open(f"/proc/self/fd/{descriptor}", encoding="utf-8") as file:
        request = json.load(file)
    pretend(machine)
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    sys.argv = ["oslo-config-generator"]  # some projects have it in a default
    sys.path.insert(0, request["root"])
    try:
        answer = _answer(request, machine, out)
    except _CannotError as error:
        answer = {"fatal": str(error)}
    _tell(out, answer)
    sys.stderr.flush()
    if threading.active_count() > 1:  # a module has started a thread: nobody waits for that
        os._exit(0)


class _CannotError(Exception):
    pass


def _tell(out: TextIO, what: Any) -> None:
    json.dump(what, out)
    out.write("\n")
    out.flush()


def _answer(request: dict[str, Any], machine: Any, out: TextIO) -> dict[str, Any]:
    try:
        # Help texts look the same whether docutils' additions for it are there or not.
        sys.modules["rst2txt"] = None  # type: ignore[assignment]
        from . import finding, marking  # noqa: PLC0415 - they need oslo.config
    except ImportError as error:
        raise _CannotError(
            f"{sys.executable} has no oslo.config that can be imported: {reason(error)}"
        ) from error
    found = finding.find(request, lambda name: _tell(out, name))
    neutralize = neutral(machine, [request["root"], request["base"]])
    if machine is MACHINES["second"]:
        return {"table": marking.table(found.listing, neutralize)}
    elsewhere = _last_line(sys.stdin).get("table", {})
    marking.mark(found.listing, neutralize, elsewhere)
    return {
        "namespaces": found.namespaces,
        "options": sum(len(options) for _, groups in found.listing for _, options in groups),
        "text": _rendered(found, request["format"]),
        "troubles": found.troubles,
    }


def _last_line(stream: TextIO) -> dict[str, Any]:
    """{} if the other one has not come to its end."""
    lines = stream.read().splitlines()
    last = json.loads(lines[-1]) if lines else {}
    return last if isinstance(last, dict) else {}


def _rendered(found: Any, form: str) -> str:
    from oslo_config import cfg, generator  # noqa: PLC0415

    generator._list_opts = lambda namespaces: found.listing  # noqa: ARG005, SLF001 - "rst" asks it too
    conf, text = cfg.ConfigOpts(), io.StringIO()
    generator.register_cli_opts(conf)
    names = [word for name, _ in found.listing for word in ("--namespace", name)]
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
