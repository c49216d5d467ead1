"""What a collector does and gives, made harmless: it may be one of another package."""

import traceback
from typing import Any

from refresh_agent import metadata
from refresh_agent.model import Document, Snapshot

DEEPEST_SHOWN = 5
"""Frames of an exception that a message names."""


def described(error: BaseException) -> str:
    """What kind of exception, and from where. Not its text: a collector may be anybody's, and that secret."""
    frames = traceback.extract_tb(error.__traceback__)[-DEEPEST_SHOWN:]
    where = " < ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(error).__name__} at {where}"


def checked(snapshot: Any) -> Snapshot:
    """Raises TypeError for what other packages' collectors get wrong; names become files here."""
    if not isinstance(snapshot, Snapshot) or not isinstance(snapshot.documents, (tuple, list)):
        raise TypeError("no Snapshot with a tuple of Documents")
    if not all(map(_is_document, snapshot.documents)):
        raise TypeError("no Snapshot of Documents")
    texts = (snapshot.error, *snapshot.watch, *snapshot.deployment_keys)
    seconds = snapshot.retry_after
    if not all(isinstance(text, str) for text in texts) or not isinstance(seconds, int | float):
        raise TypeError("a Snapshot with a value of another kind")
    taken: set[str] = set()
    documents = []
    for document in snapshot.documents:
        name = metadata.safe_name(document.name, document.name, taken)
        taken.add(name)
        documents.append(document._replace(name=name))
    return snapshot._replace(documents=tuple(documents))


def _is_document(document: Any) -> bool:
    if not isinstance(document, Document) or not isinstance(document.name, str):
        return False
    given = document.raw is not None or document.error or document.digest
    return bool(given) and isinstance(document.raw, bytes | None)
