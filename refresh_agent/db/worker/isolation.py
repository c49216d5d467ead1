"""Each target gets an import system as if it were alone: one process serves several migration trees."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence

_WORKER = os.path.dirname(os.path.realpath(__file__))
"""Its own modules come when an operation needs them, and stay: two of a kind would not know each other."""

_ALEMBIC_SPEAKS = os.path.join("alembic", "runtime", "migration.py")


@contextlib.contextmanager
def own_surroundings(directory: str, first: Sequence[str] = (), last: Sequence[str] = ()) -> Iterator[None]:
    """Work in ``directory`` with ``first`` before and ``last`` behind what sys.path has; then undo it.

    Modules that came from such places go again: another tree's ``models`` must not answer for this one's.
    ``directory``: an alembic.ini may name its scripts relative to itself, as ``alembic`` is called there.
    """
    path = list(sys.path)
    loaded = set(sys.modules)
    _log_to_stderr()
    os.chdir(directory)
    sys.path[:] = [*first, *path, *last]
    try:
        yield
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - loaded:
            if not _is_below(getattr(sys.modules[name], "__file__", None), (*path, _WORKER)):
                del sys.modules[name]


def _is_below(file: str | None, path: Sequence[str]) -> bool:
    """True too for a module without a file, which no directory of a tree has brought."""
    return file is None or any(entry and file.startswith(os.path.join(entry, "")) for entry in path)


def _log_to_stderr() -> None:
    """Anew for each target: a tree's env.py may have replaced the handlers and disabled all loggers."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", force=True
    )
    for logger in logging.Logger.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False
    logging.getLogger("alembic.runtime.migration").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Not alembic's own INFO lines: they repeat the steps that are reported anyway. A level would not do.

    An alembic.ini sets levels, and migration scripts speak through this logger too.
    """
    return record.levelno > logging.INFO or not record.pathname.endswith(_ALEMBIC_SPEAKS)
