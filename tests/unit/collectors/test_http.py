"""HTTP as the sources use it, against a server of the tests."""

import errno
import json
import logging
import pathlib
import ssl
import time
from collections.abc import Iterator

import pytest
import requests
import urllib3
from hypothesis import given
from hypothesis import strategies as st
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from refresh_agent import __version__
from refresh_agent.collectors import http
from refresh_agent.collectors.http_faults import Place, explain
from refresh_agent.polling import LONGEST_RETRY_AFTER
from tests.integration import bad_server as bad
from tests.unit.support import LIMITS

NOW = 1_800_000_000.0


@pytest.fixture
def client() -> Iterator[http.Client]:
    made = http.Client("request", "metadata_url", {"timeout": 1.0}, LIMITS)
    yield made
    made.close()


def error_of(client: http.Client, url: str) -> str:
    with pytest.raises(http.HttpError) as caught:
        client.get(url)
    return str(caught.value)


def test_a_request_says_who_asks(server: bad.Listener, client: http.Client) -> None:
    server.behave = bad.good(b'{"a": 1}')
    reply = client.get(f"{server.url}/x", params={"b": "c d"}, headers={"X-Own": "1"})
    assert (reply.status, reply.body) == (200, b'{"a": 1}')
    (seen,) = server.seen
    assert (seen.path, dict(seen.query)) == ("/x", {"b": ["c d"]})
    assert seen.headers["User-Agent"] == f"refresh-agent/{__version__}"
    assert seen.headers["X-Own"] == "1"


def test_one_connection_serves_all_requests(server: bad.Listener, client: http.Client) -> None:
    for code in [200, 404, 200, 500, 200, 302]:
        server.behave = bad.good(b"x" * 1000, code)
        if code == 200:
            client.get(server.url)
        else:
            error_of(client, server.url)
    assert {seen.connection for seen in server.seen} == {1}


def test_a_kept_connection_that_the_server_closed_is_no_fault(
    server: bad.Listener, client: http.Client
) -> None:
    server.behave = bad.in_turn(bad.good(b"1"), bad.closed, bad.good(b"2"))
    assert client.get(server.url).body == b"1"
    assert client.get(server.url).body == b"2"
    assert [seen.connection for seen in server.seen] == [1, 1, 2]


def test_only_a_get_is_sent_twice(server: bad.Listener, client: http.Client) -> None:
    server.behave = bad.in_turn(bad.good(b"1"), bad.closed, bad.good(b"2"))
    client.get(server.url)
    with pytest.raises(http.HttpError, match="closed the connection without an answer"):
        client.request("POST", server.url, json={"a": 1})
    assert [seen.method for seen in server.seen] == ["GET", "POST"]


def test_a_new_connection_that_is_closed_is_a_fault_at_once(
    server: bad.Listener, client: http.Client
) -> None:
    server.behave = bad.closed
    assert error_of(client, server.url).endswith("the server closed the connection without an answer")
    assert len(server.seen) == 1


def test_what_is_compressed_is_unpacked(server: bad.Listener, client: http.Client) -> None:
    body = json.dumps({str(n): "x" * 1000 for n in range(900)}).encode()
    server.behave = bad.zipped(body)
    assert client.get(server.url).body == body
    assert client.get(server.url).body == body
    assert {seen.connection for seen in server.seen} == {1}


