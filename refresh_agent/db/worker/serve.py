"""A request in, answers out: the worker's edge. What an operation does is in the module of its name."""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO

from . import protocol
from .faults import (
    SERVER,
    BadConnectionError,
    NoConnectionError,
    TargetError,
    one_line,
    require,
    require_migrate,
)
from .isolation import own_surroundings
from .masking import masker
from .protocol import Job, Order, Report, Result
from .stopping import Stopped, of_this_process

MODULES = {
    protocol.UPGRADE: "upgrade",
    protocol.DOWNGRADE: "downgrade",
    protocol.STAMP: "stamp",
    protocol.SHOW_VERSION: "status",
    protocol.STATUS: "status",
    protocol.HAS_REVISION: "status",
    protocol.REVISION: "revision",
    protocol.CHECK: "check",
    protocol.SQL: "sql",
    protocol.UNLOCK: "unlock",
}
"""Where the operation lies, as the function ``run``; imported when a target asks for it."""


def main() -> int:
    """Answer the request on stdin; the status is 0 when every target has got its result."""
    with _private_stdout() as stream:
        request = json.load(sys.stdin)
        if request["version"] != protocol.VERSION:
            print(f"unknown protocol version {request['version']}", file=sys.stderr)
            return 2
        order = Order(**request["order"])
        for fields in request["targets"]:
            job = Job.from_json(fields)
            _serve(job, order, Report(job.name, stream, masker([job.connection])))
    return 0


def _private_stdout() -> BinaryIO:
    """Keep stdout for the answers; whatever env.py or a script prints goes to stderr instead."""
    # Unbuffered: what cannot be sent, since nobody listens any more, must not come up again at the end.
    stream = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    for standard in (sys.stdout, sys.stderr):
        if isinstance(standard, io.TextIOWrapper):
            standard.reconfigure(line_buffering=True, errors="backslashreplace")
    return stream


def _serve(job: Job, order: Order, report: Report) -> None:
    report.begin()
    began = time.monotonic()
    try:
        _require(order.operation)
        with _surroundings(job, order.operation):
            result = _answer(job, order, report)
    except Stopped as stop:
        result = Result(protocol.STOPPED, message=str(stop))
    except NoConnectionError as fault:
        kind = protocol.REFUSED if isinstance(fault, BadConnectionError) else protocol.FAILED
        result = Result(kind, message=f"{job.connection_option}: {fault}")
    except TargetError as fault:
        result = Result(protocol.FAILED, message=str(fault))
    except Exception as error:  # noqa: BLE001 - the edge: a fault of ours, told without a traceback
        edge = job.connection_option if hasattr(error, SERVER) else "internal error"
        result = Result(protocol.FAILED, message=f"{edge}: {one_line(error)}")
    report.result(replace(result, seconds=round(time.monotonic() - began, 3)))


def _require(operation: str) -> None:
    """What the operation needs of this interpreter, or how it is installed."""
    if operation == protocol.LEGACY:
        require_migrate()  # first: it needs an SQLAlchemy that is not the newest
        return
    require("sqlalchemy", "SQLAlchemy")
    require("alembic.config", "alembic")


@contextmanager
def _surroundings(job: Job, operation: str) -> Iterator[None]:
    """As the tree is used to.

    ``python_path`` comes last for a legacy repository in an interpreter of its own: it is made for the other
    interpreter, and the release that this one has installed must win.
    """
    if operation == protocol.LEGACY:
        with own_surroundings(os.sep, last=job.python_path):
            yield
        return
    folder = os.path.dirname(job.alembic_config)
    with own_surroundings(folder if os.path.isdir(folder) else os.sep, first=job.python_path):
        yield


def _answer(job: Job, order: Order, report: Report) -> Result:
    # Imported now, not at the top: these need SQLAlchemy, and a missing one is to be a result.
    task = importlib.import_module(".task", __package__).Task(job, order, report, of_this_process())
    module = MODULES.get(order.operation, "legacy")
    with importlib.import_module(".connecting", __package__).limited():
        result: Result = importlib.import_module(f".{module}", __package__).run(task)
    return result
