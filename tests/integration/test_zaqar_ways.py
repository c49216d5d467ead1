"""How the zaqar source gets to its server: TLS, Keystone's catalog, proxies.

The server is the tests' own: that of the e2e tests speaks neither TLS nor through proxies.
"""

import pathlib
import select
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration import bad_server as bad
from tests.integration.bad_zaqar import CLOSE, Peer, answer, frame, serving
from tests.integration.bad_zaqar import pushed as push_frame
from tests.integration.zaqars import (
    TIMEOUT,
    UNCHANGED,
    Zaqars,
    assert_fault,
    content,
    readable,
    take,
)

# --- TLS ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> bad.Certificate:
    return bad.self_signed(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def protected(no_proxy: None, certificate: bad.Certificate) -> Iterator[Zaqars]:
    with serving(certificate) as (queue, keystone):
        yield Zaqars(queue, keystone)


def lead_to(zaqars: Zaqars, url: str) -> None:
    """Make this the URL of everything in Keystone's catalog."""
    endpoint = zaqars.keystone.endpoint
    zaqars.keystone.endpoint = lambda _where, region: endpoint(url, region)  # type: ignore[method-assign, assignment]


def trusting(certificate: bad.Certificate) -> dict[str, Any]:
    return {"use_websockets": True, "ca_file": str(certificate.path)}


@pytest.mark.parametrize("options", [{}, {"ssl_certificate_validation": True}])
def test_a_websocket_whose_certificate_nobody_vouches_for_is_refused(
    zaqars: Zaqars, protected: Zaqars, options: dict[str, Any]
) -> None:
    lead_to(zaqars, protected.server.url.replace("https", "wss") + "/ws")
    with zaqars.collector(use_websockets=True, **options) as zaqar:
        assert_fault(
            zaqar, "the server's certificate is refused (self-signed certificate): if it is to be trusted, "
        )
    assert protected.queue.peers == []


@pytest.mark.parametrize("options", [{"ssl_certificate_validation": False}, {"insecure": True}])
def test_who_says_no_goes_without(protected: Zaqars, options: dict[str, Any]) -> None:
    protected.queue.messages = [("1", {"a": 1})]
    with protected.collector(use_websockets=True, **options) as zaqar:
        assert content(take(zaqar)) == {"a": 1}


def test_requests_bundle_of_authorities_counts_for_websockets_too(
    protected: Zaqars, certificate: bad.Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.path))
    with protected.collector(use_websockets=True) as zaqar:
        assert take(zaqar) == UNCHANGED


def test_what_tls_sends_of_its_own_accord_is_not_waited_for(
    protected: Zaqars, certificate: bad.Certificate
) -> None:
    """Tickets make the socket readable, and nothing can be read."""
    with protected.collector(**trusting(certificate)) as zaqar:
        assert take(zaqar) == UNCHANGED
        begun = time.monotonic()
        assert take(zaqar) == UNCHANGED
        assert time.monotonic() - begun < TIMEOUT
        assert len(protected.queue.peers) == 1


def test_a_push_that_tls_has_decrypted_already_wakes(protected: Zaqars, certificate: bad.Certificate) -> None:
    """It comes in one piece with the answer before it: the socket itself has nothing more to show."""

    def react(peer: Peer, request: Any) -> None:
        protected.queue.messages = [("2", {"a": 2})]
        peer.write(answer(request, {}, 204) + push_frame({"a": 2}))

    protected.queue.messages = [("1", {"a": 1})]
    protected.queue.reactions["message_delete_many"] = react
    with protected.collector(**trusting(certificate)) as zaqar:
        assert content(take(zaqar)) == {"a": 1}
        connection = zaqar._queue._connection  # type: ignore[union-attr]
        assert not select.select([connection.fileno()], [], [], 0.1)[0]
        assert readable(zaqar)
        protected.queue.reactions.clear()
        assert content(take(zaqar)) == {"a": 2}
        assert not readable(zaqar, 0.1)


def test_a_ca_file_that_is_missing_is_named(zaqars: Zaqars, tmp_path: pathlib.Path) -> None:
    url = zaqars.server.url.replace("http", "wss") + "/ws"
    lead_to(zaqars, url)
    with zaqars.collector(use_websockets=True, ca_file=f"{tmp_path}/none.pem") as zaqar:
        assert_fault(zaqar, f"{url}: [zaqar] ca_file: {tmp_path}/none.pem: does not exist")


def test_a_server_without_tls_is_told_from_one_with_it(zaqars: Zaqars) -> None:
    lead_to(zaqars, zaqars.server.url.replace("http", "wss") + "/ws")
    with zaqars.collector(use_websockets=True) as zaqar:
        assert_fault(zaqar, "the server does not speak TLS there")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1/ws", "the URL in Keystone's catalog has to begin with ws:// or wss://"),
        ("ws://127.0.0.1:port/ws", "is not a URL"),
        ("ws:///ws", "the URL in Keystone's catalog has to begin with ws:// or wss://"),
        ("ws://127.0.0.1:1/ws", "the connection is refused: nothing listens there"),
        ("ws://no-such-name.invalid/ws", "the name of the server is not known"),
    ],
)
def test_an_odd_catalog_is_told(zaqars: Zaqars, url: str, words: str) -> None:
    lead_to(zaqars, url)
    with zaqars.collector(use_websockets=True) as zaqar:
        assert_fault(zaqar, words)


# --- proxies -----------------------------------------------------------------------------------------------


def tunnel(handler: bad.Handler) -> None:
    """What comes next on this connection is for the server behind, which is this one."""
    handler.begin(200)
    handler.close_connection = False


def test_a_websocket_goes_through_the_proxy_that_the_environment_names(
    zaqars: Zaqars, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", zaqars.server.url.replace("//", "//user:proxy%20secret@"))
    zaqars.server.behave = tunnel
    zaqars.queue.messages = [("1", {"a": 1})]
    with zaqars.collector(use_websockets=True) as zaqar:
        assert content(take(zaqar)) == {"a": 1}
    through = [seen for seen in zaqars.server.seen if seen.method == "CONNECT"]
    assert [seen.headers.get("proxy-authorization") for seen in through] == ["Basic dXNlcjpwcm94eSBzZWNyZXQ="]


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("{}", "cannot be reached through the proxy that http_proxy names"),
        ("socks5://127.0.0.1:1", "websockets go through an http:// proxy only; name this server in no_proxy"),
    ],
)
def test_a_proxy_that_does_not_do_is_told(
    zaqars: Zaqars, monkeypatch: pytest.MonkeyPatch, proxy: str, words: str
) -> None:
    with zaqars.collector(use_websockets=True) as zaqar:
        assert take(zaqar) == UNCHANGED
        monkeypatch.setenv(
            "http_proxy", proxy.format(zaqars.server.url.replace("//", "//user:the%20password@"))
        )
        zaqars.server.behave = bad.status(407)
        zaqars.queue.peers[0].write(frame(struct.pack("!H", 1001), CLOSE))
        assert_fault(zaqar, words, exchanges=2)


def test_no_proxy_is_heeded(zaqars: Zaqars, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with zaqars.collector(use_websockets=True) as zaqar:
        assert take(zaqar) == UNCHANGED
