"""Errors of drivers, libraries and migration scripts in, one line that an operator can act on out."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

MIGRATE = "'sqlalchemy-migrate==0.13.0' 'SQLAlchemy>=1.4.54,<2' 'setuptools<82'"
"""The last set with which sqlalchemy-migrate works: setup.cfg's extra ``migrate``."""

_OWN_ENVIRONMENT = "; or name in legacy_python the interpreter of an environment that has them"

_PIP_NAMES = {
    "MySQLdb": "mysqlclient",
    "cx_Oracle": "cx_Oracle",
    "psycopg": "'psycopg[binary]'",
    "psycopg2": "psycopg2-binary",
    "pymysql": "PyMySQL",
}


SERVER = "refresh_agent_server"
"""The attribute of an error of SQLAlchemy's that no connection came of: ``connecting.server`` of its URL."""

_WORKER = os.path.dirname(os.path.realpath(__file__))

_PACKAGES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class TargetError(Exception):
    """Why a target cannot be migrated. Its text is the message."""


class NoConnectionError(TargetError):
    """No connection: whoever tells it puts the option in front that the connection comes from."""


class BadConnectionError(NoConnectionError):
    """The URL leads nowhere, whatever any server says: the target is refused."""


def require(module: str, packages: str, hint: str = "") -> None:
    """Import ``module``, or raise the TargetError that says with which pip command this interpreter gets it.

    Any ImportError counts: sqlalchemy-migrate beside SQLAlchemy 2 or setuptools 82 is there, and fails.
    """
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise TargetError(
            f"{sys.executable} cannot import {module.partition('.')[0]} ({one_line(error)}); run:"
            f" {sys.executable} -m pip install {packages}{hint}"
        ) from error


def require_migrate() -> None:
    require("migrate.versioning.schema", MIGRATE, _OWN_ENVIRONMENT)


def missing_driver(error: ModuleNotFoundError) -> TargetError:
    """The driver that ``connection`` asks for is not installed."""
    name = error.name or str(error)
    return TargetError(
        f"{sys.executable} cannot import the database driver {name}; run:"
        f" {sys.executable} -m pip install {_PIP_NAMES.get(name, name)}"
    )


def foreign(action: Callable[[], T], file: str = "") -> T:
    """Run code that is not ours: whatever it raises becomes a TargetError.

    ``file`` is the SQLite database's, for errors about the file. The one place where everything is caught:
    env.py, migration scripts and drivers raise anything, and some scripts call sys.exit().
    """
    try:
        return action()
    except TargetError:
        raise
    except (Exception, SystemExit) as error:
        kind = NoConnectionError if hasattr(error, SERVER) else TargetError
        raise kind(_about_file(error, file) or one_line(error) + _place(error)) from error


def one_line(error: BaseException) -> str:
    """Return type and text on one line; of a database error the driver's text and the statement.

    Not its parameters: they hold the rows' data.
    """
    if type(error).__module__ == "configparser":
        return about_ini(error)
    cause: BaseException = getattr(error, "orig", None) or error
    text = f"{type(cause).__name__}: {cause}".rstrip(": ")
    statement = getattr(error, "statement", None)
    if statement:
        text += f" [SQL: {statement}]"
    server: tuple[str, ...] = getattr(error, SERVER, ())
    if not all(part.partition(" ")[2] in text for part in server):
        text += f" ({', '.join(server)})"
    return " ".join(text.split())


def about_ini(error: BaseException) -> str:
    """What is wrong with a file of configparser's, without a word that is in it: it may be a password."""
    numbers = [number for number, _ in getattr(error, "errors", ())] or [getattr(error, "lineno", None)]
    if numbers[0] is not None:
        return f"line {numbers[0]}: {_INI_FAULTS.get(type(error).__name__, 'cannot be read')}"
    section, option = getattr(error, "section", None), getattr(error, "option", None)
    if section and option:
        return f"[{section}] {option}: a % in it names nothing that is set; write %% for the character itself"
    return f"{type(error).__name__}: {f'[{section}]' if section else 'an ini file cannot be read'}"


_INI_FAULTS = {
    "MissingSectionHeaderError": "stands before the first [section]",
    "ParsingError": "is neither a [section] nor an assignment",
    "MultilineContinuationError": "goes on with what is no assignment",
    "DuplicateOptionError": "sets an option that is set already",
    "DuplicateSectionError": "begins a section that is there already",
}


def _place(error: BaseException) -> str:
    """Where in the target's own code it happened: " (env.py, line 12)"; "" if it was not there.

    Of the way to the error the innermost place that is no library's. Python itself says so of a SyntaxError.
    """
    if isinstance(error, SyntaxError) or hasattr(error, SERVER):
        return ""
    frames = traceback.walk_tb(error.__traceback__)
    places = [
        (frame.f_code.co_filename, line) for frame, line in frames if _is_theirs(frame.f_code.co_filename)
    ]
    return f" ({os.path.basename(places[-1][0])}, line {places[-1][1]})" if places else ""


def _is_theirs(file: str) -> bool:
    """Whether a source file is of the target's tree, which may be installed as a part of a package."""
    path = os.path.realpath(file)
    if file.startswith("<") or os.path.dirname(path) == _WORKER:
        return False
    if os.path.basename(path) == "env.py" or os.path.basename(os.path.dirname(path)) == "versions":
        return True
    return not any(packages in path for packages in _PACKAGES) and not path.startswith(_STANDARD_LIBRARY)


_STANDARD_LIBRARY = os.path.join(os.path.dirname(os.path.realpath(os.__file__)), "")


def _about_file(error: BaseException, file: str) -> str:
    """What SQLite says about the file as a whole, with what to do; "" for every other error."""
    text = str(getattr(error, "orig", None) or error)
    if not file or type(getattr(error, "orig", None) or error).__module__ != "sqlite3":
        return ""
    if "is locked" in text:
        return f"the database file {file} is locked by another process; it will be tried again"
    if "readonly" in text:
        return f"the database file {file} is read-only ({text}); make it and its directory writable"
    if "unable to open" in text:
        return f"the database file {file} cannot be opened; check the rights on it and on its directory"
    if "not a database" in text:
        return f"the file {file} is not an SQLite database; correct connection"
    return ""
