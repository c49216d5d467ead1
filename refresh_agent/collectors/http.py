"""HTTP for the collectors: every exchange is bounded in time and size, every fault is told in words.

One Client per source keeps one connection per server. What requests leaves open is closed here: a server that
drips its headers or its body, a body without end, a bomb of gzip, a redirect from https to http.
"""

import email.utils
import http.client
import io
import logging
import socket
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any, NamedTuple, cast
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from refresh_agent import __version__
from refresh_agent.collectors.http_faults import Place, RefusedError, explain, status_meaning
from refresh_agent.model import MetadataLimits, Snapshot
from refresh_agent.polling import LONGEST_RETRY_AFTER

USER_AGENT = f"refresh-agent/{__version__}"

DEFAULT_TIMEOUT = 10.0
"""Seconds, as os-collect-config."""

TOTAL = 6
"""An exchange, redirects included, may take so many times its ``timeout``; a drip would go on for ever."""

MOST_REDIRECTS = 5

ENVELOPE = 2**16
"""Bytes that an answer may have beside the document that is in it."""

SMALLEST_LIMIT = 2**20
"""Bytes; Keystone's catalog has to fit, however small the documents are to be."""

ERROR_LIMIT = 2**16
"""Bytes of an answer that is no success; what follows is not read."""

_PIECE = 2**18
_LONGEST_SHOWN = 500

_CONDITIONAL = frozenset({"If-None-Match", "If-Modified-Since"})

# urllib3 logs URLs with their query, where signatures are; also as a warning, if headers are malformed.
# keystoneauth warns about what is told here in better words.
logging.getLogger("urllib3").setLevel(logging.ERROR)
logging.getLogger("keystoneauth").setLevel(logging.ERROR)


class HttpError(Exception):
    """An exchange that gave nothing of use. The text is for the operator: method, URL, what is wrong.

    ``status`` is the HTTP status, 0 if there was no answer; ``retry_after`` the seconds for which the server
    asked not to be asked again.
    """

    def __init__(self, text: str, status: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after = retry_after


class Reply(NamedTuple):
    """An answer that is no error. ``buffer`` holds the body, decompressed, at its beginning."""

    status: int
    headers: Mapping[str, str]
    buffer: io.BytesIO

    @property
    def body(self) -> bytes:
        """Without a copy, as long as nobody else asks for it."""
        return self.buffer.getvalue()


class Client:
    """What one source asks with. Not for several threads at once.

    ``group`` is the configuration group that messages name, ``credentials`` what a refusal is to be looked
    for in. ``options``: ``timeout`` (seconds for connecting, and for each silence), ``ca_file``,
    ``insecure``.
    """

    def __init__(
        self, group: str, credentials: str, options: Mapping[str, Any], limits: MetadataLimits
    ) -> None:
        self.place = Place(group, credentials, options.get("ca_file") or "")
        self.verify: bool | str = False if options.get("insecure") else self.place.ca_file or True
        if self.verify is False:
            # It would be repeated on standard error; the operator knows.
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self.timeout = float(options.get("timeout") or DEFAULT_TIMEOUT)
        self.session = Session(self.place, self.verify, self.timeout, limits)

    def get(self, url: str, *, missing: str = "", **details: Any) -> Reply:
        """``request`` with GET, once more if the server had closed the kept connection meanwhile."""
        return self.request("GET", url, missing=missing, **details)

    def request(self, method: str, url: str, *, missing: str = "", **details: Any) -> Reply:
        """The answer, if its status is 200 to 203, or 304 if that was asked for. Raises HttpError.

        ``missing`` is what does not exist if the server says 404. ``details`` as requests has them:
        ``params``, ``headers``, ``json``, ``data``.
        """
        response = self.session.request(method, url, stream=True, **details)
        unchanged = response.status_code == 304 and not _CONDITIONAL.isdisjoint(response.request.headers)
        if response.status_code not in {200, 201, 202, 203} and not unchanged:
            raise self.status_error(response, missing)
        return Reply(response.status_code, response.headers, cast("io.BytesIO", response.raw))

    def status_error(self, response: requests.Response, missing: str = "") -> HttpError:
        """The error that this answer is."""
        wait = retry_after(response.headers.get("Retry-After", ""), time.time())
        meaning = status_meaning(response.status_code, self.place, missing)
        # Without the seconds: they may differ from answer to answer, and the rest need not be told again.
        later = "; it asks to be left alone for a while" if wait else ""
        method, url = response.request.method, shown_url(response.url)
        return HttpError(f"{method} {url}: {meaning}{later}", response.status_code, wait)

    def close(self) -> None:
        """Close the kept connections; the next request opens new ones."""
        self.session.close()


class Session(requests.Session):
    """A requests.Session whose every exchange is bounded and raises nothing but HttpError.

    For keystoneauth too: its own exceptions are then those of the answers that it got.
    """

    def __init__(self, place: Place, verify: bool | str, timeout: float, limits: MetadataLimits) -> None:
        super().__init__()
        self.max_redirects = MOST_REDIRECTS
        # A server that sets ever new cookies would fill the memory; none of the protocols needs one.
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        # Decompressed here, within the limit; more kinds would need more decoders.
        self.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "gzip"})
        self._place = place
        self._verify = verify
        self._timeout = timeout
        adapter = _Adapter(limits)
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    def request(self, method: Any, url: Any, *args: Any, **details: Any) -> requests.Response:
        """As requests' own, within the time and size that this session allows. Raises HttpError."""
        # An explicit ca_file and insecure go before REQUESTS_CA_BUNDLE, which would override self.verify.
        details |= {"verify": self._verify, "timeout": self._timeout}
        exchange = _Exchange(self._timeout * TOTAL)
        token = _EXCHANGE.set(exchange)
        try:
            return super().request(method, url, *args, **details)
        except (OSError, ValueError, urllib3.exceptions.HTTPError, http.client.HTTPException) as error:
            # requests' own are OSErrors.
            raise self._error(method, url, exchange, error) from None
        finally:
            _EXCHANGE.reset(token)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target is not None and urlsplit(resp.url).scheme == "https":
            absolute = urljoin(resp.url, target)
            if urlsplit(absolute).scheme != "https":
                raise RefusedError(
                    f"redirects from https to {shown_url(absolute)}, which is not protected; refused"
                )
        return target

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        super().rebuild_auth(prepared_request, response)
        if self.should_strip_auth(response.request.url or "", prepared_request.url or ""):
            prepared_request.headers.pop("X-Auth-Token", None)

    def _error(self, method: Any, url: Any, exchange: "_Exchange", error: Exception) -> HttpError:
        if exchange.remaining() <= 0:
            reason = (
                f"timed out: not complete after {self._timeout * TOTAL:g} s, {TOTAL} times "
                f"[{self._place.group}] timeout"
            )
        else:
            reason = explain(error, self._place, self._timeout)
        where = shown_url(url)
        if exchange.url and shown_url(exchange.url) not in {where, f"{where}/"}:
            where = f"{where}, redirected to {shown_url(exchange.url)}"
        return HttpError(f"{method} {where}: {reason}")


