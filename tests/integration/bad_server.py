"""An HTTP(S) server that misbehaves on demand, and a Keystone just good enough to stand in front of it."""

import contextlib
import datetime
import gzip
import http.server
import itertools
import json
import pathlib
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

Behaviour = Callable[["Handler"], None]


class Seen(NamedTuple):
    """A request. ``connection`` counts the connections from 1 on."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    connection: int


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Listener"

    def setup(self) -> None:
        self.connection_number = next(self.server.connections)
        super().setup()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        self.sent = self.rfile.read(length)
        seen = Seen(
            self.command, parts.path, parse_qs(parts.query), dict(self.headers), self.connection_number
        )
        self.server.seen.append(seen)
        try:
            self.server.behaviours.get(parts.path, self.server.behave)(self)
        except OSError:  # the client has had enough
            self.close_connection = True

    def do_POST(self) -> None:
        self.do_GET()

    def do_CONNECT(self) -> None:
        self.do_GET()

    def log_message(self, *_details: Any) -> None:
        pass

    def give(self, body: bytes, status: int = 200, **headers: str) -> None:
        """An answer as it should be."""
        self.begin(status, Content_Length=str(len(body)), **headers)
        self.wfile.write(body)

    def begin(self, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()


class Listener(http.server.ThreadingHTTPServer):
    """``behave`` answers all paths that have no behaviour of their own."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.connections = itertools.count(1)
        self.seen: list[Seen] = []
        self.behave: Behaviour = good(b"{}")
        self.behaviours: dict[str, Behaviour] = {}
        self.stopping = threading.Event()
        self.tls: ssl.SSLContext | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.server_address[1]}"

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls:
            try:
                request = self.tls.wrap_socket(request, server_side=True)
            except OSError:  # the client does not like the certificate
                return
        super().finish_request(request, client_address)
        if self.tls:
            request.close()

    def handle_error(self, *_details: Any) -> None:
        pass


@contextlib.contextmanager
def listening(certificate: "Certificate | None" = None) -> Iterator[Listener]:
    server = Listener()
    if certificate:
        server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.tls.load_cert_chain(certificate.path, certificate.key)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()


# --- behaviours ------------------------------------------------------------------------------------------


def good(body: bytes, status: int = 200, **headers: str) -> Behaviour:
    return lambda handler: handler.give(body, status, **headers)


def silence(handler: Handler) -> None:
    handler.server.stopping.wait(30)


def slow_headers(handler: Handler) -> None:
    """Never silent for long, and never done."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    _drip(handler, b"x")


def slow_body(handler: Handler) -> None:
    handler.begin(Content_Length="1000")
    _drip(handler, b" ")


def reset(handler: Handler) -> None:
    """In the middle of the body, as when the server's process dies."""
    handler.begin(Content_Length="1000")
    handler.wfile.write(b"{" + b" " * 99)
    _abort(handler)


def closed(handler: Handler) -> None:
    """Without a word."""
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def too_short(handler: Handler) -> None:
    """Its Content-Length promises more."""
    handler.begin(Content_Length="1000")
    handler.wfile.write(b'{"a": 1}')
    handler.close_connection = True


