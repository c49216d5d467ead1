"""Secrets in, masked text out. No side effects.

A value is secret when its key says so: in metadata, in the name of a variable, in the ``name`` of an input
of a deployment. It is masked wherever it shows up, also as JSON or a URL would write it; of a value of
several lines, every line. Signatures in signed URLs are known by their parameter.
"""

import functools
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote

MASK = "***"

SHORTEST = 8
"""Characters. Shorter values would mask ordinary words all over the log."""

_SECRET_KEY = re.compile(
    r"passw(or)?d|passphrase|(^|[_-])pass$|secret|token|credential|(private|access|api)[_-]?key|authorization",
    re.IGNORECASE,
)
_PLAIN_KEY = re.compile(r"public[_-]?key|key[_-]?name", re.IGNORECASE)
_SIGNATURE = re.compile(
    rb"(?:Signature|X-Amz-Signature|X-Amz-Security-Token|temp_url_sig)=(?P<signature>[^&\s\"'<>]+)"
)
_USERINFO = re.compile(r"://[^/\s:@\"'<>]*:(?P<password>[^/\s@\"'<>]+)@")
_USERINFO_BYTES = re.compile(_USERINFO.pattern.encode())
_PRIVATE_KEY = "PRIVATE KEY-----"
"""Texts with either hold a secret, whatever their key: a URL with a password, a key in PEM."""

_LONGEST_SIGNATURE = 4096
"""Bytes, with its name: of a line without end, so much may be the beginning of one."""

_ANGLES = re.compile("[<>&]")
_ESCAPE = re.compile("%[0-9A-F]{2}")

_WORD = 4
_BEGINNING = 32
"""Bytes of a secret by which it is found; a certificate's key has hundreds of lines."""

_MASK = MASK.encode()

MOST_KNOWN = 2000
"""Ways to write secrets. Beyond, those that no run has named for long are forgotten: each costs 3 KiB."""

RUNS_KNOWN = 20
"""Runs whose secrets are kept however many they are: what a hook has left behind may tell them."""

HELD_BACK = 8192
"""Bytes of a line that has not ended until it is passed on in pieces."""

MOST_HELD_BACK = 2**20
"""Bytes; what is longer is no secret that anybody has."""


@functools.lru_cache(4096)
def looks_secret(key: str) -> bool:
    """Whether what has this name is not for the log."""
    return bool(_SECRET_KEY.search(key)) and not _PLAIN_KEY.search(key)


def secrets_in(content: Any) -> Iterator[str]:
    """All texts under keys that look secret, at any depth; also {"name": "password", "value": ...}.

    And passwords within URLs, and private keys in PEM, whatever their key.
    """
    if isinstance(content, dict):
        named = _names_a_secret(content)
        for key, value in content.items():
            if looks_secret(key) or (named and key == "value"):
                yield from _texts(value)
            elif isinstance(value, (dict, list)):  # a call for every single value would take most of the time
                yield from secrets_in(value)
            elif isinstance(value, str) and ("://" in value or _PRIVATE_KEY in value):
                yield from _within(value)
    elif isinstance(content, list):
        for value in content:
            yield from secrets_in(value)
    elif isinstance(content, str):
        yield from _within(content)


def secrets_of_environment(environment: Mapping[str, str]) -> Iterator[str]:
    """The values of variables whose names look secret."""
    return (value for name, value in environment.items() if looks_secret(name))


def masked(content: Any, mask: "Masker") -> Any:
    """The same content to be shown: what is under a secret key is masked however short it is, too."""
    if isinstance(content, Mapping):
        named = _names_a_secret(content)
        return {
            key: _blotted(value) if looks_secret(key) or (named and key == "value") else masked(value, mask)
            for key, value in content.items()
        }
    if isinstance(content, list):
        return [masked(value, mask) for value in content]
    return mask(content) if isinstance(content, str) else content