@pytest.mark.parametrize(
    ("body", "encoding", "words"),
    [
        (b"no gzip", "gzip", "the compressed answer is damaged"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", "gzip", "the compressed answer ends too early"),
        (b"x", "br", "answers in a Content-Encoding that it was not asked for"),
    ],
)
def test_what_cannot_be_unpacked_is_told(
    server: bad.Listener, client: http.Client, body: bytes, encoding: str, words: str
) -> None:
    server.behave = bad.good(body, Content_Encoding=encoding)
    assert error_of(client, server.url).endswith(words)


@pytest.mark.parametrize(
    "behaviour", [bad.good(b"x" * 2**20, 500), bad.endless(500)], ids=["long", "endless"]
)
def test_a_long_answer_to_a_fault_is_not_read_to_its_end(
    server: bad.Listener, client: http.Client, behaviour: bad.Behaviour
) -> None:
    server.behave = behaviour
    assert "answers 500" in error_of(client, server.url)
    server.behave = bad.good(b"1")
    assert client.get(server.url).body == b"1"
    assert server.seen[-1].connection == 2


def test_cookies_are_not_kept(server: bad.Listener, client: http.Client) -> None:
    server.behave = bad.good(b"1", Set_Cookie="a=b")
    client.get(server.url)
    client.get(server.url)
    assert "Cookie" not in server.seen[-1].headers


def test_redirects_are_followed(server: bad.Listener, client: http.Client) -> None:
    server.behaviours = {f"/{n}": bad.redirect(f"/{n + 1}", 301 + n % 2) for n in range(5)}
    server.behave = bad.good(b"here")
    assert client.get(f"{server.url}/0").body == b"here"
    assert [seen.path for seen in server.seen] == [f"/{n}" for n in range(6)]


def test_a_sixth_redirect_is_not(server: bad.Listener, client: http.Client) -> None:
    server.behaviours = {f"/{n}": bad.redirect(f"/{n + 1}") for n in range(6)}
    assert "redirects without end" in error_of(client, f"{server.url}/0")
    assert len(server.seen) == 6


def test_a_fault_behind_a_redirect_names_both(server: bad.Listener, client: http.Client) -> None:
    server.behaviours = {"/a": bad.redirect("/b?signature=secret")}
    server.behave = bad.too_short
    assert error_of(client, f"{server.url}/a?x=y") == (
        f"GET {server.url}/a, redirected to {server.url}/b: the answer ends after 8 of 1000 bytes"
    )


def test_a_token_does_not_follow_to_another_server(server: bad.Listener, client: http.Client) -> None:
    with bad.listening() as other:
        server.behaviours = {"/away": bad.redirect(f"{other.url}/x"), "/near": bad.redirect("/x")}
        for path in ("away", "near"):
            client.get(f"{server.url}/{path}", headers={"X-Auth-Token": "secret"})
        assert "X-Auth-Token" not in other.seen[0].headers
        assert server.seen[-1].headers["X-Auth-Token"] == "secret"


def test_time_is_limited_over_all_redirects_together(server: bad.Listener) -> None:
    client = http.Client("request", "metadata_url", {"timeout": 0.1}, LIMITS)
    server.behave = bad.slow_headers
    server.behaviours = {"/loop": bad.redirect("/drip")}
    began = time.monotonic()
    assert error_of(client, f"{server.url}/loop").endswith(
        "timed out: not complete after 0.6 s, 6 times [request] timeout"
    )
    assert time.monotonic() - began < 1.5
    client.close()


def test_the_proxy_of_the_environment_is_used(
    server: bad.Listener, client: http.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "near.invalid")
    server.behave = bad.good(b"by proxy")
    assert client.get("http://far.invalid/x").body == b"by proxy"
    assert server.seen[-1].headers["Host"] == "far.invalid"
    assert "the name of the server is not known" in error_of(client, "http://near.invalid/x")


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (bad.slow_headers, "timed out: not complete after 1.2 s"),
        (bad.status(407), "through the proxy that http_proxy or https_proxy names: "),
    ],
)
def test_a_proxy_that_does_not_connect_is_told(
    server: bad.Listener, monkeypatch: pytest.MonkeyPatch, behaviour: bad.Behaviour, words: str
) -> None:
    monkeypatch.setenv("https_proxy", f"http://user:secret@{server.url.removeprefix('http://')}")
    monkeypatch.setenv("no_proxy", "")
    client = http.Client("request", "metadata_url", {"timeout": 0.2}, LIMITS)
    server.behave = behaviour
    error = error_of(client, "https://far.invalid/x")
    assert words in error
    assert "secret" not in error
    assert server.seen[0].method == "CONNECT"
    client.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/x", "GET ftp://host/x: the URL has to begin with http:// or https://"),
        ("host/x", "GET host/x: the URL has to begin with http:// or https://"),
        ("http://[::1/x", "GET (not a URL): is not a URL"),
        ("http://", "GET http://: is not a URL"),
        ("http://host:port/", "is not a URL"),
        (f"http://{'x' * 70}.invalid/", "is not a URL"),
    ],
)
def test_what_is_no_url_is_told(client: http.Client, url: str, words: str) -> None:
    assert words in error_of(client, url)


def test_an_option_that_no_header_can_hold(server: bad.Listener, client: http.Client) -> None:
    with pytest.raises(http.HttpError, match="an option holds characters that no header may have"):
        client.get(server.url, headers={"X-Auth-Token": "a\r\nb"})


