"""Alembic's differences between models and database, in words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

ARGUMENTS: Mapping[str, Any] = {
    "message": None,
    "autogenerate": True,
    "sql": False,
    "head": "head",
    "splice": False,
    "branch_label": None,
    "version_path": None,
    "rev_id": None,
    "depends_on": None,
}
"""What ``alembic check`` gives to the same comparison."""

_LIMIT = 100
"""Characters of a type or default that are shown."""


def texts(differences: Iterable[Any], ignored: Collection[str]) -> Iterator[str]:
    """One text for each difference, except those of tables that are ``ignored``.

    A difference is a tuple ("add_table", …) as MigrationContext's documentation has them, or a list of those
    that change one column.
    """
    for difference in differences:
        if isinstance(difference, list):
            yield from texts(difference, ignored)
        elif _table_of(difference) not in ignored:
            yield _text(difference)


def _table_of(difference: tuple[Any, ...]) -> str:
    if difference[0].startswith("modify_") or difference[0] in {"add_column", "remove_column"}:
        return str(difference[2])
    subject = difference[1]
    return str(getattr(getattr(subject, "table", subject), "name", ""))


def _text(difference: tuple[Any, ...]) -> str:
    kind = difference[0]
    verb, _, what = kind.partition("_")
    if verb == "modify":
        _, schema, table, column, _, old, new = difference
        name = ".".join(filter(None, (schema, table, column)))
        return f"the column {name} has {what} {_shown(old)} in the database, {_shown(new)} in the models"
    if what == "column":
        name = ".".join(filter(None, (difference[1], difference[2], difference[3].name)))
        return _missing(verb, f"column {name}")
    return _missing(verb, _NAMES.get(what, _other)(what, difference[1]))


def _missing(verb: str, subject: str) -> str:
    if verb == "add":
        return f"the models have the {subject}, the database does not"
    return f"the database has the {subject}, the models do not"


def _other(what: str, subject: Any) -> str:
    """An index, constraint or comment, with its table."""
    table = getattr(subject, "table", None)
    name = getattr(subject, "name", None) or "without a name"
    columns = ", ".join(str(getattr(column, "name", column)) for column in getattr(subject, "columns", ()))
    of_table = f" of the table {table.name}" if table is not None else ""
    return f"{what.replace('_', ' ')} {name}{of_table}{f' ({columns})' if columns else ''}"


def _table(_what: str, subject: Any) -> str:
    return f"table {subject.fullname}"


def _comment(_what: str, subject: Any) -> str:
    return f"comment on the table {subject.fullname}"


_NAMES: Mapping[str, Callable[[str, Any], str]] = {
    "table": _table,
    "table_comment": _comment,
    "fk": lambda _what, subject: _other("foreign key", subject),
}


def _shown(value: Any) -> str:
    argument = getattr(value, "arg", value)  # of a server default
    text = " ".join(str(argument).split())
    return text if len(text) <= _LIMIT else f"{text[: _LIMIT - 1]}…"
