"""alembic.ini, read in time: what is wrong with it is told with the line, and without a word of the file."""

from __future__ import annotations

import configparser
import os
import pwd

from alembic.config import Config

from .faults import TargetError, about_ini


def read(path: str) -> Config:
    """The configuration of this file; an empty one for "". Raises TargetError."""
    config = Config(path or None)
    if not path:
        return config
    _refuse_unreadable(path)
    try:
        config.file_config.sections()
    except configparser.Error as error:
        raise TargetError(f"alembic_config {path}: {about_ini(error)}; correct the file") from None
    except UnicodeDecodeError:
        raise TargetError(
            f"alembic_config {path}: line {_first_undecodable(path)}: is not UTF-8 text; correct the file"
        ) from None
    return config


def _refuse_unreadable(path: str) -> None:
    """It is configparser that takes a file that it cannot open for an empty one."""
    try:
        with open(path, "rb"):
            return
    except FileNotFoundError:
        raise TargetError(f"alembic_config {path} does not exist") from None
    except OSError as error:
        raise TargetError(
            f"alembic_config {path} cannot be read by user {user_name()}: {error.strerror or error}"
        ) from None


def user_name() -> str:
    """Of the user as whom this process runs; the number, if it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _first_undecodable(path: str) -> int:
    """The number of the line."""
    with open(path, "rb") as file:
        content = file.read()
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return content.count(b"\n", 0, error.start) + 1
    return 1
