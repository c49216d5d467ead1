"""The queue over a websocket: Zaqar says at once when there is a message.

What is pushed has no id, and is pushed while it is still being stored. So a push is only the occasion to list
the queue, over the same connection; the list has the order, and the ids by which to delete.
"""

import contextlib
import json
import logging
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import websocket

from refresh_agent import metadata
from refresh_agent.collectors import http
from refresh_agent.collectors.http_faults import RefusedError, explain, status_meaning
from refresh_agent.collectors.keystone import Keystone, Login
from refresh_agent.collectors.websocket_socket import BoundedSocket, open_socket
from refresh_agent.collectors.zaqar_messages import MOST_PAGES, PAGE, Message, Reading, messages_in, parse

SUBSCRIPTION_TTL = 10_000
"""Seconds, as os-collect-config."""

RENEWAL = SUBSCRIPTION_TTL / 2
"""Seconds after which a new connection makes a new subscription; Zaqar does not prolong one."""

PATIENCE = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Seconds to wait between lists for a message that was pushed and is not in the queue yet."""

AT_ONCE = 0.001
"""Seconds to wait for what has come already; TLS wants to be asked whether it is anything."""

SHORT_LIFE = 5.0
"""Seconds. Of connections that live no longer, the second in a row is not waited for until the next poll: a
server that closes every one must not be asked again and again without a pause.
"""

# It would log how connections were closed; what matters is told here.
logging.getLogger("websocket").setLevel(logging.CRITICAL)

FAULTS = (websocket.WebSocketException, OSError, ValueError, LookupError, AttributeError)
"""What the library raises for an answer that is not as it should be."""


class WebsocketQueue:
    """The queue of that ``name``. ``limit``: bytes that an answer may have."""

    def __init__(self, client: http.Client, keystone: Keystone, name: str, limit: int) -> None:
        self._client = client
        self._keystone = keystone
        self._name = name
        self._limit = limit
        self._connection: Connection | None = None
        self._connected = 0.0
        self._renewal = 0.0
        self._short_lives = 0
        self._listed: set[str] = set()
        self._deleted: frozenset[str] = frozenset()
        self._full = False
        self._more = False
        self._ready = -1

    def read(self, reading: Reading) -> None:
        """Also shows whether the connection lives. One that was kept and does not is replaced once."""
        if self._connection is not None and _now() < self._renewal:
            try:
                self._read(self._connection, reading)
            except http.HttpError:
                lived = _now() - self._connected
                self._short_lives = self._short_lives + 1 if lived < SHORT_LIFE else 0
            else:
                self._short_lives = 0
                return
        try:
            self._read(self._connect(), reading)
        except http.HttpError:
            self._disconnect()
            raise

    def delete(self, ids: Sequence[str]) -> None:
        if self._connection is None:
            return
        try:
            for start in range(0, len(ids), PAGE):
                body = {"message_ids": list(ids[start : start + PAGE])}
                self._connection.call("message_delete_many", body)
        except http.HttpError:
            self._disconnect()
            raise
        # If they were deleted before and are still listed, asking once more at once would not end.
        self._more = self._full and not self._deleted.issuperset(ids)
        self._deleted = frozenset(ids)

    def fileno(self) -> int:
        """The socket's; one that is readable for ever while there is something that the socket does not show:
        what TLS has decrypted already, what came between, what was behind the last page.
        """
        if self._connection is None or self._short_lives > 1:
            return -1
        if not self._more and not self._connection.buffered:
            return self._connection.fileno()
        if self._ready < 0:
            self._ready = os.eventfd(1)
        return self._ready

    def close(self) -> None:
        self._disconnect()
        self._client.close()
        if self._ready >= 0:
            os.close(self._ready)
            self._ready = -1

    def _connect(self) -> "Connection":
        self._disconnect()
        connection = self._keystone.authenticated("messaging-websocket", self._opened)
        self._connection = connection
        self._connected = _now()
        self._renewal = self._connected + RENEWAL
        return connection

    def _opened(self, login: Login) -> "Connection":
        connection = Connection(self._client, login, self._name, self._limit)
        try:
            connection.call("authenticate", token=login.token)
            connection.call("queue_create")
            connection.call("subscription_create", {"ttl": SUBSCRIPTION_TTL})
        except http.HttpError:
            connection.close()
            raise
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._more = False
        if connection is not None:
            connection.close()

    def _read(self, connection: "Connection", reading: Reading) -> None:
        """List until all that was pushed is found, or was found before its push came."""
        self._full = self._more = False
        connection.hear(AT_ONCE)
        before = self._listed
        for patience in (*PATIENCE, 0.0):
            self._listed = self._list(connection, reading)
            connection.pushed -= self._listed | before
            if not connection.pushed:
                return
            if patience:
                connection.hear(patience)
        # Somebody else has taken it, or Zaqar could not store it.
        connection.pushed.clear()

    def _list(self, connection: "Connection", reading: Reading) -> set[str]:
        """Add all pages; the fingerprints of what is in them.

        Zaqar does not say where the next page begins. With Redis and Swift it begins behind a message's id;
        with MongoDB it stays empty then, and comes once the messages before it are deleted.
        """
        found: set[str] = set()
        seen: set[str] = set()
        marker = ""
        for _ in range(MOST_PAGES):
            page = connection.messages(marker)
            reading.add(page)
            found.update(_fingerprint(message.body) for message in page)
            if len(page) < PAGE or seen.issuperset(message.id for message in page):
                break
            self._full = True
            seen.update(message.id for message in page)
            marker = page[-1].id
        return found


class Connection:
    """A websocket to Zaqar. What fails raises HttpError; the connection is of no use then.

    ``pushed`` are the fingerprints of the bodies that were pushed and not yet found in the queue.
    """

    def __init__(self, client: http.Client, login: Login, queue: str, limit: int) -> None:
        self.pushed: set[str] = set()
        self._place = client.place
        self._timeout = client.timeout
        self._login = login
        self._queue = queue
        self._client_id = str(uuid.uuid4())
        self._websocket = websocket.WebSocket(enable_multithread=False, skip_utf8_validation=True)
        try:
            opened = open_socket(login.endpoint, client.verify, client.timeout)
        except FAULTS as error:
            raise self._error(error) from None
        self._socket = BoundedSocket(opened, client.timeout, limit)
        self._socket.begin(client.timeout * http.TOTAL)
        connect: Any = self._websocket.connect
        try:
            # No redirects: where the token is sent is for Keystone's catalog to say.
            connect(login.endpoint, socket=self._socket, redirect_limit=0, suppress_origin=True)
        except FAULTS as error:
            opened.close()
            raise self._error(error) from None

    @property
    def buffered(self) -> bool:
        """Whether there is something that waiting for the socket would not show."""
        return bool(self.pushed) or self._socket.pending() > 0

    def fileno(self) -> int:
        return int(self._socket.fileno())

    def close(self) -> None:
        """Say so, which makes Zaqar forget the subscription, and do not wait for an answer."""
        self._socket.begin(self._timeout)
        with contextlib.suppress(*FAULTS):
            if self._websocket.connected:
                self._websocket.send_close()
        self._socket.close()

    def messages(self, marker: str) -> list[Message]:
        """A page of the queue, from its beginning or from behind ``marker``."""
        # Without include_claimed, for the reasons that RestQueue has.
        body: dict[str, Any] = {"echo": True}
        answer = self.call("message_list", body | ({"marker": marker} if marker else {}))
        try:
            return messages_in(answer)
        except RefusedError as error:
            raise self._error(error) from None

    def call(self, action: str, body: Mapping[str, Any] | None = None, token: str = "") -> Any:
        """The body of Zaqar's answer. What is pushed meanwhile is remembered."""
        headers = {"Client-ID": self._client_id, "X-Project-ID": self._login.project_id}
        if token:
            headers["X-Auth-Token"] = token
        content = {"action": action, "headers": headers, "body": {"queue_name": self._queue, **(body or {})}}
        self._socket.begin(self._timeout * http.TOTAL)
        try:
            self._websocket.send(json.dumps(content))
            while (answer := self._received()) is None or not self._is_answer(answer):
                pass
            status = _status(answer)
        except FAULTS as error:
            raise self._error(error) from None
        if status == 404 and action == "message_list":
            return {"messages": []}
        if status >= 400:
            meaning = status_meaning(status, self._place)
            raise http.HttpError(f"{action} at {self._shown}: {meaning}", status)
        return answer.get("body")

    def hear(self, patience: float) -> None:
        """Take in what comes within so many seconds after the last."""
        self._socket.begin(self._timeout * http.TOTAL, patience)
        try:
            while True:
                heard = self._received()
                if heard is not None:
                    self._is_answer(heard)
                self._socket.next()
        except FAULTS as error:
            if isinstance(error, websocket.WebSocketTimeoutException) and self._socket.idle:
                return
            raise self._error(error) from None

    def _received(self) -> dict[str, Any] | None:
        """The next message; None for one that is of the protocol's own."""
        opcode, data = self._websocket.recv_data(control_frame=True)
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            raise RefusedError("the server closed the connection")
        if opcode in {websocket.ABNF.OPCODE_PING, websocket.ABNF.OPCODE_PONG}:
            return None
        return parse(data)

    def _is_answer(self, message: Mapping[str, Any]) -> bool:
        """An answer repeats what was asked. What does not was pushed, and is remembered."""
        if "request" in message:
            return True
        self.pushed.add(_fingerprint(message.get("body")))
        return False

    @property
    def _shown(self) -> str:
        return http.shown_url(self._login.endpoint)

    def _error(self, error: BaseException) -> http.HttpError:
        """The library's own texts are not used: they quote what the server sent."""
        status = 0
        if isinstance(error, websocket.WebSocketBadStatusException):
            status = error.status_code
            reason = status_meaning(status, self._place)
        elif isinstance(error, websocket.WebSocketConnectionClosedException):
            reason = "the server closed the connection"
        elif isinstance(error, websocket.WebSocketTimeoutException):
            reason = f"timed out: no answer for {self._timeout:g} s"
        elif isinstance(error, (OSError, RefusedError)):
            reason = explain(error, self._place, self._timeout)
        else:
            reason = "does not answer as Zaqar does over a websocket"
        return http.HttpError(f"{self._shown}: {reason}", status)


def _status(answer: Mapping[str, Any]) -> int:
    headers = answer.get("headers")
    status = headers.get("status") if isinstance(headers, dict) else None
    if not isinstance(status, int):
        raise RefusedError("the answer has no status, as Zaqar's have")
    return status


def _fingerprint(body: Any) -> str:
    """Equal for equal bodies; all that nest too deep count as equal, since none of them is metadata."""
    try:
        return metadata.fingerprint(body)
    except RecursionError:
        return ""


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
