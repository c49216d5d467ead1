"""A Zaqar over HTTP and websockets that misbehaves on demand, behind the Keystone of bad_server."""

import base64
import contextlib
import hashlib
import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

from tests.integration import bad_server as bad

Reaction = Callable[["Peer", Any], None]

TEXT, CLOSE, PING = 0x1, 0x8, 0x9

QUEUE = "/v2/queues/q/messages"


class Handler(bad.Handler):
    do_DELETE = bad.Handler.do_GET  # noqa: N815


class Peer:
    """The server's end of a websocket. ``ask`` and the rest raise OSError when the client has gone."""

    def __init__(self, handler: bad.Handler) -> None:
        self.handler = handler
        key = handler.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        handler.begin(101, Upgrade="websocket", Connection="Upgrade", Sec_WebSocket_Accept=accept)
        handler.close_connection = True

    def asked(self) -> Any:
        """The client's next request."""
        while True:
            opcode, data = self._frame()
            if opcode == CLOSE:
                raise ConnectionResetError
            if opcode == TEXT:
                return json.loads(data)

    def answer(self, request: Any, body: Any, status: int = 200) -> None:
        self.write(answer(request, body, status))

    def push(self, body: Any) -> None:
        self.write(pushed(body))

    def write(self, data: bytes) -> None:
        self.handler.wfile.write(data)

    def _frame(self) -> tuple[int, bytes]:
        first, second = self._read(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self._read(2))
        mask = self._read(4)
        data = self._read(size)
        return first & 0xF, bytes(byte ^ mask[number % 4] for number, byte in enumerate(data))

    def _read(self, size: int) -> bytes:
        data = self.handler.rfile.read(size)
        if len(data) < size:
            raise ConnectionResetError
        return data


class Queue:
    """Zaqar's side of one queue; ``reactions`` replace what it does when it is asked for an action."""

    def __init__(self, server: bad.Listener) -> None:
        self.server = server
        self.messages: list[tuple[str, Any]] = []
        self.peers: list[Peer] = []
        self.actions: list[str] = []
        self.reactions: dict[str, Reaction] = {}
        self.revoked: set[str] = set()
        self.page = 10

    # --- over HTTP ---

    def over_http(self, handler: bad.Handler) -> None:
        if handler.headers["X-Auth-Token"] in self.revoked:
            return handler.give(b"no", 401)
        query = self.server.seen[-1].query
        if handler.command == "DELETE":
            self._delete(query["ids"][0].split(","))
            return handler.give(b"", 204)
        page = self._listed(query.get("marker", [""])[0])
        links = [{"rel": "next", "href": f"{QUEUE}?marker={page[-1]['id']}"}] if page else []
        return handler.give(json.dumps({"messages": page, "links": links}).encode())

    # --- over a websocket ---

    def over_websocket(self, handler: bad.Handler) -> None:
        peer = Peer(handler)
        self.peers.append(peer)
        while True:
            request = peer.asked()
            self.actions.append(request["action"])
            self.reactions.get(request["action"], self.react)(peer, request)

    def react(self, peer: Peer, request: Any) -> None:
        """As Zaqar does."""
        body = request.get("body", {})
        if request["action"] == "authenticate":
            refused = request["headers"]["X-Auth-Token"] in self.revoked
            peer.answer(request, {}, 401 if refused else 200)
        elif request["action"] == "message_list":
            peer.answer(request, {"messages": self._listed(body.get("marker", ""))})
        elif request["action"] == "message_delete_many":
            self._delete(body["message_ids"])
            peer.answer(request, {}, 204)
        else:
            peer.answer(request, "done", 201)

    def _listed(self, marker: str) -> list[dict[str, Any]]:
        names = [name for name, _ in self.messages]
        start = names.index(marker) + 1 if marker else 0
        return [{"id": name, "body": body} for name, body in self.messages[start : start + self.page]]

    def _delete(self, ids: list[str]) -> None:
        self.messages = [message for message in self.messages if message[0] not in ids]


class ZaqarKeystone(bad.FakeKeystone):
    """Its catalog leads to both transports of one server."""

    def tokens(self, handler: bad.Handler) -> None:
        given = handler.give

        def give(body: bytes, status: int = 200, **headers: str) -> None:
            if status == 201:
                answer = json.loads(body)
                url = self.server.url
                answer["token"]["catalog"] = [
                    {"type": kind, "id": kind, "name": kind, "endpoints": [self.endpoint(where, "RegionOne")]}
                    for kind, where in (
                        ("messaging", url),
                        ("messaging-websocket", url.replace("http", "ws", 1) + "/ws"),
                    )
                ]
                body = json.dumps(answer).encode()
            given(body, status, **headers)

        handler.give = give  # type: ignore[method-assign]
        super().tokens(handler)


@contextlib.contextmanager
def serving(certificate: bad.Certificate | None = None) -> Iterator[tuple[Queue, ZaqarKeystone]]:
    with bad.listening(certificate) as server:
        server.RequestHandlerClass = Handler
        queue = Queue(server)
        server.behaviours |= {QUEUE: queue.over_http, "/ws": queue.over_websocket}
        yield queue, ZaqarKeystone(server)


def frame(data: bytes, opcode: int = TEXT) -> bytes:
    if len(data) < 126:
        return bytes([0x80 | opcode, len(data)]) + data
    return bytes([0x80 | opcode, 127]) + struct.pack("!Q", len(data)) + data


def answer(request: Any, body: Any, status: int = 200) -> bytes:
    content = {"request": {"action": request["action"]}, "headers": {"status": status}, "body": body}
    return frame(json.dumps(content).encode())


def pushed(body: Any) -> bytes:
    return frame(json.dumps({"body": body, "ttl": 60, "Message_Type": "Notification"}).encode())
