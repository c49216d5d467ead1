"""A request in, answers out: the worker's edge. What an operation does is in ``upgrade`` and ``catch_up``."""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import BinaryIO

from . import protocol
from .faults import TargetError, require, require_migrate
from .masking import masker
from .protocol import Job, Report, Result

Operation = Callable[[Job, Report], Result]


def main() -> int:
    """Answer the request on stdin; the status is 0 when every target has got its result."""
    with _private_stdout() as stream:
        request = json.load(sys.stdin)
        if request["version"] != protocol.VERSION:
            print(f"unknown protocol version {request['version']}", file=sys.stderr)
            return 2
        for fields in request["targets"]:
            job = Job.from_json(fields)
            report = Report(job.name, stream, masker([job.connection]))
            _serve(request["operation"], job, report)
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


def _serve(operation: str, job: Job, report: Report) -> None:
    report.begin()
    began = time.monotonic()
    try:
        result = _operation(operation)(job, report)
    except TargetError as fault:
        result = Result(protocol.FAILED, message=str(fault))
    report.result(replace(result, seconds=round(time.monotonic() - began, 3)))


def _operation(name: str) -> Operation:
    """Import what the operation needs, now that a target asks for it, and return its function."""
    if name == protocol.UPGRADE:
        require("sqlalchemy", "SQLAlchemy")
        require("alembic.config", "alembic")
        module = "upgrade"
    else:
        require_migrate()  # first: it needs an SQLAlchemy that is not the newest
        module = "catch_up"
    operation: Operation = importlib.import_module(f".{module}", __package__).run
    return operation
