"""Connections in, a function out that takes their passwords out of any text. Pure; the agent uses it too."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from urllib.parse import parse_qsl, quote, quote_plus, unquote, unquote_plus

MASK = "***"

SHORTEST = 4
"""Characters of a password that is masked anywhere; a shorter one, which every other word has in it, only
where a URL has its password."""

_CREDENTIALS = re.compile(r"^[^:/]*:/*[^:/]*:(?P<first>[^@]*)@(?:(?P<rest>[^/?]*)@)?", re.DOTALL)
"""As SQLAlchemy reads a URL, the password ends at the first "@". ``rest``: what is left of a password that
holds an unquoted "@"; drivers report it as part of a host that they cannot find."""

_SECRET_KEY = re.compile(r"passw|pwd|secret|token", re.IGNORECASE)
_ESCAPE = re.compile(r"%[0-9A-F]{2}")
_SQLALCHEMY_1_QUOTES = re.compile(r"[:@/]")


def masker(connections: Iterable[str]) -> Callable[[str], str]:
    """Return a function that masks the passwords of these database URLs, however they are written.

    Also where a library has quoted them: URL-quoted, with "%" doubled as in an ini file, as repr() or JSON.
    """
    forms = {
        form for connection in connections for secret in secrets_of(connection) for form in _forms(secret)
    }
    if not forms:
        return lambda text: text
    # The longest first: a form may be the beginning of another one.
    pattern = re.compile("|".join(_pattern(form) for form in sorted(forms, key=len, reverse=True)))
    return lambda text: pattern.sub(MASK, text)


def _pattern(form: str) -> str:
    escaped = re.escape(form)
    return escaped if len(form) >= SHORTEST else f"(?<=:){escaped}(?=@)"


def secrets_of(connection: str) -> set[str]:
    """The passwords that a database URL holds, as they stand there."""
    found = _CREDENTIALS.match(connection)
    secrets = {found["first"], found["rest"] or ""} if found else set()
    if found and found["rest"]:
        secrets.add(found["first"] + "@" + found["rest"])
    query = connection.partition("?")[2]
    secrets.update(value for key, value in parse_qsl(query) if _SECRET_KEY.search(key))
    return secrets


def _forms(secret: str) -> set[str]:
    plain = {secret, unquote(secret), unquote_plus(secret)}
    quoted = {
        form
        for text in plain
        for form in (quote(text), quote(text, safe=""), quote(text, safe=" +"), quote_plus(text))
    }
    quoted |= {_SQLALCHEMY_1_QUOTES.sub(lambda mark: quote(mark[0], safe=""), text) for text in plain}
    quoted |= {_ESCAPE.sub(lambda escape: escape[0].lower(), form) for form in quoted}
    forms = plain | quoted | {form.replace("%", "%%") for form in plain | quoted}
    forms |= {repr(form)[1:-1] for form in forms} | {json.dumps(form)[1:-1] for form in forms}
    return forms - {""}
