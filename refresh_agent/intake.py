"""From what a collector gave to stored documents: parsed, exploded; the last good stands in for the bad."""

import hashlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from refresh_agent import files, metadata
from refresh_agent.model import Document, MetadataLimits, Snapshot, StoredDocument
from refresh_agent.redact import secrets_in
from refresh_agent.store import Documents, Kept, Store


class Problem(NamedTuple):
    """What is wrong with a source. ``expected``: not there, and never was; nothing to worry about."""

    text: str
    expected: bool = False


class Rules(NamedTuple):
    """How documents are judged. ``deployment_keys``: where the deployments are that must not all be lost.

    ``secrets``: those of the source's options, which no report may show.
    """

    limits: MetadataLimits
    deployment_keys: tuple[str, ...] = ("deployments",)
    secrets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Without the secrets."""
        return f"Rules({self.limits}, {self.deployment_keys})"


PIECE = 2**20
"""Characters of a document that are written at a time."""


class Intake:
    """Takes one snapshot in. What is good goes into the store; what is not is among ``problems``."""

    def __init__(self, snapshot: Snapshot, store: Store, rules: Rules) -> None:
        self.problems: list[Problem] = []
        self.rejected = False
        """Whether something stands in for a document: what was given is not in the store."""
        self.secrets: dict[str, tuple[str, ...]] = {}
        """Of every document that had to be parsed, by its digest."""
        self._snapshot = snapshot
        self._store = store
        self._rules = rules
        self._taken = {document.name for document in snapshot.documents}
        self.documents: Documents = tuple(
            stored for document in snapshot.documents for stored in self._family(document)
        )
        """In the order in which hooks merge them: each followed by those of its deployments."""

    def _family(self, document: Document) -> Documents:
        """The document and those of its deployments, as they are to be used now."""
        kept = self._store.kept
        last = family_of(kept.good, document.name)
        if document.error:
            return self._standing_in(last, document.error, absent=document.absent)
        digest = document.digest if document.raw is None else metadata.digest(document.raw)
        same = self._known(document.name, digest, kept)
        if same:
            self._taken.update(stored.name for stored in same)
            return (same[0]._replace(live=document.path or ""), *same[1:])
        try:
            text = text_of(document, self._rules.limits)
            content = metadata.parse_text(text, self._rules.limits)
        except metadata.MetadataError as error:
            where = document.path or document.origin or document.name
            return self._standing_in(last, f"{where}: {error}", absent=False)
        return tuple(self._new(document, text, content))

    def _standing_in(self, last: Documents, problem: str, *, absent: bool) -> Documents:
        self.rejected = True
        self.problems.append(told(problem, last, absent=absent))
        self._taken.update(stored.name for stored in last)
        return tuple(stored._replace(live="") for stored in last)

    def _known(self, name: str, digest: str, kept: Kept) -> Documents:
        """The family as it is stored already, if these are its bytes."""
        if self._snapshot.deployment_keys != kept.deployment_keys:
            return ()
        for documents in (kept.good, kept.held):
            members = family_of(documents, name)
            if members and members[0].digest == digest and all(os.path.exists(m.stored) for m in members):
                return members
        return ()

    def _new(self, document: Document, text: str, content: metadata.Content) -> Iterator[StoredDocument]:
        keys = self._snapshot.deployment_keys
        shape = metadata.shape(content, self._rules.deployment_keys)
        yield self._stored(document.name, text, content)._replace(
            live=document.path or "", blank=shape.blank, deployments=shape.deployments
        )
        for deployment in metadata.explode(content, keys):
            if deployment.problem:
                self.problems.append(Problem(f"{document.name}: {deployment.problem}; it is left out"))
                continue
            name = metadata.safe_name(deployment.name, deployment.identity, self._taken)
            self._taken.add(name)
            dumped = metadata.dump(deployment.config).decode()
            yield self._stored(name, dumped, deployment.config)._replace(parent=document.name)

    def _stored(self, name: str, text: str, content: metadata.Content) -> StoredDocument:
        digest = hashlib.sha256()
        for piece in _pieces(text):
            digest.update(piece)
        self.secrets[digest.hexdigest()] = tuple(dict.fromkeys(secrets_in(content)))
        path = self._store.put(name, _pieces(text), digest.hexdigest())
        fingerprint = metadata.fingerprint(content)
        return StoredDocument(self._snapshot.source, name, path, fingerprint, digest.hexdigest())


def text_of(document: Document, limits: MetadataLimits) -> str:
    """The document's text, from its file if it has not been read. Raises MetadataError.

    Large ones must not be in memory as bytes and as text any longer than it takes.
    """
    if document.raw is not None:
        return metadata.decode(document.raw, limits)
    try:
        return metadata.decode(files.read_regular(document.path or document.origin, limits.bytes), limits)
    except OSError as error:
        raise metadata.MetadataError(files.reason(error)) from error


def _pieces(text: str) -> Iterator[bytes]:
    """As it was before it was decoded: UTF-8 has only one way to write a text."""
    return (text[start : start + PIECE].encode() for start in range(0, len(text), PIECE))


def family_of(documents: Documents, name: str) -> Documents:
    """The document of that name and those of its deployments; nothing if it is not among them."""
    family = tuple(stored for stored in documents if name == (stored.parent or stored.name))
    return family if family and not family[0].parent else ()


def told(problem: str, last: Documents, *, absent: bool) -> Problem:
    """The problem, and what it means for the hooks."""
    if last:
        return Problem(f"{problem}; its last good content stands in")
    if absent:
        return Problem(problem, expected=True)
    return Problem(f"{problem}; there is no last good content to stand in")
