"""Sockets for websockets: opened as requests would, and bounded in time and size, as the library is not."""

import http.client
import os
import socket
import ssl
import time
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import requests
import urllib3

from refresh_agent.collectors.http_faults import RefusedError


class BoundedSocket:
    """A connected socket that gives up when an exchange takes too long, or is too large.

    ``silence``: seconds to wait for each piece. ``limit``: bytes that an exchange may bring. ``idle``:
    nothing of the next message has come.
    """

    def __init__(self, connected: socket.socket, silence: float, limit: int) -> None:
        self._socket = connected
        self._silence = silence
        self._limit = limit
        self.begin(silence)

    def begin(self, seconds: float, patience: float = 0.0) -> None:
        """A new exchange. ``patience``: seconds to wait for a message, if not as long as for its rest."""
        self._deadline = time.monotonic() + seconds
        self._patience = patience or self._silence
        self._received = 0
        self.next()

    def next(self) -> None:
        """The next message of the same exchange."""
        self.idle = True

    def recv(self, size: int) -> bytes:
        self._socket.settimeout(self._remaining(self._patience if self.idle else self._silence))
        piece = self._socket.recv(size)
        self.idle = False
        self._received += len(piece)
        if self._received > self._limit:
            raise RefusedError(
                f"the answer is larger than [limits] metadata_bytes ({self._limit} bytes) allows"
            )
        return piece

    def send(self, data: bytes) -> int:
        self._socket.settimeout(self._remaining(self._silence))
        return self._socket.send(data)

    def pending(self) -> int:
        """Bytes that TLS has decrypted and nobody has read."""
        return self._socket.pending() if isinstance(self._socket, ssl.SSLSocket) else 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def _remaining(self, seconds: float) -> float:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the exchange's time is over")
        return min(seconds, remaining)


def open_socket(url: str, verify: bool | str, timeout: float) -> socket.socket:
    """A connection to where a ws or wss URL points, through the proxy that the environment names for it.

    ``verify`` as requests has it. Raises OSError, RefusedError.
    """
    parts = _parts(url)
    secure = parts.scheme == "wss"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    proxy = _proxy(url)
    near = (proxy.hostname or "", proxy.port or 80) if proxy else (host, port)
    connection = (
        http.client.HTTPSConnection(*near, timeout=timeout, context=_context(verify))
        if secure
        else http.client.HTTPConnection(*near, timeout=timeout)
    )
    if proxy:
        connection.set_tunnel(host, port, _authorization(proxy))
    try:
        connection.connect()
    except BaseException as error:
        connection.close()
        if proxy and isinstance(error, (OSError, http.client.HTTPException)):
            name = "https_proxy" if secure else "http_proxy"
            raise RefusedError(f"cannot be reached through the proxy that {name} names") from None
        raise
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return connection.sock


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError if it is none
    except ValueError:
        raise RefusedError("is not a URL") from None
    if parts.scheme not in {"ws", "wss"} or not parts.hostname:
        raise RefusedError("the URL in Keystone's catalog has to begin with ws:// or wss://")
    return parts


def _proxy(url: str) -> SplitResult | None:
    """By requests' rules, as for every other source."""
    as_http = url.replace("ws", "http", 1)
    proxy = requests.utils.select_proxy(as_http, requests.utils.get_environ_proxies(as_http))
    if not proxy:
        return None
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme != "http" or not parts.hostname:
        raise RefusedError("websockets go through an http:// proxy only; name this server in no_proxy")
    return parts


def _authorization(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    return urllib3.make_headers(proxy_basic_auth=f"{unquote(proxy.username)}:{unquote(proxy.password or '')}")


def _context(verify: bool | str) -> ssl.SSLContext:
    """The authorities that requests would trust. Raises OSError if they cannot be read."""
    if verify is False:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    bundle = (
        verify
        if isinstance(verify, str)
        else os.environ.get("REQUESTS_CA_BUNDLE")
        or os.environ.get("CURL_CA_BUNDLE")
        or requests.utils.DEFAULT_CA_BUNDLE_PATH
    )
    if not os.path.exists(bundle):
        # In requests' words, which are explained in the same way for all sources.
        raise OSError("Could not find a suitable TLS CA certificate bundle")
    if os.path.isdir(bundle):
        return ssl.create_default_context(capath=bundle)
    return ssl.create_default_context(cafile=bundle)
