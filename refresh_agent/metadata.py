"""What metadata means: parse, merge, name, fingerprint and compare it. No side effects."""

import contextlib
import gc
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from refresh_agent.model import MetadataLimits

Content = Mapping[str, Any]

RESERVED_NAMES = frozenset({"os_config_files"})
"""File names in the cache that no document may take."""

EXPLODED_GROUPS = frozenset({"os-apply-config", "Heat::Ungrouped"})
"""os-collect-config: merger.py. The configuration of the others is for heat-agents' own hooks."""

CANONICAL_LEVELS = 3
CANONICAL_BATCH = 64
"""How deep, and how many values at a time, a fingerprint is made in pieces."""

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode

LONGEST_SHOWN = 100
"""Characters of a name that a message quotes."""

_SAFE_NAME = re.compile(r"(?!\.)[A-Za-z0-9_.-]+")


class MetadataError(ValueError):
    """The text says what is wrong with the JSON, without its content: that may be secret."""


def parse(raw: bytes, limits: MetadataLimits) -> dict[str, Any]:
    """The JSON object in ``raw``. Raises MetadataError."""
    return parse_text(decode(raw, limits), limits)


def decode(raw: bytes, limits: MetadataLimits) -> str:
    """The text of a document.

    Strict where the hooks are: os-apply-config reads the same file as UTF-8 without a byte order mark.
    Raises MetadataError.
    """
    if len(raw) > limits.bytes:
        raise MetadataError(f"is larger than [limits] metadata_bytes ({limits.bytes} bytes)")
    if not raw.strip():
        raise MetadataError("is empty")
    if raw.startswith(b"\xef\xbb\xbf"):
        raise MetadataError("begins with a byte order mark, which the hooks' JSON readers reject")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MetadataError(f"is not UTF-8 (at byte {error.start})") from None


def parse_text(text: str, limits: MetadataLimits) -> dict[str, Any]:
    """The JSON object in ``text``: os-apply-config needs an object. Raises MetadataError."""
    try:
        with _no_garbage_collection():
            content = json.loads(text)
    except json.JSONDecodeError as error:
        raise MetadataError(f"is not JSON: {error.msg} at line {error.lineno}") from None
    except RecursionError:
        raise MetadataError(f"nests deeper than [limits] metadata_depth ({limits.depth})") from None
    except ValueError:  # an integer of thousands of digits
        raise MetadataError("is not JSON that can be read: a number is too long") from None
    if not isinstance(content, dict):
        raise MetadataError(f"is a JSON {_kind(content)}, not an object")
    if _deeper_than(content, limits.depth):
        raise MetadataError(f"nests deeper than [limits] metadata_depth ({limits.depth})")
    return content


def dump(content: Content) -> bytes:
    """As os-collect-config writes its cache: indent 1."""
    return json.dumps(content, indent=1).encode()


def fingerprint(content: Content) -> str:
    """Equal for equal content, whatever its key order and white space."""
    digest = hashlib.sha256()
    for piece in _canonical(content, CANONICAL_LEVELS):
        digest.update(piece.encode())
    return digest.hexdigest()


def _canonical(value: Any, levels: int) -> Iterator[str]:
    """``_encode(value)`` in pieces, so that a large document is not in memory once more as a whole."""
    if not levels or not value or not isinstance(value, (dict, list)):
        yield _encode(value)
        return
    is_object = isinstance(value, dict)
    yield "{" if is_object else "["
    keys = sorted(value) if is_object else range(len(value))
    for start in range(0, len(keys), CANONICAL_BATCH):
        batch = keys[start : start + CANONICAL_BATCH]
        yield "," if start else ""
        if is_object and len(keys) <= CANONICAL_BATCH:
            for number, key in enumerate(batch):
                yield f"{',' if number else ''}{_encode(key)}:"
                yield from _canonical(value[key], levels - 1)
        else:
            yield _encode({key: value[key] for key in batch} if is_object else [value[i] for i in batch])[
                1:-1
            ]
    yield "}" if is_object else "]"


def digest(raw: bytes) -> str:
    """Of the bytes: a cheap way to know that nothing has to be parsed again."""
    return hashlib.sha256(raw).hexdigest()


def merge(contents: Iterable[Content]) -> dict[str, Any]:
    """One object out of several, as os-apply-config does: the later wins; only objects merge deeply."""
    merged: dict[str, Any] = {}
    for content in contents:
        _merge_into(merged, content)
    return merged


def diff(before: Content, after: Content) -> tuple[str, ...]:
    """The dotted keys whose values differ, sorted; objects are descended into, lists are compared whole."""
    return tuple(sorted(_differences(before, after, "")))


