"""What went wrong with an HTTP exchange, in words for the operator. No side effects.

The libraries' own texts are not used where they hold the URL: its query may be signed.
"""

import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import requests
import urllib3.exceptions


class Place(NamedTuple):
    """Where the operator can change something: ``credentials`` are options of ``group``."""

    group: str
    credentials: str
    ca_file: str = ""


class RefusedError(ValueError):
    """An answer that is not taken; the text says why."""


def explain(error: BaseException, place: Place, timeout: float) -> str:
    """The cause in words, and what to do about it if that is not plain."""
    causes = list(_causes(error))
    for kind, words in _WORDS:
        for cause in causes:
            if isinstance(cause, kind):
                return _through_proxy(causes) + words(cause, place, timeout)
    return f"{_through_proxy(causes)}failed ({type(causes[-1]).__name__})"


def status_meaning(status: int, place: Place, missing: str = "") -> str:
    """What an HTTP status that is no success means here. ``missing``: what does not exist if it is 404."""
    phrase = http.client.responses.get(status, "unknown").lower()
    meanings = {
        400: f"the server cannot do what was asked for; check the options in [{place.group}]",
        401: f"check {place.credentials} in [{place.group}]",
        403: f"check {place.credentials} in [{place.group}], or they do not allow this",
        404: f"{missing or 'there is no such thing'}; check [{place.group}]",
        429: "the server is asked too often",
        503: "the server is busy or being maintained",
    }
    meaning = meanings.get(status, "the server failed; see its log" if status >= 500 else "not expected")
    return f"answers {status} ({phrase}): {meaning}"


def _through_proxy(causes: list[BaseException]) -> str:
    proxied = any(isinstance(cause, (requests.exceptions.ProxyError, _PROXY)) for cause in causes)
    return "through the proxy that http_proxy or https_proxy names: " if proxied else ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all that it wraps; requests and urllib3 do so in three ways.

    But for urllib3's NewConnectionError: it says nothing by itself, and passes for a time-out.
    """
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        cause = waiting.pop(0)
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            if not isinstance(cause, urllib3.exceptions.NewConnectionError):
                yield cause
            waiting += [*cause.args, getattr(cause, "reason", None), cause.__cause__, cause.__context__]


def _certificate(error: Any, place: Place, _timeout: float) -> str:
    option = f"[{place.group}] ca_file"
    advice = {
        9: "check the clocks of the server and of this node",
        10: "it has to be renewed on the server, or this node's clock is wrong",
        62: "the URL has to name the server as its certificate does",
        64: "the URL has to name the server as its certificate does",
    }
    default = f"if it is to be trusted, name the certificate of its authority in {option}"
    what = advice.get(error.verify_code, default)
    return f"the server's certificate is refused ({error.verify_message}): {what}"


def _tls(error: Any, place: Place, _timeout: float) -> str:
    reason = (error.reason or "unknown").lower().replace("_", " ")
    if reason in {"wrong version number", "record layer failure", "http request"}:
        return "the server does not speak TLS there; is it http instead of https?"
    if "no certificate" in reason or "pem lib" in reason:
        return f"{_authorities(place)} holds no certificate"
    return f"no protected connection ({reason})"


def _bundle(error: Any, place: Place, _timeout: float) -> str:
    """It is a bare OSError that requests raises if the file of authorities does not exist."""
    if "CA certificate bundle" in str(error):
        return f"{_authorities(place)} does not exist"
    return error.strerror or f"failed ({type(error).__name__})"


def _authorities(place: Place) -> str:
    if place.ca_file:
        return f"[{place.group}] ca_file: {place.ca_file}:"
    return "the file that REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names"


def _name(error: Any, _place: Place, _timeout: float) -> str:
    return f"the name of the server is not known ({error.strerror})"


def _incomplete(error: Any, _place: Place, _timeout: float) -> str:
    length = len(error.partial) if isinstance(error.partial, bytes) else error.partial
    expected = f" of {length + error.expected}" if isinstance(error.expected, int) else ""
    return f"the answer ends after {length}{expected} bytes"


def _nested(error: Any, place: Place, timeout: float) -> str:
    """The system's word for it (no route, network unreachable), which requests has wrapped as an OSError."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and not isinstance(cause, requests.exceptions.RequestException):
            return _bundle(cause, place, timeout)
    return f"failed ({type(error).__name__})"


def _fixed(text: str) -> Callable[[Any, Place, float], str]:
    return lambda _error, _place, timeout: text.format(timeout=f"{timeout:g}")


_PROXY = urllib3.exceptions.ProxyError
_TIMED_OUT = "timed out: no answer for {timeout} s"
_RESET = "the server reset the connection"

_WORDS: tuple[tuple[Any, Callable[[Any, Place, float], str]], ...] = (
    # The first that is found among the causes: what is more precise comes first.
    (RefusedError, lambda error, _place, _timeout: str(error)),
    (ssl.SSLCertVerificationError, _certificate),
    (socket.gaierror, _name),
    (
        (requests.exceptions.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError),
        _fixed("timed out: no connection within {timeout} s"),
    ),
    ((requests.exceptions.Timeout, urllib3.exceptions.ReadTimeoutError, TimeoutError), _fixed(_TIMED_OUT)),
    (ConnectionRefusedError, _fixed("the connection is refused: nothing listens there")),
    (http.client.RemoteDisconnected, _fixed("the server closed the connection without an answer")),
    ((ConnectionResetError, BrokenPipeError), _fixed(_RESET)),
    (http.client.IncompleteRead, _incomplete),
    (requests.exceptions.TooManyRedirects, _fixed("redirects without end; given up")),
    (ssl.SSLError, _tls),
    (http.client.HTTPException, _fixed("the answer is not HTTP")),
    (
        (requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema),
        _fixed("the URL has to begin with http:// or https://"),
    ),
    ((requests.exceptions.InvalidURL, urllib3.exceptions.LocationValueError), _fixed("is not a URL")),
    (requests.exceptions.InvalidHeader, _fixed("an option holds characters that no header may have")),
    (urllib3.exceptions.ProtocolError, _fixed("the answer is not HTTP")),
    (requests.exceptions.RequestException, _nested),
    (OSError, _bundle),
)
