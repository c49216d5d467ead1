"""What is kept of one source on the disk, so that a source that goes bad costs nothing.

``state_dir/sources/NAME.json`` is the index: which documents the source last gave, which were committed, and
which are held back. The contents lie beside it in ``NAME/``, each in a file that is written once and never
changed, so that the index is true at every moment and hooks can be given the file itself.

The daemon's threads and ``refresh-agent --once`` write to it at the same time: whoever changes it locks the
directory of the contents and first reads the index again if another has replaced it.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from refresh_agent import files, seen
from refresh_agent.errors import StateError
from refresh_agent.model import MetadataLimits, StoredDocument

LOG = logging.getLogger("refresh_agent.sources")

INDEX_VERSION = 1
INDEX_LIMIT = 64 * 2**20
_SEAL = re.compile(rb'\{"sha256": "([0-9a-f]{64})",')

Documents = tuple[StoredDocument, ...]


class Kept(NamedTuple):
    """``good``: the newest that can be used. ``held``: newer, but not to be used, for a ``reason``.

    ``deployment_keys``: those by which the good ones were exploded. ``secrets``: those of each document, by
    its digest: to find them again, a large document would have to be parsed.
    """

    good: Documents = ()
    committed: Documents = ()
    held: Documents = ()
    reason: str = ""
    deployment_keys: tuple[str, ...] = ()
    secrets: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __repr__(self) -> str:
        """Without the secrets."""
        return f"Kept({self.good}, {self.committed}, {self.held}, {self.reason!r})"

    def learning(self, secrets: Mapping[str, tuple[str, ...]]) -> "Kept":
        """With these and the known ones, as far as they are of documents that are kept."""
        needed = {document.digest for document in (*self.good, *self.committed, *self.held)}
        known = {**dict(self.secrets), **secrets}
        return self._replace(secrets=tuple((each, known[each]) for each in sorted(needed & known.keys())))


class Store:
    """The store of the source ``name``. ``kept`` is what this process last read or wrote."""

    def __init__(self, directory: str, name: str, limits: MetadataLimits) -> None:
        self._name = name
        self._limits = limits
        self._index = os.path.join(directory, f"{name}.json")
        self._contents = os.path.join(directory, name)
        self._mutex = threading.Lock()
        self._read = self._signature()
        self.kept = self._load()

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Nobody else changes it meanwhile, and ``kept`` is as it is on the disk. Raises StateError."""
        with self._mutex, self._locked():
            if self._signature() != self._read or not all(map(_is_there, self.kept.good)):
                self._read = self._signature()
                self.kept = self._load()
            yield

    def put(self, name: str, raw: bytes | Iterable[bytes], digest: str) -> str:
        """Store a content durably; its path. Raises StateError."""
        path = os.path.join(self._contents, f"{name}-{digest[:16]}.json")
        self._write(path, raw)
        return path

    def save(self, kept: Kept) -> None:
        """Make this the index, if it is not. Raises StateError."""
        if kept == self.kept:
            return
        index = {
            "version": INDEX_VERSION,
            "good": [_entry(document) for document in kept.good],
            "committed": [_entry(document) for document in kept.committed],
            "held": [_entry(document) for document in kept.held],
            "reason": kept.reason,
            "deployment_keys": kept.deployment_keys,
            "secrets": kept.secrets,
        }
        self._write(self._index, _sealed(index))
        self._read = self._signature()
        self.kept = kept

    def sweep(self, in_use: Iterable[StoredDocument]) -> None:
        """Remove contents that neither the index nor a run needs, and what an interrupted write left."""
        kept = self.kept
        needed = {document.stored for document in (*kept.good, *kept.committed, *kept.held, *in_use)}
        with contextlib.suppress(OSError):
            for name in os.listdir(self._contents):
                path = os.path.join(self._contents, name)
                if path not in needed:
                    os.unlink(path)
            directory, index = os.path.split(self._index)
            for name in os.listdir(directory):
                if files.TEMPORARY.fullmatch(name) and name[:-8] == f".{index}.":
                    os.unlink(os.path.join(directory, name))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            files.make_directory(os.path.dirname(self._contents), 0o700)
            files.make_directory(self._contents, 0o700)
            descriptor = os.open(self._contents, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise StateError(f"{self._contents}: cannot be written: {files.reason(error)}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _signature(self) -> tuple[int, ...]:
        try:
            status = os.stat(self._index)
        except OSError:
            return ()
        return status.st_dev, status.st_ino, status.st_mtime_ns

    def _load(self) -> Kept:
        try:
            index = _unsealed(files.read_regular(self._index, INDEX_LIMIT))
            if index["version"] != INDEX_VERSION:
                raise StateError(f"{self._index}: is of version {index['version']}, made by a newer agent")
            held = self._known(index.get("held", ()))
            secrets = ((str(digest), tuple(map(str, found))) for digest, found in index.get("secrets", ()))
            return Kept(
                self._known(index["good"]),
                self._known(index["committed"]),
                held,
                str(index.get("reason", "")) if held else "",
                tuple(map(str, index.get("deployment_keys", ()))),
                tuple(secrets),
            )
        except FileNotFoundError:
            return Kept()
        except OSError as error:
            raise StateError(f"{self._index}: cannot be read: {files.reason(error)}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            LOG.warning("%s is damaged; the source is collected as for the first time", self._index)
            return Kept()

    def _known(self, entries: Iterable[Mapping[str, Any]]) -> Documents:
        """The entries whose content is there and whole; a document only with all of its deployments."""
        documents = []
        lost = set()
        for entry in entries:
            document = self._document(entry)
            try:
                with files.open_regular(document.stored) as file:
                    # What looks as it did when it was named here is not read: it may be large.
                    same = list(files.look(file)) == entry.get("look")
                    whole = same or files.digest(file) == document.digest
            except OSError:
                whole = False
            if whole:
                documents.append(document)
            else:
                lost.add(document.parent or document.name)
                LOG.warning("%s is missing or damaged; %s is collected anew", document.stored, document.name)
        return tuple(document for document in documents if (document.parent or document.name) not in lost)

    def _document(self, entry: Mapping[str, Any]) -> StoredDocument:
        return StoredDocument(
            self._name,
            entry["name"],
            os.path.join(self._contents, os.path.basename(entry["file"])),
            entry["fingerprint"],
            entry["digest"],
            entry["live"],
            entry.get("parent", ""),
            entry.get("blank", False),
            entry.get("deployments", 0),
        )

    def _write(self, path: str, data: bytes | Iterable[bytes]) -> None:
        try:
            files.write_durably(path, data)
        except OSError as error:
            raise StateError(f"{path}: cannot be written: {files.reason(error)}") from error


_SUFFIXES = frozenset({".json", seen.SUFFIX, seen.NEW_SUFFIX})


def forget(directory: str, names: Container[str]) -> None:
    """Remove what is stored of all other sources: they are not collected from any more.

    Configured again, what one gave long ago must not stand in for what it has now. Raises StateError.
    """
    try:
        for entry in os.listdir(directory):
            name, suffix = os.path.splitext(entry)
            if suffix in _SUFFIXES and name not in names and not entry.startswith("."):
                os.unlink(os.path.join(directory, entry))
                _remove_contents(os.path.join(directory, name))
    except OSError as error:
        raise StateError(f"{directory}: cannot be written: {files.reason(error)}") from error


def _remove_contents(directory: str) -> None:
    """Not shutil.rmtree: it costs every start 5 ms of imports, and here are only files."""
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            os.unlink(os.path.join(directory, name))
        os.rmdir(directory)


def _sealed(index: Mapping[str, Any]) -> bytes:
    """As JSON, of which the first line tells the digest of the others."""
    first, rest = json.dumps(index, indent=1).encode().split(b"\n", 1)
    return b'%b"sha256": "%b",\n%b' % (first, hashlib.sha256(rest).hexdigest().encode(), rest)


def _unsealed(raw: bytes) -> Any:
    """Raises ValueError if it was changed since. That of an earlier agent has no digest, and is version 1."""
    first, _, rest = raw.partition(b"\n")
    told = _SEAL.fullmatch(first)
    if told and told[1].decode() != hashlib.sha256(rest).hexdigest():
        raise ValueError("it is not what was written")
    index = json.loads(raw)
    if not told and index["version"] != INDEX_VERSION:
        raise ValueError("it is of no version")
    return index


def _is_there(document: StoredDocument) -> bool:
    return os.path.exists(document.stored)


def _entry(document: StoredDocument) -> dict[str, Any]:
    look: files.Look | None = None
    with contextlib.suppress(OSError), files.open_regular(document.stored) as file:
        look = files.look(file)
    return {
        "name": document.name,
        "file": os.path.basename(document.stored),
        "fingerprint": document.fingerprint,
        "digest": document.digest,
        "live": document.live,
        "parent": document.parent,
        "blank": document.blank,
        "deployments": document.deployments,
        "look": look,
    }