def test_neither_messages_nor_the_log_hold_what_is_secret_in_a_url(
    server: bad.Listener, client: http.Client, caplog: pytest.LogCaptureFixture
) -> None:
    def behave(handler: bad.Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 500 Bad\r\nno header\r\nContent-Length: 1\r\n\r\n1")
        handler.close_connection = True

    server.behave = behave
    with caplog.at_level(logging.DEBUG):
        url = f"{server.url.replace('//', '//user:hidden1@')}/a?sig=hidden2#hidden3"
        error = error_of(client, url)
    assert error.startswith(f"GET {server.url}/a: answers 500")
    assert "hidden" not in error + caplog.text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EHOSTUNREACH, "No route to host"), "No route to host"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "Network is unreachable"),
        (ConnectionRefusedError(), "the connection is refused: nothing listens there"),
        (OSError("without a number"), "failed (OSError)"),
    ],
)
def test_the_cause_is_told_however_deep_it_is_wrapped(error: OSError, words: str) -> None:
    """As urllib3 and requests do it when no connection comes about."""
    pool = HTTPConnectionPool("host")
    new = urllib3.exceptions.NewConnectionError(HTTPConnection("host"), "Failed: signature=hidden")
    new.__cause__ = error
    most = urllib3.exceptions.MaxRetryError(pool, "/?signature=hidden", new)
    place = Place("cfn", "")
    assert explain(requests.ConnectionError(most), place, 1) == words
    proxied = urllib3.exceptions.MaxRetryError(pool, "/", urllib3.exceptions.ProxyError("hidden", new))
    assert explain(requests.exceptions.ProxyError(proxied), place, 1) == (
        f"through the proxy that http_proxy or https_proxy names: {words}"
    )


def test_what_nobody_thought_of_is_named_without_its_text() -> None:
    assert explain(requests.RequestException("hidden"), Place("cfn", ""), 1) == "failed (RequestException)"
    assert explain(ValueError("hidden"), Place("cfn", ""), 1) == "failed (ValueError)"
    strange = ssl.SSLError(1, "[SSL: UNSAFE_LEGACY] hidden")
    strange.reason = "UNSAFE_LEGACY"
    assert explain(strange, Place("cfn", ""), 1) == "no protected connection (unsafe legacy)"


@pytest.mark.parametrize(("content", "words"), [(None, "does not exist"), ("", "holds no certificate")])
def test_a_bundle_of_the_environment_that_is_not_good_is_told(
    client: http.Client,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str | None,
    words: str,
) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_text(content)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    with bad.listening() as listener:
        url = listener.url.replace("http:", "https:")
        assert error_of(client, url) == (
            f"GET {url}: the file that REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names {words}"
        )


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:password@host:1/a/b?c=d#e", "https://host:1/a/b"),
        ("http://a@b@host/", "http://host/"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
        ("http://[", "(not a URL)"),
        ("http://host/\x1b[2Jx", "http://host/?[2Jx"),
        (f"http://host/{'x' * 1000}", f"http://host/{'x' * 488}"),
    ],
)
def test_a_url_is_shown_without_secrets(url: str, shown: str) -> None:
    assert http.shown_url(url) == shown


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        (" 17 ", 17),
        ("3601", 3600),
        ("9" * 400, 3600),
        ("", 0),
        ("-1", 0),
        ("1.5", 0),
        ("²", 0),
        ("Fri, 15 Jan 2027 08:01:00 GMT", 60),
        ("Friday, 15-Jan-27 08:01:00 GMT", 60),
        ("Fri, 15 Jan 2027 08:01:00 -0000", 60),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0),
        ("Fri, 15 Jan 2099 07:00:00 GMT", 3600),
        ("Fri, 99 Jan 2027 07:00:00 GMT", 0),
        ("Fri, 15 Jan 99999999 07:00:00 GMT", 0),
    ],
)
def test_retry_after_is_understood_in_both_forms(value: str, seconds: float) -> None:
    assert http.retry_after(value, NOW) == seconds


@given(st.text(max_size=40))
def test_retry_after_can_be_anything(value: str) -> None:
    assert 0 <= http.retry_after(value, NOW) <= LONGEST_RETRY_AFTER


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"a": "1", "b": ["x"]}, None),
        ({"a": "", "b": ["x"]}, "a is not set in [cfn]: not configured"),
        ({"b": []}, "a, b are not set in [cfn]: not configured"),
    ],
)
def test_an_option_that_is_not_set_or_empty(options: dict[str, object], text: str | None) -> None:
    snapshot = http.not_configured("cfn", options, ("a", "b"))
    assert (snapshot and (snapshot.error, snapshot.absent)) == (text and (text, True))
