"""Heat's messages in a queue of Zaqar: the newest one is the server's metadata.

os-collect-config: zaqar.py, which pops a message and loses it if it dies before the content is durable. Here
a message stays in the queue until its content, or a newer one, is stored.
"""

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import parse_qs, quote, urlsplit

from refresh_agent.collectors import Polled, http
from refresh_agent.collectors.http_faults import RefusedError
from refresh_agent.collectors.keystone import CREDENTIALS, REQUIRED, Keystone, Login
from refresh_agent.collectors.zaqar_messages import MOST_PAGES, PAGE, Reading, messages_in, parse
from refresh_agent.model import Document, MetadataLimits, Snapshot

LOG = logging.getLogger("refresh_agent.sources")

NAME = "zaqar"

SMALLEST_PAGE = 2**24
"""Bytes that an answer may have, however small a document is to be: it holds up to ten messages, of 256 KiB
each with Zaqar's defaults and of 1 MiB with TripleO's.
"""


class Queue(Protocol):
    """The queue as one of Zaqar's transports shows it. What fails raises HttpError."""

    def read(self, reading: Reading) -> None:
        """Add all its messages."""

    def delete(self, ids: Sequence[str]) -> None:
        """Delete these messages; those that do not exist any more are no error."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class Zaqar(Polled):
    """``open_queue`` makes the queue; it is not called if options are missing."""

    def __init__(
        self, options: Mapping[str, Any], limits: MetadataLimits, open_queue: Callable[[], Queue]
    ) -> None:
        self._options = options
        self._limits = limits
        self._absent = http.not_configured(NAME, options, (*REQUIRED, "queue_id"))
        self._queue = None if self._absent else open_queue()
        self._history: tuple[str, ...] = ()
        self._done: frozenset[str] = frozenset()
        self._told = ""

    def collect(self) -> Snapshot:
        """One document ``zaqar``, or nothing new: unchanged.

        A message that cannot be metadata is reported for as long as it is the only news, and neither deleted
        nor waited for. It is evidence, and harmless: it expires, or goes with the next good message, and
        the same report is logged once. A good message below it is given first.
        """
        if self._absent or not self._queue:
            return self._absent or Snapshot(NAME)
        self._history = ()
        reading = Reading(self._done, self._limits)
        try:
            self._queue.read(reading)
        except http.HttpError as error:
            return http.failed(NAME, error)
        self._done = self._done.intersection(reading.listed)
        self._history = reading.history
        return self._snapshot(reading)

    def stored(self) -> None:
        """Delete what was read, by id: what has come since then stays. If that fails, the next poll finds
        these messages again, knows them, and they are deleted then.
        """
        if not self._history or not self._queue:
            return
        history, self._history = self._history, ()
        self._done = self._done.union(history)
        problem = ""
        try:
            self._queue.delete(history)
        except http.HttpError as error:
            problem = f"{error}; messages that were read stay in the queue and are deleted after a later poll"
        if problem and problem != self._told:
            LOG.warning("source %s: %s", NAME, problem)
        self._told = problem

    def fileno(self) -> int:
        """Readable when there is something to collect; to be asked for after every collection."""
        return self._queue.fileno() if self._queue else -1

    def close(self) -> None:
        if self._queue:
            self._queue.close()

    def _snapshot(self, reading: Reading) -> Snapshot:
        origin = f"queue {self._options['queue_id']}"
        if reading.raw is not None:
            document = Document(NAME, reading.raw, origin=origin)
        elif reading.problem:
            advice = "it is passed over, and can be deleted from the queue"
            document = Document(NAME, None, error=f"{origin}: {reading.problem}; {advice}")
        else:
            return Snapshot(NAME, unchanged=True)
        return Snapshot(NAME, (document,), deployment_keys=tuple(self._options["deployment_key"]))


class RestQueue:
    """The queue over HTTP. ``name``: the queue's."""

    def __init__(self, client: http.Client, keystone: Keystone, name: str) -> None:
        self._client = client
        self._keystone = keystone
        self._name = name
        self._client_id = str(uuid.uuid4())

    def read(self, reading: Reading) -> None:
        """One request for an empty queue, which is the usual state."""
        self._keystone.authenticated("messaging", lambda login: self._read(login, reading))

    def delete(self, ids: Sequence[str]) -> None:
        self._keystone.authenticated("messaging", lambda login: self._delete(login, ids))

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        self._client.close()

    def _read(self, login: Login, reading: Reading) -> None:
        url = self._url(login)
        # Without include_claimed, as Zaqar's own client asks. With it, Zaqar answers 503 if its messages are
        # in Redis, and never looks behind ten that have expired. What another client has claimed is listed
        # once the claim ends.
        params = {"echo": "true"}
        seen: set[str] = set()
        for _ in range(MOST_PAGES):
            reply = self._client.get(url, params=params, headers=self._headers(login))
            try:
                answer = parse(reply.body)
                page = messages_in(answer)
            except RefusedError as error:
                reason = http.foreign_content(reply) or str(error)
                raise http.HttpError(f"GET {http.shown_url(url)}: {reason}") from None
            reading.add(page)
            marker = next_marker(answer)
            # With Redis, the page behind a single message is that message again.
            if not marker or seen.issuperset(message.id for message in page):
                return
            seen.update(message.id for message in page)
            params = {"echo": "true", "marker": marker}

    def _delete(self, login: Login, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), PAGE):
            # Commas as they are: to Zaqar an encoded one is part of an id; it deletes nothing and says 204.
            listed = ",".join(quote(one, safe="") for one in ids[start : start + PAGE])
            url = f"{self._url(login)}?ids={listed}"
            headers = self._headers(login)
            response = self._client.session.request(
                "DELETE", url, headers=headers, stream=True, allow_redirects=False
            )
            if response.status_code not in {200, 204}:
                raise self._client.status_error(response)

    def _url(self, login: Login) -> str:
        return f"{login.endpoint.removesuffix('/v2')}/v2/queues/{quote(self._name, safe='')}/messages"

    def _headers(self, login: Login) -> dict[str, str]:
        return {
            "X-Auth-Token": login.token,
            "X-Project-ID": login.project_id,
            "Client-ID": self._client_id,
            "Accept": "application/json",
        }


def next_marker(answer: Mapping[str, Any]) -> str:
    """From where the next page is to be listed; empty if there is none.

    Of the link only this is used: behind a proxy its path is not the one that leads there, and where the
    token is sent is not for an answer to decide.
    """
    links = answer.get("links")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("rel") == "next":
            try:
                return parse_qs(urlsplit(str(link.get("href"))).query).get("marker", [""])[0]
            except ValueError:
                return ""
    return ""


def build(options: Mapping[str, Any], limits: MetadataLimits) -> Zaqar:
    def open_queue() -> Queue:
        # os-collect-config checks certificates only if it is told to; here only who says no goes without.
        unchecked = bool(options.get("insecure")) or options.get("ssl_certificate_validation") is False
        page = limits._replace(bytes=max(limits.bytes, SMALLEST_PAGE))
        client = http.Client(NAME, CREDENTIALS, {**options, "insecure": unchecked}, page)
        keystone = Keystone(client, options)
        if not options.get("use_websockets"):
            return RestQueue(client, keystone, options["queue_id"])
        # Imported here: over HTTP, none of it is needed.
        from refresh_agent.collectors.zaqar_websocket import WebsocketQueue  # noqa: PLC0415

        return WebsocketQueue(client, keystone, options["queue_id"], page.bytes)

    return Zaqar(options, limits, open_queue)
