"""Secrets in, masked text out. No side effects.

A value is secret when its key says so: in metadata, in the name of a variable, in the ``name`` of an input
of a deployment. It is masked wherever it shows up, also as JSON or a URL would write it; of a value of
several lines, every line. Signatures in signed URLs are known by their parameter.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"

SHORTEST = 8
"""Characters. Shorter values would mask ordinary words all over the log."""

_SECRET_KEY = re.compile(r"passw(or)?d|secret|token|credential|private[_-]?key|access[_-]?key", re.IGNORECASE)
_PLAIN_KEY = re.compile(r"public[_-]?key|key[_-]?name", re.IGNORECASE)
_SIGNATURE = re.compile(r"((?:Signature|X-Amz-Signature|X-Amz-Security-Token|temp_url_sig)=)[^&\s\"'<>]+")


def looks_secret(key: str) -> bool:
    """Whether what has this name is not for the log."""
    return bool(_SECRET_KEY.search(key)) and not _PLAIN_KEY.search(key)


def secrets_in(content: Any) -> Iterator[str]:
    """All texts under keys that look secret, at any depth; also {"name": "password", "value": ...}."""
    if isinstance(content, Mapping):
        named = content.get("name")
        for key, value in content.items():
            is_value_of_secret = key == "value" and isinstance(named, str) and looks_secret(named)
            yield from _texts(value) if is_value_of_secret or looks_secret(key) else secrets_in(value)
    elif isinstance(content, list):
        for value in content:
            yield from secrets_in(value)


class Masker:
    """Replaces secrets in text. More can be learnt on the way: environment.d may set some."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.learn(secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        new = {form for secret in secrets for form in forms(secret)} - self._known
        if new:
            self._known |= new
            # The longest first: of two that begin alike, the rest of the longer must not stay.
            ordered = sorted(self._known, key=lambda form: (-len(form), form))
            self._pattern = re.compile("|".join(re.escape(form) for form in ordered))

    def __call__(self, text: str) -> str:
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        return _SIGNATURE.sub(rf"\1{MASK}", text) if "=" in text else text


def forms(secret: str) -> Iterator[str]:
    """How a secret may be written: as it is, in JSON, in a URL; line by line if it has several."""
    for line in {secret, *secret.splitlines()}:
        if len(line.strip()) >= SHORTEST:
            yield from {line, json.dumps(line)[1:-1], quote(line, safe=""), quote(line), quote_plus(line)}


def printable(line: bytes) -> str:
    """A line that can be logged: what is not UTF-8 and what would steer a terminal is shown as an escape."""
    return shown(line.rstrip(b"\r").decode("utf-8", "backslashreplace"))


def shown(text: str) -> str:
    """The text with everything that cannot be printed, a line break too, as an escape; tabs stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in text)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