# --- options -----------------------------------------------------------------------------------------------


def not_configured(name: str, options: Mapping[str, Any], required: Sequence[str]) -> Snapshot | None:
    """What a collector gives while one of its ``required`` options is unset or empty."""
    unset = [option for option in required if not options.get(option)]
    if not unset:
        return None
    verb = "is" if len(unset) == 1 else "are"
    text = f"{', '.join(unset)} {verb} not set in [{name}]: not configured"
    return Snapshot(name, error=text, absent=True, unconfigured=True)


def shown_url(url: Any) -> str:
    """The URL without what may be secret in it: user, password, query, fragment."""
    try:
        parts = urlsplit(str(url))
        shown = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return "(not a URL)"
    # It may come from a server's redirect.
    return "".join(letter if letter.isprintable() else "?" for letter in shown[:_LONGEST_SHOWN])


def retry_after(value: str, now: float) -> float:
    """Seconds that a Retry-After asks for, as a number or as a date; 0 if it cannot be understood."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:10]), LONGEST_RETRY_AFTER)
    try:
        date = email.utils.parsedate_to_datetime(value)
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)) - datetime.fromtimestamp(now, UTC)
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds.total_seconds(), 0.0), LONGEST_RETRY_AFTER)


def foreign_content(reply: Reply) -> str:
    """What is wrong if a page for people came instead of JSON; empty if not."""
    start = reply.buffer.read(512)
    reply.buffer.seek(0)
    if start.lstrip()[:1] != b"<":
        return ""
    return "answers with HTML or XML, not JSON: is it another web server, or a proxy that wants a login?"


def failed(name: str, error: HttpError, *, absent: bool = False) -> Snapshot:
    """What a collector gives if an exchange failed."""
    return Snapshot(name, error=str(error), absent=absent, retry_after=error.retry_after)


# --- one exchange ------------------------------------------------------------------------------------------


class _Exchange:
    """A request and all that follows from it. ``url`` is what was asked last, ``connected``: on its own
    connection, not on a kept one.
    """

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self.url = ""
        self.connected = False

    def remaining(self) -> float:
        return self._deadline - time.monotonic()


_EXCHANGE: ContextVar[_Exchange] = ContextVar("exchange")
"""The one that runs in this thread: requests has no way to hand it on to a connection."""


class _Adapter(HTTPAdapter):
    """Reads the whole body within the limit: what requests and keystoneauth get is in memory already."""

    def __init__(self, limits: MetadataLimits) -> None:
        self._limits = limits
        self._limit = max(limits.bytes, SMALLEST_LIMIT) + ENVELOPE
        super().__init__(pool_connections=4, pool_maxsize=1)

    def init_poolmanager(self, *args: Any, **details: Any) -> None:
        super().init_poolmanager(*args, **details)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **details: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **details)
        if not proxy.lower().startswith("socks"):  # those connect in their own way
            manager.pool_classes_by_scheme = _POOLS
        return manager

    def send(self, request: requests.PreparedRequest, *args: Any, **details: Any) -> requests.Response:
        exchange = _EXCHANGE.get()
        exchange.url = request.url or ""
        exchange.connected = False
        try:
            return self._bounded(super().send(request, *args, **details))
        except requests.Timeout:
            raise
        except requests.ConnectionError:
            # The server may have closed the kept connection at the very moment when it was used again.
            if exchange.connected or request.method != "GET":
                raise
        return self._bounded(super().send(request, *args, **details))

    def _bounded(self, response: requests.Response) -> requests.Response:
        raw = response.raw
        try:
            if response.status_code < 300:
                encoding = response.headers.get("Content-Encoding", "").strip().lower()
                buffer = self._whole(_decoded(_pieces(raw, self._limit), encoding))
            else:
                # The status says what is wrong. A longer text is cut, and its connection not kept.
                buffer = _read(_pieces(raw, ERROR_LIMIT), ERROR_LIMIT) or io.BytesIO()
        except BaseException:
            raw.close()
            raise
        if raw.connection is not None:  # what is unread would be taken for the next answer
            raw.close()
        response.raw = buffer
        return response

    def _whole(self, pieces: Iterator[bytes]) -> io.BytesIO:
        buffer = _read(pieces, self._limit)
        if buffer is None:
            raise RefusedError(
                f"the answer is larger than [limits] metadata_bytes ({self._limits.bytes} bytes) allows"
            )
        return buffer


def _read(pieces: Iterator[bytes], limit: int) -> io.BytesIO | None:
    """All pieces, or None if they are more. A BytesIO grows in place and gives its bytes without a copy."""
    buffer = io.BytesIO()
    for piece in pieces:
        buffer.write(piece)
        if buffer.tell() > limit:
            return None
    buffer.seek(0)
    return buffer


def _pieces(raw: Any, limit: int) -> Iterator[bytes]:
    """The body as it is sent; one piece beyond the limit at most."""
    total = 0
    while total <= limit and (piece := raw.read(_PIECE, decode_content=False)):
        total += len(piece)
        yield piece


def _decoded(pieces: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """What the pieces hold, in pieces that are no larger: a bomb is not blown up at once."""
    if encoding in {"", "identity"}:
        yield from pieces
        return
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise RefusedError("answers in a Content-Encoding that it was not asked for")
    decoder = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)
    try:
        for piece in pieces:
            data, pending = piece, True
            while pending and not decoder.eof:
                out = decoder.decompress(data, _PIECE)
                yield out
                data = decoder.unconsumed_tail
                pending = bool(data) or len(out) == _PIECE
    except zlib.error:
        raise RefusedError("the compressed answer is damaged") from None
    if not decoder.eof:
        raise RefusedError("the compressed answer ends too early")


class _TimedReader(io.RawIOBase):
    """Reads from a socket until the exchange's time is over, however few bytes come each time."""

    def __init__(self, sock: socket.socket, exchange: _Exchange) -> None:
        super().__init__()
        self._socket = sock
        self._exchange = exchange
        self._silence = sock.gettimeout()
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        remaining = self._exchange.remaining()
        if remaining <= 0:
            raise TimeoutError("the exchange's time is over")
        self._socket.settimeout(remaining if self._silence is None else min(self._silence, remaining))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedSocket:
    """As much of a socket as http.client's response wants: where to read."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._socket, _EXCHANGE.get()))


class _Response(http.client.HTTPResponse):
    """Also reads a proxy's answer to CONNECT."""

    def __init__(self, sock: socket.socket, *args: Any, **details: Any) -> None:
        super().__init__(cast("socket.socket", _TimedSocket(sock)), *args, **details)


class _Connection(HTTPConnection):
    response_class = _Response

    def connect(self) -> None:
        _EXCHANGE.get().connected = True
        super().connect()


class _SecureConnection(HTTPSConnection):
    response_class = _Response

    def connect(self) -> None:
        _EXCHANGE.get().connected = True
        super().connect()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS = {"http": _Pool, "https": _SecurePool}
