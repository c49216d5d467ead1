"""A proxy in front of one HTTP server, which notes every request and by which connection it came."""

import contextlib
import http.client
import itertools
import socket
import threading
import urllib.parse
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

# Hop by hop: of each connection its own.
NOT_PASSED_ON = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class Exchange(NamedTuple):
    """``path`` is without its query, which may hold keys. Connections count from 1."""

    connection: int
    method: str
    path: str
    status: int


class CountingProxy:
    """Passes everything on to ``upstream``, the Host header too: signatures are made over it.

    Both sides keep their connections: one to upstream for each from a client. Bodies need a Content-Length.
    """

    def __init__(self, upstream: str) -> None:
        self._exchanges: list[Exchange] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._numbers = itertools.count(1)
        address = urllib.parse.urlsplit(upstream)
        assert address.hostname is not None
        self.upstream = address.hostname, address.port or 80
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="proxy")
        self._thread.start()

    def exchanges(self) -> list[Exchange]:
        """All since the start or the last ``clear``."""
        with self._lock:
            return list(self._exchanges)

    def clear(self) -> None:
        with self._lock:
            self._exchanges.clear()

    def requests(self) -> Counter[str]:
        """How many to each "METHOD path"."""
        return Counter(f"{one.method} {one.path}" for one in self.exchanges())

    def connections(self) -> Counter[str]:
        """To each "METHOD path": by how many different connections its requests came."""
        return Counter(
            f"{method} {path}"
            for _, method, path in {(one.connection, one.method, one.path) for one in self.exchanges()}
        )

    def close(self) -> None:
        """Also ends the connections that are open."""
        self._server.shutdown()
        self._thread.join()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()  # waits for the threads of the connections

    # --- called by the handlers ---

    def opened(self, connection: socket.socket) -> int:
        with self._lock:
            self._open.add(connection)
            return next(self._numbers)

    def note(self, exchange: Exchange) -> None:
        with self._lock:
            self._exchanges.append(exchange)

    def closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that server_close waits for them
    request_queue_size = 128

    def __init__(self, proxy: CountingProxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client or the server went away in the middle: its own affair."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body of an answer leave together
    server: _Server

    def setup(self) -> None:
        super().setup()
        self._number = self.server.proxy.opened(self.connection)
        self._upstream = http.client.HTTPConnection(*self.server.proxy.upstream, timeout=120)

    def finish(self) -> None:
        self._upstream.close()
        self.server.proxy.closed(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def _pass_on(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length) if length else None
        headers = {name: value for name, value in self.headers.items() if name.lower() not in NOT_PASSED_ON}
        if self.command not in {"GET", "HEAD"}:
            headers["Content-Length"] = str(length)
        self._upstream.request(self.command, self.path, body, headers)
        answer = self._upstream.getresponse()
        content = answer.read()
        # Noted before the client has it: whoever asks afterwards finds it.
        path = self.path.partition("?")[0]
        self.server.proxy.note(Exchange(self._number, self.command, path, answer.status))
        self._answer(answer, content)

    def _answer(self, answer: http.client.HTTPResponse, content: bytes) -> None:
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in NOT_PASSED_ON:
                self.send_header(name, value)
        length = answer.headers.get("Content-Length") if self.command == "HEAD" else str(len(content))
        if length is not None and answer.status not in {204, 304}:
            self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing on the screen."""
