"""The newest good content of every source, kept durably, so that a source that goes bad costs nothing.

``state_dir/sources/NAME.json`` is the index of one source: which documents it last gave and which were
committed. The contents lie beside it in ``NAME/``, each in a file that is written once and never changed,
so that the index is true at every moment and hooks can be given the file itself.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from refresh_agent import collectors, files, metadata
from refresh_agent.errors import StateError
from refresh_agent.model import CollectorSettings, Document, MetadataLimits, Snapshot, StoredDocument

LOG = logging.getLogger("refresh_agent.sources")

INDEX_VERSION = 1
INDEX_LIMIT = 64 * 2**20


class Problem(NamedTuple):
    """What is wrong with a source. ``expected``: not there, and never was; nothing to worry about."""

    text: str
    expected: bool = False


class Source:
    """One source: its collector, and what the store holds of it."""

    def __init__(self, name: str, collector: collectors.Collector, directory: str, limits: MetadataLimits):
        self.name = name
        self.watch: tuple[str, ...] = ()
        self.seen = ""
        self.problems: tuple[Problem, ...] = ()
        self._collector = collector
        self._limits = limits
        self._index = os.path.join(directory, f"{name}.json")
        self._contents = os.path.join(directory, name)
        self._good, self._committed = self._load()

    @property
    def documents(self) -> tuple[StoredDocument, ...]:
        """The newest good documents, in the source's order."""
        return self._good

    @property
    def committed(self) -> tuple[StoredDocument, ...]:
        """The documents of the last commit, for comparison."""
        return self._committed

    def look(self) -> str:
        """What the collector gives now, as a digest; nothing is stored, nothing is said."""
        return _digest(self._collector.collect())

    def collect(self) -> None:
        """Ask the collector, and store durably what is new. Raises StateError if that cannot be written."""
        snapshot = self._collector.collect()
        self.seen = _digest(snapshot)
        self.watch = snapshot.watch
        problems: list[Problem] = []
        if snapshot.error:
            problems.append(self._standing_in(snapshot))
            documents = tuple(document._replace(live="") for document in self._good)
        else:
            stored = (self._store(document, problems) for document in snapshot.documents)
            documents = tuple(document for document in stored if document is not None)
        self._tell(tuple(problems))
        if documents != self._good:
            self._good = documents
            self._save()

    def commit(self, documents: Sequence[StoredDocument]) -> None:
        """Remember what a run has brought onto the node. Raises StateError."""
        if tuple(documents) != self._committed:
            self._committed = tuple(documents)
            self._save()

    def _store(self, document: Document, problems: list[Problem]) -> StoredDocument | None:
        """The document as the store now holds it; the last good one, if this one is not good."""
        last = next((good for good in self._good if good.name == document.name), None)
        if document.raw is None:
            problems.append(_told(document.error, last, absent=document.absent))
            return last._replace(live="") if last else None
        digest = metadata.digest(document.raw)
        if last is not None and last.digest == digest and os.path.exists(last.stored):
            return last._replace(live=document.path or "")
        try:
            content = metadata.parse(document.raw, self._limits)
        except metadata.MetadataError as error:
            problems.append(
                _told(f"{document.path or document.origin or document.name}: {error}", last, absent=False)
            )
            return last._replace(live="") if last else None
        path = os.path.join(self._contents, f"{document.name}-{digest[:16]}.json")
        self._write(path, document.raw)
        fingerprint = metadata.fingerprint(content)
        return StoredDocument(self.name, document.name, path, fingerprint, digest, document.path or "")

    def _standing_in(self, snapshot: Snapshot) -> Problem:
        last = self._good[0] if self._good else None
        return _told(snapshot.error, last, absent=snapshot.absent)

    def _tell(self, problems: tuple[Problem, ...]) -> None:
        """Say what is wrong once, not at every collection."""
        for problem in problems:
            if problem not in self.problems:
                level = logging.INFO if problem.expected else logging.WARNING
                LOG.log(level, "source %s: %s", self.name, problem.text)
        for problem in self.problems:
            if problem not in problems:
                LOG.info("source %s: no longer so: %s", self.name, problem.text)
        self.problems = problems

    def _load(self) -> tuple[tuple[StoredDocument, ...], tuple[StoredDocument, ...]]:
        try:
            index = json.loads(files.read_regular(self._index, INDEX_LIMIT))
            if index["version"] != INDEX_VERSION:
                raise StateError(f"{self._index}: is of version {index['version']}, made by a newer agent")
            return self._known(index["good"]), self._known(index["committed"])
        except FileNotFoundError:
            return (), ()
        except OSError as error:
            raise StateError(f"{self._index}: cannot be read: {files.reason(error)}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            LOG.warning("%s is damaged; the source is collected as for the first time", self._index)
            return (), ()

    def _known(self, entries: Iterable[Mapping[str, Any]]) -> tuple[StoredDocument, ...]:
        """The entries whose content is there and whole."""
        documents = []
        for entry in entries:
            path = os.path.join(self._contents, os.path.basename(entry["file"]))
            name, fingerprint, digest = entry["name"], entry["fingerprint"], entry["digest"]
            document = StoredDocument(self.name, name, path, fingerprint, digest, entry["live"])
            try:
                whole = metadata.digest(files.read_regular(path, self._limits.bytes)) == document.digest
            except OSError:
                whole = False
            if whole:
                documents.append(document)
            else:
                LOG.warning("%s is missing or damaged; %s is collected anew", path, document.name)
        return tuple(documents)

    def _save(self) -> None:
        index = {
            "version": INDEX_VERSION,
            "good": [_entry(document) for document in self._good],
            "committed": [_entry(document) for document in self._committed],
        }
        self._write(self._index, json.dumps(index, indent=1).encode())
        self._sweep({document.stored for document in (*self._good, *self._committed)})

    def _write(self, path: str, data: bytes) -> None:
        try:
            files.make_directory(self._contents, 0o700)
            files.write_durably(path, data)
        except OSError as error:
            raise StateError(f"{path}: cannot be written: {files.reason(error)}") from error

    def _sweep(self, needed: set[str]) -> None:
        """Remove the contents that the index no longer names, and what an interrupted write left."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self._contents):
                path = os.path.join(self._contents, name)
                if path not in needed:
                    os.unlink(path)


class Sources:
    """All configured sources, in the order in which their documents are merged."""

    def __init__(self, state_dir: str, settings: Sequence[CollectorSettings], limits: MetadataLimits):
        directory = os.path.join(state_dir, "sources")
        self._limits = limits
        self._sources = [
            Source(entry.name, collectors.build(entry, limits), directory, limits) for entry in settings
        ]

    def collect(self) -> None:
        """Collect from all. What is wrong with one does not stop the others. Raises StateError."""
        for source in self._sources:
            source.collect()

    def look(self) -> tuple[str, ...]:
        """What all sources give now, to compare with ``seen``: writers rewrite files without a change."""
        return tuple(source.look() for source in self._sources)

    @property
    def seen(self) -> tuple[str, ...]:
        """What ``look`` would have given at the last collection."""
        return tuple(source.seen for source in self._sources)

    @property
    def documents(self) -> tuple[StoredDocument, ...]:
        """Those of all sources; a name that two sources use is made unique for the later one."""
        return self._named(source.documents for source in self._sources)

    @property
    def committed(self) -> tuple[StoredDocument, ...]:
        return self._named(source.committed for source in self._sources)

    @property
    def watch(self) -> tuple[str, ...]:
        return tuple(path for source in self._sources for path in source.watch)

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(problem for source in self._sources for problem in source.problems)

    def commit(self, documents: Iterable[StoredDocument]) -> None:
        """``documents``: those of the run that succeeded. Raises StateError."""
        done = tuple(documents)
        for source in self._sources:
            source.commit([document for document in done if document.source == source.name])

    def content(self, document: StoredDocument) -> dict[str, Any]:
        """The stored content. Raises StateError if it is gone."""
        try:
            raw = files.read_regular(document.stored, self._limits.bytes)
            return metadata.parse(raw, self._limits)
        except OSError as error:
            raise StateError(f"{document.stored}: cannot be read: {files.reason(error)}") from error
        except metadata.MetadataError as error:
            raise StateError(f"{document.stored}: {error}") from error

    @staticmethod
    def _named(groups: Iterable[tuple[StoredDocument, ...]]) -> tuple[StoredDocument, ...]:
        taken: set[str] = set()
        named = []
        for document in (document for group in groups for document in group):
            name = document.name
            if name in taken:
                name = metadata.safe_name(name, f"{document.source}/{name}", taken)
            taken.add(name)
            named.append(document._replace(name=name))
        return tuple(named)


def _digest(snapshot: Snapshot) -> str:
    parts = [
        (document.name, document.path, document.error or metadata.digest(document.raw or b""))
        for document in snapshot.documents
    ]
    return metadata.digest(repr((snapshot.error, parts)).encode())


def _told(problem: str, last: StoredDocument | None, *, absent: bool) -> Problem:
    if last is not None:
        return Problem(f"{problem}; its last good content stands in")
    if absent:
        return Problem(problem, expected=True)
    return Problem(f"{problem}; there is no last good content to stand in")


def _entry(document: StoredDocument) -> dict[str, str]:
    return {
        "name": document.name,
        "file": os.path.basename(document.stored),
        "fingerprint": document.fingerprint,
        "digest": document.digest,
        "live": document.live,
    }
