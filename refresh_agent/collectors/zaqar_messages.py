"""What the messages of a queue mean. No side effects.

Heat posts the whole metadata of the server as one message each time: the newest message is the state, and
those before it are history.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from refresh_agent import metadata
from refresh_agent.collectors.http_faults import RefusedError
from refresh_agent.model import MetadataLimits

PAGE = 10
"""Messages: what Zaqar lists if it is not told how many, and deletes at once with any configuration."""

MOST_PAGES = 100
"""For one poll. What is left is listed once these messages are stored and deleted."""

_LONGEST_ID = 64
"""Characters of a message's id that are shown; Zaqar's have 36 at most."""


class Message(NamedTuple):
    """``body`` is what JSON had there: with Heat an object, but anybody in the project may post anything."""

    id: str
    body: Any


class Reading:
    """What a queue holds, taken in page by page, oldest first; one body is kept in memory at most.

    A body that cannot be metadata (no object, too large, too deep) supersedes nothing: the newest good one is
    the state. ``done`` are the ids of messages whose content, or a newer one, is durable already: they and
    all before them are history.
    """

    def __init__(self, done: Iterable[str], limits: MetadataLimits) -> None:
        self.raw: bytes | None = None
        self.problem = ""
        self._done = frozenset(done)
        self._limits = limits
        self._listed: dict[str, None] = {}
        self._history = 0

    @property
    def listed(self) -> tuple[str, ...]:
        """The ids of all messages, in the queue's order."""
        return tuple(self._listed)

    @property
    def history(self) -> tuple[str, ...]:
        """The ids of the messages that nobody needs once ``raw`` is durable; ``raw``'s own is the last."""
        return self.listed[: self._history]

    def add(self, page: Sequence[Message]) -> None:
        """Take in what has not been listed yet."""
        new = [message for message in page if message.id not in self._listed]
        before = len(self._listed)
        self._listed.update(dict.fromkeys(message.id for message in new))
        problem = ""
        for number, message in reversed(list(enumerate(new, before + 1))):
            if message.id in self._done:
                self._settle(number, None, problem)
                return
            try:
                raw = _metadata(message.body, self._limits)
            except metadata.MetadataError as error:
                problem = problem or f"message {message.id[:_LONGEST_ID]} {error}"
                continue
            self._settle(number, raw, problem)
            return
        self.problem = problem or self.problem

    def _settle(self, number: int, raw: bytes | None, problem: str) -> None:
        self._history, self.raw, self.problem = number, raw, problem


def parse(raw: bytes | str) -> dict[str, Any]:
    """The JSON object that Zaqar answers with, or pushes. Raises RefusedError."""
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise RefusedError("the answer is not a JSON object, as Zaqar's are")
    return content


def messages_in(answer: Any) -> list[Message]:
    """The messages of one page, oldest first. Raises RefusedError."""
    listed = answer.get("messages") if isinstance(answer, dict) else None
    if not isinstance(listed, list):
        raise RefusedError("the answer holds no list of messages")
    messages = []
    for entry in listed:
        name = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name or not name.isascii() or not name.isprintable():
            raise RefusedError("the answer holds a message without a proper id")
        messages.append(Message(name, entry.get("body")))
    return messages


def _metadata(body: Any, limits: MetadataLimits) -> bytes:
    """The body as a document. Raises metadata.MetadataError if it cannot be metadata.

    Looked at here, although the store will do so too: a message that the store refuses must not be deleted.
    """
    try:
        raw = json.dumps(body, separators=(",", ":")).encode()
    except RecursionError:
        raise metadata.MetadataError(f"nests deeper than [limits] metadata_depth ({limits.depth})") from None
    metadata.parse(raw, limits)
    return raw