def safe_name(name: str, identity: str, taken: Iterable[str] = ()) -> str:
    """A file name for ``name`` that can neither leave its directory nor take another's place.

    The name itself if it is plain, unreserved and not ``taken``; else made plain, with 8 hex digits of
    sha256 of ``identity``.
    """
    if _SAFE_NAME.fullmatch(name) and name not in RESERVED_NAMES and name not in taken and len(name) <= 200:
        return name
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip(".")[:200]
    suffixed = f"{plain}-{hashlib.sha256(identity.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    while suffixed in taken:
        suffixed = f"{plain}-{hashlib.sha256(suffixed.encode()).hexdigest()[:8]}"
    return suffixed


class Deployment(NamedTuple):
    """One entry under a deployment key whose configuration is metadata itself; or what is wrong with it."""

    name: str
    identity: str
    config: Content
    problem: str = ""


def deployments(content: Content, keys: Sequence[str]) -> list[Any]:
    """All entries under these root keys; a key that does not hold a list holds none."""
    lists = (content.get(key) for key in dict.fromkeys(keys))
    return [entry for found in lists if isinstance(found, list) for entry in found]


def explode(content: Content, keys: Sequence[str]) -> Iterator[Deployment]:
    """The deployments that os-collect-config makes files of (merger.py): those of its groups, in their order.

    What has no name, or no object for a configuration, would end os-collect-config or the hooks; here it is a
    Deployment with a problem.
    """
    for entry in deployments(content, keys):
        if not isinstance(entry, Mapping):
            yield Deployment("", "", {}, f"a deployment is a JSON {_kind(entry)}, not an object")
            continue
        group = entry.get("group", "Heat::Ungrouped")
        if not isinstance(group, str) or group not in EXPLODED_GROUPS:
            continue
        name, config = entry.get("name"), entry.get("config")
        if not isinstance(name, str) or not name:
            yield Deployment("", "", {}, "a deployment has no name")
        elif not isinstance(config, Mapping):
            kind = "has no config" if config is None else f"has a JSON {_kind(config)} for a config"
            yield Deployment("", "", {}, f"the deployment {name[:LONGEST_SHOWN]!r} {kind}, not an object")
        else:
            identity = entry.get("id")
            yield Deployment(name, identity if isinstance(identity, str) and identity else name, config)


class Shape(NamedTuple):
    """What of a document tells an accident from a change."""

    blank: bool = False
    deployments: int = 0


def shape(content: Content, keys: Sequence[str]) -> Shape:
    """Blank: no key of it holds anything."""
    blank = not any(value not in (None, "", [], {}) for value in content.values())
    return Shape(blank, len(deployments(content, keys)))


def suspicion(before: Shape, after: Shape) -> str:
    """Why the new content is likely an accident, in words; empty if it is not."""
    if after.blank and not before.blank:
        return "has turned blank"
    if before.deployments and not after.deployments:
        return f"has lost all its deployments ({before.deployments} before)"
    return ""


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Parsing makes no garbage, and to look for it again and again takes twice as long as to parse."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _merge_into(target: dict[str, Any], content: Content) -> None:
    for key, value in content.items():
        existing = target.get(key)
        if isinstance(existing, dict) and isinstance(value, Mapping):
            _merge_into(existing, value)
        else:
            target[key] = _copied(value)


def _copied(value: Any) -> Any:
    """A copy as deep as later merges reach: objects; the rest is replaced whole and never written to."""
    return {k: _copied(v) for k, v in value.items()} if isinstance(value, Mapping) else value


def _differences(before: Content, after: Content, prefix: str) -> Iterator[str]:
    for key in before.keys() | after.keys():
        path = f"{prefix}{key}"
        if key not in before or key not in after:
            yield path
            continue
        old, new = before[key], after[key]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{path}.")
        elif not _same(old, new):
            yield path


def _same(old: Any, new: Any) -> bool:
    """JSON's equality: Python's holds 1, 1.0 and true for the same."""
    return json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)


def _deeper_than(content: Any, limit: int) -> bool:
    level: list[Any] = [content]
    for _ in range(limit):
        level = [
            child
            for value in level
            for child in (value.values() if type(value) is dict else value)
            if type(child) is dict or type(child) is list  # a third faster than isinstance
        ]
        if not level:
            return False
    return True


def _kind(content: object) -> str:
    names = {list: "list", str: "string", bool: "true or false", type(None): "null"}
    return names.get(type(content), "number")
