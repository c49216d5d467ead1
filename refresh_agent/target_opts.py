"""The options of a database to migrate, with help, unit and range: one ``[migration:NAME]`` section each."""

import sys
from collections.abc import Mapping
from typing import Any

from refresh_agent.db import targets
from refresh_agent.model import Destructive, Target
from refresh_agent.option_values import Reader
from refresh_agent.oslo import cfg

PREFIX = "migration:"

OPTS = [
    cfg.StrOpt("connection", secret=True, help="SQLAlchemy URL of the database. This or connection_from."),
    cfg.StrOpt(
        "connection_from",
        help="Path of the service's own oslo.config file; the connection of its group database is used. It "
        "is read when the database is migrated.",
    ),
    cfg.StrOpt("alembic_config", help="Path of the service's alembic.ini. This or alembic_location."),
    cfg.StrOpt(
        "alembic_location",
        help="Alembic's script location: a directory, or PACKAGE:PATH. This or alembic_config.",
    ),
    cfg.StrOpt("migrate_repository", help="Directory of the sqlalchemy-migrate repository, if there is one."),
    cfg.ListOpt(
        "legacy_versions",
        default=[],
        help="Which sqlalchemy-migrate version equals which alembic revision: 86:c6214ca60943, ... With base "
        "as the revision, the alembic tree goes on where the repository ends.",
    ),
    cfg.StrOpt(
        "python",
        sample_default="the agent's own",
        help="Interpreter under which the alembic tree runs.",
    ),
    cfg.StrOpt(
        "legacy_python",
        sample_default="as python",
        help="Interpreter under which the sqlalchemy-migrate repository runs, if it is another one: "
        "sqlalchemy-migrate cannot live beside SQLAlchemy 2.",
    ),
    cfg.ListOpt("python_path", default=[], help="Directories put in front of the import path."),
    cfg.StrOpt(
        "user",
        sample_default="the agent's own",
        help="User as whom the migration runs; only root can name another one than itself.",
    ),
    cfg.StrOpt("revision", default="head", help="Alembic revision to upgrade to."),
    cfg.FloatOpt(
        "timeout",
        default=3600,
        min=0,
        help="Seconds that the migration of this database may take; 0 for no limit.",
    ),
    cfg.FloatOpt(
        "lock_timeout",
        min=0,
        sample_default="as timeout",
        help="Seconds to wait while another node migrates this database, and for locks in it; then the run "
        "is deferred. 0 for no limit.",
    ),
    cfg.FloatOpt(
        "statement_timeout",
        default=0,
        min=0,
        help="Seconds that a single statement may take, where the server can end it; 0 for no limit.",
    ),
    cfg.StrOpt(
        "destructive",
        default=Destructive.WARN,
        choices=[
            (Destructive.ALLOW, "nobody looks"),
            (Destructive.WARN, "it is migrated, and a warning is logged"),
            (Destructive.REFUSE, "it is not migrated"),
        ],
        help="What becomes of a migration that drops tables or columns.",
    ),
    cfg.StrOpt(
        "backup",
        help="What makes a backup before the first change: a command with the absolute path of its program, "
        "or, for SQLite, builtin or builtin:/directory.",
    ),
]


def read(name: str, reader: Reader) -> Target | None:
    """The target of this name; None, and the problems noted, if its section cannot be made sense of."""
    group = f"{PREFIX}{name}"
    known = len(reader.problems)
    values = reader.group(group, OPTS)
    if len(reader.problems) > known:
        return None
    try:
        legacy_versions = targets.parse_legacy_versions(values["legacy_versions"])
    except ValueError as error:
        reader.problems.append(f"[{group}] {error}")
        return None
    target = _target(name, values, legacy_versions)
    reader.problems += [f"[{group}] {problem}" for problem in targets.problems(target)]
    return target


def _target(name: str, values: Mapping[str, Any], legacy_versions: tuple[tuple[int, str], ...]) -> Target:
    python = values["python"] or sys.executable
    texts = ("connection", "connection_from", "alembic_config", "alembic_location", "migrate_repository")
    lock_timeout = values["lock_timeout"]
    return Target(
        name=name,
        **{option: values[option] or "" for option in (*texts, "user", "backup")},
        python=python,
        legacy_python=values["legacy_python"] or python,
        legacy_versions=legacy_versions,
        python_path=tuple(values["python_path"]),
        revision=values["revision"],
        timeout=values["timeout"],
        lock_timeout=values["timeout"] if lock_timeout is None else lock_timeout,
        statement_timeout=values["statement_timeout"],
        destructive=Destructive(values["destructive"]),
    )
