"""Errors of drivers, libraries and migration scripts in, one line that an operator can act on out."""

from __future__ import annotations

import importlib
import sys
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


class TargetError(Exception):
    """Why a target cannot be migrated. Its text is the message."""


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
        raise TargetError(_about_file(error, file) or one_line(error)) from error


def one_line(error: BaseException) -> str:
    """Return type and text on one line; of a database error the driver's text and the statement.

    Not its parameters: they hold the rows' data.
    """
    cause: BaseException = getattr(error, "orig", None) or error
    text = f"{type(cause).__name__}: {cause}".rstrip(": ")
    statement = getattr(error, "statement", None)
    if statement:
        text += f" [SQL: {statement}]"
    return " ".join(text.split())


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
