"""The connection that a service's own configuration names, read by what the service reads it with."""

import contextlib
import os
import re
import stat
from collections.abc import Mapping, Sequence

from refresh_agent import files
from refresh_agent.oslo import cfg, iniparser

GROUP = "database"
OPTION = "connection"

LARGEST = 2**24
"""Bytes. What is larger is no configuration file."""

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)

Sections = Mapping[str, Mapping[str, Sequence[str]]]


class UnknownConnectionError(Exception):
    """Why it cannot be told. The text is the message; it quotes nothing from the file."""


def read(path: str) -> str:
    """The value of ``[database] connection``, what a ``$`` in it names put in. Raises UnknownConnectionError.

    The environment does not count: its ``OS_DATABASE__CONNECTION`` would be that of every service.
    """
    sections = _sections(path)
    if OPTION not in sections.get(GROUP, {}):
        raise UnknownConnectionError(f"{path}: has no [{GROUP}] {OPTION}; set it there, or set connection")
    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.StrOpt(OPTION, secret=True), GROUP)
    _register_what_may_be_named(conf, sections)
    try:
        conf(
            args=[],
            project="refresh-agent",
            default_config_files=[path],
            default_config_dirs=[],
            use_env=False,
        )
        value = conf[GROUP][OPTION]
    except (cfg.NoSuchOptError, cfg.TemplateSubstitutionError) as error:
        raise UnknownConnectionError(
            f"{path}: [{GROUP}] {OPTION}: a $ in it names an option that this file does not set; write $$ for"
            " the character itself"
        ) from error
    except (cfg.Error, OSError, ValueError, RecursionError) as error:
        raise UnknownConnectionError(f"{path}: [{GROUP}] {OPTION}: its value cannot be used") from error
    if not value:
        raise UnknownConnectionError(f"{path}: [{GROUP}] {OPTION}: is empty; set it there, or set connection")
    return str(value)


def _sections(path: str) -> Sections:
    sections: dict[str, dict[str, list[str]]] = {}
    try:
        _refuse_what_is_none(path)
        cfg.ConfigParser(path, sections).parse()
    except iniparser.ParseError as error:
        raise UnknownConnectionError(f"{path}: line {error.lineno}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise UnknownConnectionError(f"{path}: is not UTF-8 text") from error
    except OSError as error:
        raise UnknownConnectionError(f"{path}: cannot be read: {files.reason(error)}") from error
    return sections


def _refuse_what_is_none(path: str) -> None:
    """It is read twice, and never for ever."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("is not a regular file")
    if status.st_size > LARGEST:
        raise OSError(f"it has more than {LARGEST} bytes, so it is no configuration file")


def _register_what_may_be_named(conf: cfg.ConfigOpts, sections: Sections) -> None:
    """Options of the service, as text: nobody here knows what else it would make of them."""
    for group, options in sections.items():
        for name in filter(_NAME.fullmatch, options):
            # oslo.config's own (config_file), and those registered already.
            with contextlib.suppress(cfg.Error, ValueError):
                conf.register_opt(cfg.StrOpt(name, secret=True), None if group == "DEFAULT" else group)