class Masker:
    """Replaces secrets in what is logged or kept. More can be learnt on the way: environment.d may set some.

    Output is searched at a cost that does not grow with the number of secrets: wherever a secret of 8 bytes
    or more lies, it covers at least one of the 4-byte words that begin at every 4th byte. Only where such a
    word is part of a secret are the secrets that hold it looked for. The longer the shortest secret, the
    fewer words have to be looked at.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._run = 0
        self._known: dict[bytes, int] = {}
        """By the run that last named them."""
        self._holders: dict[int, list[bytes]] = {}
        self._shortest = _BEGINNING
        self.longest = 0
        self.learn(secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        self._add({form for secret in set(secrets) for form in forms(secret)})

    def _add(self, named: set[bytes]) -> None:
        new = named - self._known.keys()
        self._known.update(dict.fromkeys(named, self._run))
        for form in new:
            self._shortest = min(self._shortest, len(form))
            self.longest = max(self.longest, len(form))
            _hold(form, self._holders)

    def known(self) -> list[str]:
        """All that is masked, for ``recall`` in another process; latin-1, since it need not be a text."""
        return [form.decode("latin-1") for form in tuple(self._known)]

    def recall(self, known: Iterable[str]) -> None:
        self._add({form.encode("latin-1") for form in known})

    def next_run(self) -> None:
        """A run begins, and names its secrets next. For where secrets change with every run."""
        self._run += 1
        if len(self._known) <= MOST_KNOWN:
            return
        kept = {form: run for form, run in self._known.items() if run >= self._run - RUNS_KNOWN}
        if len(kept) == len(self._known):
            return
        holders: dict[int, list[bytes]] = {}
        for form in kept:
            _hold(form, holders)
        # In this order: what a hook has left behind is listened to by another thread.
        self._known, self._holders = kept, holders
        self._shortest = min(map(len, kept), default=_BEGINNING)
        self.longest = max(map(len, kept), default=0)

    def __call__(self, text: str) -> str:
        data = text.encode("utf-8", "surrogatepass")
        masked = self.mask(data)
        return text if masked is data else masked.decode("utf-8", "surrogatepass")

    def mask(self, data: bytes) -> bytes:
        """``data`` itself if nothing in it is secret."""
        spans = self.spans(data)
        if not spans:
            return data
        pieces, done = [], 0
        for start, end in spans:
            if start >= done:
                pieces += [data[done:start], _MASK]
            done = max(done, end)
        return b"".join((*pieces, data[done:]))

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Where secrets are, from start to end, in order; they may overlap."""
        found = [span for form in self._candidates(data) for span in _occurrences(form, data)]
        if b"=" in data:
            found += [match.span("signature") for match in _SIGNATURE.finditer(data)]
        if b"://" in data:
            found += [match.span("password") for match in _USERINFO_BYTES.finditer(data)]
        return sorted(found)

    def _candidates(self, data: bytes) -> set[bytes]:
        if not self._known:
            return set()
        stride = (self._shortest - _WORD + 1) // _WORD
        holders = self._holders
        words = memoryview(data)[: len(data) // _WORD * _WORD].cast("I")[::stride]
        if holders.keys().isdisjoint(words):
            return set()
        return set().union(*(holders[word] for word in holders.keys() & words))


class MaskedStream:
    """Masks what comes in pieces that end anywhere, also in the middle of a secret.

    A line is held back until it has ended; of one that does not end, what may be the beginning of a secret.
    """

    def __init__(self, mask: Masker) -> None:
        self._mask = mask
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What can be told by now."""
        data = self._held + data if self._held else data
        end = data.rfind(b"\n") + 1
        if len(data) - end > HELD_BACK:
            end = self._before_a_secret(data)
        self._held = data[end:]
        return self._mask.mask(data[:end])

    def take(self) -> bytes:
        """What is held back, as it is: somebody else goes on with it."""
        rest, self._held = self._held, b""
        return rest

    def flush(self) -> bytes:
        """The rest; nothing follows, or not soon."""
        return self._mask.mask(self.take())

    def _before_a_secret(self, data: bytes) -> int:
        """As far as nothing is secret that what follows could complete."""
        end = len(data) - max(self._mask.longest, _LONGEST_SIGNATURE)
        if end <= 0:
            return 0
        # A signature with its name: cut behind the name, it would no longer be known as one.
        named = (match.span() for match in _SIGNATURE.finditer(data))
        for start, stop in sorted((*self._mask.spans(data), *named), reverse=True):
            if start < end < stop and stop - start <= MOST_HELD_BACK:
                end = start
        return end


def _hold(form: bytes, holders: dict[int, list[bytes]]) -> None:
    """By each word in its beginning."""
    for start in range(len(form[:_BEGINNING]) - _WORD + 1):
        word = int.from_bytes(form[start : start + _WORD], sys.byteorder)
        holders.setdefault(word, []).append(form)


def _occurrences(form: bytes, data: bytes) -> Iterator[tuple[int, int]]:
    start = data.find(form)
    while start >= 0:
        yield start, start + len(form)
        start = data.find(form, start + len(form))


def forms(secret: str) -> Iterator[bytes]:
    """How a secret may be written: as it is, in JSON, in a URL; line by line if it has several."""
    for line in {secret, *secret.splitlines()}:
        if len(line.strip()) >= SHORTEST:
            for form in _ways_to_write(line):
                yield form.encode("utf-8", "surrogatepass")


def _ways_to_write(line: str) -> set[str]:
    raw = line.encode("utf-8", "surrogatepass")
    as_json = {json.dumps(line)[1:-1], json.dumps(line, ensure_ascii=False)[1:-1]}
    as_json |= {text.replace("/", "\\/") for text in as_json}  # PHP
    as_json |= {_ANGLES.sub(lambda mark: f"\\u{ord(mark[0]):04x}", text) for text in as_json}  # Go
    quoted = {quote(raw, safe=""), quote(raw), quote_plus(raw)}
    quoted |= {_ESCAPE.sub(lambda escape: escape[0].lower(), text) for text in quoted}
    return {line, line.strip(), shown(line), *as_json, *quoted}


def printable(line: bytes) -> str:
    """A line that can be logged: what is not UTF-8 and what would steer a terminal is shown as an escape."""
    return shown(line.rstrip(b"\r").decode("utf-8", "backslashreplace"))


def shown(text: str) -> str:
    """The text with everything that cannot be printed, a line break too, as an escape; tabs stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in text)


def _within(text: str) -> Iterator[str]:
    """The secrets in a text that is none as a whole."""
    if _PRIVATE_KEY in text:
        yield text
    for found in _USERINFO.finditer(text) if "://" in text else ():
        yield from {found["password"], unquote(found["password"])}


def _names_a_secret(content: Mapping[str, Any]) -> bool:
    """Whether it is a {"name": "password", "value": ...}, or has ``key`` for ``name``."""
    names = (content.get("name"), content.get("key"))
    return any(isinstance(name, str) and looks_secret(name) for name in names)


def _blotted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _blotted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_blotted(inner) for inner in value]
    return value if value in (None, "", True, False) else MASK


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, (int, float)) and len(str(value)) >= SHORTEST:
        yield str(value)
