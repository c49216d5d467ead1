"""What a sqlalchemy-migrate repository says on disk; reading it needs nothing installed."""

from __future__ import annotations

import configparser
import os
import re
from dataclasses import dataclass

_SCRIPT = re.compile(r"^(\d{3,})_?(.*)\.(?:py|sql)$")
"""The rule of migrate.versioning.version.Collection, which also takes NNN_name_DATABASE_upgrade.sql."""

_SQL = re.compile(r"^(?P<title>.*?)_?(?P<database>[a-z0-9]+)_(?P<way>upgrade|downgrade)$")


@dataclass(frozen=True)
class Repository:
    """``name`` is its repository_id, ``names`` its scripts; ``defect`` says why it cannot be read."""

    path: str = ""
    name: str = ""
    version_table: str = "migrate_version"
    names: tuple[str, ...] = ()
    defect: str = ""

    @property
    def scripts(self) -> frozenset[int]:
        """The versions that it holds."""
        return frozenset(version for version, _, _ in self._parsed())

    def title_of(self, version: int) -> str:
        """What its script is called: "012_order_status.py" has the title "order status"."""
        titles = (title for number, title, _ in self._parsed() if number == version)
        return next(titles, "").replace("_", " ")

    def files_of(self, version: int, backend: str) -> tuple[str, ...]:
        """The scripts that upgrade to that version: one in Python, or those in SQL for this database."""
        wanted = {"", f"{backend}_upgrade", "default_upgrade"}
        return tuple(
            os.path.join(self.path, "versions", name)
            for (number, _, way), name in zip(self._parsed(), self.names)
            if number == version and way in wanted
        )

    def _parsed(self) -> list[tuple[int, str, str]]:
        """Version, title and, of a script in SQL, "DATABASE_upgrade" for each of ``names``."""
        return [_parse(name) for name in self.names]


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
    names = sorted(name for name in names if _SCRIPT.match(name))
    version_table = settings.get("db_settings", "version_table", fallback="migrate_version")
    return Repository(path, name, version_table, tuple(names))


def _parse(name: str) -> tuple[int, str, str]:
    match = _SCRIPT.match(name)
    if match is None:
        raise ValueError(name)
    version, title = int(match[1]), match[2]
    sql = _SQL.match(title) if name.endswith(".sql") else None
    if sql is None:
        return version, title, ""
    return version, sql["title"], f"{sql['database']}_{sql['way']}"
