"""What a sqlalchemy-migrate repository says on disk; reading it needs nothing installed."""

from __future__ import annotations

import configparser
import os
import re
from dataclasses import dataclass

_SCRIPT = re.compile(r"^(\d{3,}).*\.(?:py|sql)$")
"""The rule of migrate.versioning.version.Collection, which also takes NNN_name_DATABASE_upgrade.sql."""


@dataclass(frozen=True)
class Repository:
    """``name`` is its repository_id, ``scripts`` its versions; ``defect`` says why it cannot be read."""

    path: str = ""
    name: str = ""
    version_table: str = "migrate_version"
    scripts: frozenset[int] = frozenset()
    defect: str = ""


def read(path: str) -> Repository:
    """Read migrate.cfg and the names in versions/.

    A repository that is not there is a defect, no error: once a database is under alembic, it may go.
    """
    if not path:
        return Repository()
    settings = configparser.RawConfigParser()
    try:
        with open(os.path.join(path, "migrate.cfg"), encoding="utf-8") as file:
            settings.read_file(file)
        name = settings.get("db_settings", "repository_id")
        names = os.listdir(os.path.join(path, "versions"))
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        text = " ".join(str(error).split())
        return Repository(path=path, defect=f"migrate_repository {path} cannot be read: {text}")
    scripts = frozenset(int(match[1]) for match in map(_SCRIPT.match, names) if match)
    version_table = settings.get("db_settings", "version_table", fallback="migrate_version")
    return Repository(path, name, version_table, scripts)