def not_http(handler: Handler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
    handler.close_connection = True


def huge(size: int) -> Behaviour:
    def behave(handler: Handler) -> None:
        handler.begin(Content_Length=str(size))
        piece = b'{"' + b"x" * (2**20 - 2)
        for _ in range(0, size, len(piece)):
            handler.wfile.write(piece)

    return behave


def endless(code: int = 200) -> Behaviour:
    """In chunks, so that no length is told."""

    def behave(handler: Handler) -> None:
        handler.begin(code, Transfer_Encoding="chunked")
        piece = b" " * 2**16
        while not handler.server.stopping.is_set():
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    return behave


def gzip_bomb(size: int) -> Behaviour:
    body = gzip.compress(b"{" + b" " * size)
    return good(body, Content_Encoding="gzip")


def zipped(body: bytes) -> Behaviour:
    return good(gzip.compress(body), Content_Encoding="gzip")


def redirect(target: str, status: int = 302) -> Behaviour:
    return good(b"elsewhere", status, Location=target)


def redirect_loop(handler: Handler) -> None:
    handler.give(b"", 302, Location=handler.path)


def status(code: int, retry_after: str = "") -> Behaviour:
    headers = {"Retry_After": retry_after} if retry_after else {}
    return good(b"<html>what the server has to say</html>", code, **headers)


def html(handler: Handler) -> None:
    handler.give(b"<!DOCTYPE html>\n<html><body>Log in!</body></html>", Content_Type="text/html")


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """One after the other, then the last one for ever."""
    left = list(behaviours)

    def behave(handler: Handler) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(handler)

    return behave


def _drip(handler: Handler, piece: bytes) -> None:
    for _ in range(600):
        handler.wfile.write(piece)
        if handler.server.stopping.wait(0.05):
            return


def _abort(handler: Handler) -> None:
    """A reset instead of an orderly end."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.wfile.flush()
    handler.rfile.close()
    handler.connection.close()
    handler.close_connection = True


# --- what the protocols wrap the metadata in ---------------------------------------------------------------


def cfn_answer(metadata: str, field_name: str = "Metadata", before: str = "") -> bytes:
    return (
        f"{before}<DescribeStackResourceResponse><DescribeStackResourceResult><StackResourceDetail>"
        f"<StackId>1</StackId><{field_name}>{escape(metadata)}</{field_name}><ResourceType>x</ResourceType>"
        "</StackResourceDetail></DescribeStackResourceResult></DescribeStackResourceResponse>"
    ).encode()


XML_WITH_ENTITIES = cfn_answer(
    "REPLACED", before='<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;">]>'
).replace(b"REPLACED", b"{&y;}")


@dataclass
class FakeKeystone:
    """What a real one cannot be made to do: tokens that end when a test wants it, odd catalogs, faults."""

    server: Listener
    lifetime: float = 3600.0
    logins: int = 0
    revoked: set[str] = field(default_factory=set)
    endpoints: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server.behaviours |= {"/": self.versions, "/v3": self.versions, "/v3/auth/tokens": self.tokens}
        self.endpoints.append(self.endpoint(f"{self.server.url}/heat/v1/project-1", "RegionOne"))

    def endpoint(self, url: str, region: str) -> dict[str, str]:
        return {"interface": "public", "region": region, "region_id": region, "url": url, "id": url}

    def versions(self, handler: Handler) -> None:
        version = {
            "id": "v3.14",
            "status": "stable",
            "updated": "2020-04-07T00:00:00Z",
            "links": [{"rel": "self", "href": f"{self.server.url}/v3/"}],
        }
        handler.give(json.dumps({"versions": {"values": [version]}}).encode(), 300)

    def tokens(self, handler: Handler) -> None:
        password = json.loads(handler.sent)["auth"]["identity"]["password"]["user"]["password"]
        if password != "the password":
            return handler.give(b'{"error": {"code": 401, "message": "no: the password"}}', 401)
        self.logins += 1
        now = datetime.datetime.now(datetime.UTC)
        token = {
            "methods": ["password"],
            "user": {"id": "user-1", "name": "u", "domain": {"id": "d", "name": "d"}},
            "project": {"id": "project-1", "name": "p", "domain": {"id": "d", "name": "d"}},
            "issued_at": now.isoformat(),
            "expires_at": (now + datetime.timedelta(seconds=self.lifetime)).isoformat(),
            "catalog": [{"type": "orchestration", "id": "heat", "name": "heat", "endpoints": self.endpoints}],
        }
        return handler.give(
            json.dumps({"token": token}).encode(), 201, X_Subject_Token=f"token-{self.logins}"
        )

    def guarded(self, behaviour: Behaviour) -> Behaviour:
        """``behaviour`` for who has a token that is not revoked."""

        def behave(handler: Handler) -> None:
            token = handler.headers.get("X-Auth-Token", "")
            if not token.startswith("token-") or token in self.revoked:
                return handler.give(b"no", 401)
            return behaviour(handler)

        return behave


# --- certificates ------------------------------------------------------------------------------------------


class Certificate(NamedTuple):
    path: pathlib.Path
    key: pathlib.Path


def self_signed(directory: pathlib.Path) -> Certificate:
    """For 127.0.0.1; its own authority."""
    made = Certificate(directory / "server.pem", directory / "server.key")
    _openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", "/CN=refresh-agent tests", "-addext", "subjectAltName=IP:127.0.0.1",
        "-keyout", str(made.key), "-out", str(made.path),
    )  # fmt: skip
    return made


def expired(directory: pathlib.Path) -> Certificate:
    """As ``self_signed``, but of yesterday."""
    fresh = self_signed(directory)
    made = Certificate(directory / "expired.pem", fresh.key)
    _openssl(
        "x509", "-in", str(fresh.path), "-signkey", str(fresh.key), "-days", "-1", "-out", str(made.path)
    )
    return made


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


def http_date(seconds_from_now: float) -> str:
    moment = datetime.datetime.fromtimestamp(time.time() + seconds_from_now, datetime.UTC)
    return moment.strftime("%a, %d %b %Y %H:%M:%S GMT")
