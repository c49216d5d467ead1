"""Small HTTP servers that stand in for Heat, Keystone, EC2 and a web server.

Where a test counts what a program asks for, or wants an answer that the real ones do not give.
"""

import base64
import contextlib
import email.utils
import hashlib
import hmac
import http.server
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlsplit


class Asked(NamedTuple):
    """A request; ``when`` in seconds of the monotonic clock."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    when: float


class Answer(NamedTuple):
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = {}


def as_json(content: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, json.dumps(content).encode(), {"Content-Type": "application/json", **headers})


class StandIn(http.server.ThreadingHTTPServer):
    """``answer`` says what every request gets; ``asked`` is all of them, in order."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: Callable[[Asked], Answer] = lambda _asked: Answer(404)
        self.asked: list[tuple[Asked, Answer]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was ended in the middle of a request is none."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def count(self, method: str, part: str = "", status: int | None = None) -> int:
        """Requests with that method, with that in their path, that got that status (any)."""
        return sum(
            asked.method == method and part in asked.path and status in {None, answer.status}
            for asked, answer in self.asked
        )


class _Handler(http.server.BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        length = int(self.headers["Content-Length"] or 0)
        parts = urlsplit(self.path)
        asked = Asked(
            self.command,
            parts.path,
            dict(parse_qsl(parts.query, keep_blank_values=True)),
            self.headers,
            self.rfile.read(length),
            time.monotonic(),
        )
        answer = self.server.answer(asked)
        self.server.asked.append((asked, answer))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def serving() -> Iterator[StandIn]:
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


# --- what they answer --------------------------------------------------------------------------------------


def document(content: Any) -> Callable[[Asked], Answer]:
    """A file on a web server, which knows when it was changed."""
    changed = email.utils.formatdate(usegmt=True)
    tag = f'"{hash(str(content))}"'

    def answer(asked: Asked) -> Answer:
        if tag == asked.headers["If-None-Match"] or changed == asked.headers["If-Modified-Since"]:
            return Answer(304)
        return as_json(content, **{"Last-Modified": changed, "ETag": tag})

    return answer


def cfn(secret: str, resources: Mapping[str, Mapping[str, Any]]) -> Callable[[Asked], Answer]:
    """Heat's CloudFormation API: resource → its metadata. It wants each request signed by itself."""

    def answer(asked: Asked) -> Answer:
        params = dict(asked.query)
        if params.pop("Signature", "") != _signature(secret, asked.headers["Host"], asked.path, params):
            return Answer(
                403, b"<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code></Error></ErrorResponse>"
            )
        fields = "".join(
            f"<{field}>{json.dumps(value)}</{field}>"
            for field, value in resources[params["LogicalResourceId"]].items()
        )
        text = (
            "<DescribeStackResourceResponse><DescribeStackResourceResult><StackResourceDetail>"
            f"{fields}</StackResourceDetail></DescribeStackResourceResult></DescribeStackResourceResponse>"
        )
        return Answer(200, text.encode(), {"Content-Type": "application/xml"})

    return answer


def _signature(secret: str, host: str, path: str, params: Mapping[str, str]) -> str:
    """EC2's version 2, from its description."""
    query = "&".join(f"{quote(k, safe='-_~')}={quote(v, safe='-_~')}" for k, v in sorted(params.items()))
    text = "\n".join(["GET", host.lower(), path or "/", query])
    return base64.b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()).decode()


def keystone(server: StandIn, services: Mapping[str, str]) -> Callable[[Asked], Answer | None]:
    """Keystone below /v3 with a catalog: type of service → path. None for what is none of its paths."""
    version = {
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": f"{server.url}/v3/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    }
    catalog = [
        {
            "type": kind,
            "name": kind,
            "id": kind,
            "endpoints": [
                {
                    "interface": "public",
                    "region": "one",
                    "region_id": "one",
                    "id": kind,
                    "url": server.url + path,
                }
            ],
        }
        for kind, path in services.items()
    ]
    token = {
        "methods": ["password"],
        "issued_at": "2020-01-01T00:00:00.000000Z",
        "expires_at": "2099-01-01T00:00:00.000000Z",
        "user": {"id": "u", "name": "u", "domain": {"id": "default", "name": "Default"}},
        "project": {"id": "p", "name": "p", "domain": {"id": "default", "name": "Default"}},
        "roles": [],
        "catalog": catalog,
    }

    def answer(asked: Asked) -> Answer | None:
        if asked.path.rstrip("/") == "/v3":
            return as_json({"version": version})
        if asked.path == "/v3/auth/tokens":
            return as_json({"token": token}, 201, **{"X-Subject-Token": "a-token-of-the-test"})
        return None

    return answer


def heat(server: StandIn, metadata: Any) -> Callable[[Asked], Answer]:
    """Keystone, and Heat's native API with the metadata of one resource."""
    ask_keystone = keystone(server, {"orchestration": "/heat/v1/p"})

    def answer(asked: Asked) -> Answer:
        found = ask_keystone(asked)
        if found is not None:
            return found
        if asked.path.endswith("/metadata") and asked.headers["X-Auth-Token"] == "a-token-of-the-test":
            return as_json({"metadata": metadata})
        return Answer(404)

    return answer


def zaqar(server: StandIn, bodies: list[Any]) -> Callable[[Asked], Answer]:
    """Keystone, and Zaqar with one queue; what is popped or deleted leaves ``bodies``."""
    ask_keystone = keystone(server, {"messaging": "/zaqar"})
    messages = {f"message-{number}": body for number, body in enumerate(bodies)}

    def shown(name: str) -> dict[str, Any]:
        href = f"/v2/queues/q/messages/{name}"
        return {"id": name, "href": href, "ttl": 3600, "age": 1, "body": messages[name]}

    def removed(names: list[str]) -> list[dict[str, Any]]:
        found = [shown(name) for name in names if name in messages]
        for entry in found:
            bodies.remove(messages.pop(entry["id"]))
        return found

    def answer(asked: Asked) -> Answer:
        found = ask_keystone(asked)
        if found is not None:
            return found
        if not asked.path.endswith("/messages"):
            return Answer(204)
        if asked.method == "GET":
            return as_json({"messages": [shown(name) for name in messages], "links": []})
        if "pop" in asked.query:
            return as_json({"messages": removed(list(messages)[: int(asked.query["pop"])])})
        removed(asked.query["ids"].split(","))
        return Answer(204)

    return answer
