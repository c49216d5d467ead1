"""The zaqar source on a real Zaqar: no message is lost, and a websocket needs no polling.

What goes wrong between the two is done by a relay, with the real ones at both ends.
"""

import contextlib
import json
import select
import socket
import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from refresh_agent.collectors import http
from refresh_agent.collectors.keystone import CREDENTIALS, Keystone, Login
from refresh_agent.collectors.zaqar import NAME, Zaqar, build
from refresh_agent.collectors.zaqar_websocket import RENEWAL, WebsocketQueue
from refresh_agent.model import MetadataLimits, Snapshot
from tests.e2e import settings
from tests.e2e.cloud import Cloud
from tests.e2e.identity import Token
from tests.waiting import eventually

LIMITS = MetadataLimits(bytes=2**20, depth=64)
UNCHANGED = Snapshot(NAME, unchanged=True)

both = pytest.mark.parametrize("websockets", [False, True], ids=["http", "websocket"])


class Mailbox(NamedTuple):
    """A queue of its own, as the tenant sees it; ``options`` are those of a node that reads it."""

    token: Token
    name: str
    options: dict[str, Any]

    def post(self, *bodies: Any) -> None:
        """As Heat does, but several at once."""
        messages = [{"body": body, "ttl": 3600} for body in bodies]
        self._call("POST", "messages", json={"messages": messages})

    def bodies(self) -> list[Any]:
        return [message["body"] for message in self._call("GET", "messages?echo=true")["messages"]]

    def ids(self) -> list[str]:
        return [message["id"] for message in self._call("GET", "messages?echo=true&limit=20")["messages"]]

    def claim(self) -> None:
        self._call("POST", "claims", json={"ttl": 300, "grace": 60})

    def subscriptions(self) -> list[Any]:
        return list(self._call("GET", "subscriptions")["subscriptions"])

    def _call(self, verb: str, path: str, **details: Any) -> Any:
        url = f"{self.token.catalog['messaging']}/v2/queues/{self.name}/{path}"
        headers = {"Client-ID": "7e6d5c4b-0000-4000-8000-000000000002"}
        answer = self.token.session.request(verb, url, headers=headers, timeout=30, **details)
        answer.raise_for_status()
        return answer.json()


@pytest.fixture(scope="module")
def tenant(cloud: Cloud) -> Token:
    cloud.zaqar()
    return cloud.tenant()


@pytest.fixture
def mailbox(cloud: Cloud, tenant: Token) -> Mailbox:
    own = {"X-Subject-Token": str(tenant.session.headers["X-Auth-Token"])}
    answer = tenant.session.get(f"{cloud.auth_url}/auth/tokens", headers=own, timeout=30)
    options = {
        "auth_url": cloud.auth_url,
        "user_id": answer.json()["token"]["user"]["id"],
        "password": settings.TENANT_PASSWORD,
        "project_id": tenant.project_id,
        "region_name": settings.REGION,
        "queue_id": f"queue-{uuid.uuid4()}",
        "deployment_key": ("deployments",),
        "timeout": 5,
    }
    return Mailbox(tenant, str(options["queue_id"]), options)


@contextlib.contextmanager
def collector(mailbox: Mailbox, **options: Any) -> Iterator[Zaqar]:
    zaqar = build(mailbox.options | options, LIMITS)
    try:
        yield zaqar
    finally:
        zaqar.close()


def content(snapshot: Snapshot) -> Any:
    assert snapshot.error == ""
    (document,) = snapshot.documents
    assert document.raw is not None, document.error
    return json.loads(document.raw)


def take(zaqar: Zaqar) -> Snapshot:
    """Collect, and store it."""
    snapshot = zaqar.collect()
    zaqar.stored()
    return snapshot


def readable(zaqar: Zaqar, seconds: float) -> bool:
    return bool(select.select([zaqar.fileno()], [], [], seconds)[0])


# --- nothing is lost ---------------------------------------------------------------------------------------


@both
def test_no_message_is_lost_when_the_agent_dies_before_it_is_stored(
    mailbox: Mailbox, websockets: bool
) -> None:
    """os-collect-config pops it."""
    mailbox.post({"a": 1}, {"a": 2})
    with collector(mailbox, use_websockets=websockets) as dying:
        first = dying.collect()
    with collector(mailbox, use_websockets=websockets) as next_one:
        again = next_one.collect()
        assert again == first
        assert content(again) == {"a": 2}
        next_one.stored()
        assert mailbox.bodies() == []
        assert next_one.collect() == UNCHANGED


@both
def test_what_comes_while_the_last_is_being_stored_stays_and_is_given_next(
    mailbox: Mailbox, websockets: bool
) -> None:
    mailbox.post({"a": 1})
    with collector(mailbox, use_websockets=websockets) as zaqar:
        assert content(zaqar.collect()) == {"a": 1}
        mailbox.post({"a": 2})
        zaqar.stored()
        assert mailbox.bodies() == [{"a": 2}]
        assert content(take(zaqar)) == {"a": 2}
        assert mailbox.bodies() == []


@both
def test_the_newest_of_many_is_given_and_all_are_deleted(mailbox: Mailbox, websockets: bool) -> None:
    for start in range(0, 25, 5):
        mailbox.post(*({"number": number} for number in range(start, start + 5)))
    with collector(mailbox, use_websockets=websockets) as zaqar:
        assert content(take(zaqar)) == {"number": 24}
        assert mailbox.bodies() == []
        assert take(zaqar) == UNCHANGED


@both
def test_what_cannot_be_metadata_is_passed_over_and_goes_with_the_next(
    mailbox: Mailbox, websockets: bool
) -> None:
    mailbox.post({"a": 1}, ["no", "metadata"])
    with collector(mailbox, use_websockets=websockets) as zaqar:
        assert content(take(zaqar)) == {"a": 1}
        snapshot = take(zaqar)
        assert "is a JSON list, not an object" in snapshot.documents[0].error
        assert take(zaqar) == snapshot
        assert mailbox.bodies() == [["no", "metadata"]]
        mailbox.post({"a": 2})
        assert content(take(zaqar)) == {"a": 2}
        assert mailbox.bodies() == []


@both
def test_messages_that_have_expired_do_not_hide_newer_ones(
    cloud: Cloud, mailbox: Mailbox, websockets: bool
) -> None:
    """Redis forgets them, and Zaqar keeps their places in the queue until somebody collects garbage."""
    mailbox.post(*({"number": number} for number in range(12)))
    old = mailbox.ids()
    mailbox.post({"number": 12})
    with socket.socket(socket.AF_UNIX) as redis:
        redis.connect(str(cloud.folder / "redis.sock"))
        redis.sendall(f"SELECT 0\r\nDEL {' '.join(old)}\r\n".encode())
        answered = b""
        while answered.count(b"\r\n") < 2:
            answered += redis.recv(100)
        assert answered == b"+OK\r\n:12\r\n"
    with collector(mailbox, use_websockets=websockets) as zaqar:
        assert content(take(zaqar)) == {"number": 12}


@both
def test_a_message_that_another_client_has_claimed_holds_nothing_up(
    mailbox: Mailbox, websockets: bool
) -> None:
    mailbox.post({"a": 1})
    mailbox.claim()
    mailbox.post({"a": 2})
    with collector(mailbox, use_websockets=websockets) as zaqar:
        assert content(take(zaqar)) == {"a": 2}
        assert take(zaqar) == UNCHANGED


def test_in_the_steady_state_a_poll_is_one_request(cloud: Cloud, mailbox: Mailbox) -> None:
    mailbox.post({"a": 1})
    with collector(mailbox) as zaqar:
        assert content(take(zaqar)) == {"a": 1}
        for proxy in cloud.proxies.values():
            proxy.clear()
        for _ in range(3):
            assert take(zaqar) == UNCHANGED
        path = f"GET /v2/queues/{mailbox.name}/messages"
        assert {
            name: dict(proxy.requests()) for name, proxy in cloud.proxies.items() if proxy.requests()
        } == {"zaqar": {path: 3}}
        assert cloud.proxies["zaqar"].connections()[path] == 1


@both
def test_a_wrong_password_is_told(mailbox: Mailbox, websockets: bool) -> None:
    with collector(mailbox, use_websockets=websockets, password="not the secret") as zaqar:
        error = zaqar.collect().error
        assert "401 (unauthorized): check user_id, password and project_id in [zaqar]" in error
        assert "not the secret" not in error


@both
def test_a_queue_that_does_not_exist_yet_is_empty(mailbox: Mailbox, websockets: bool) -> None:
    with collector(mailbox, use_websockets=websockets) as zaqar:
        assert take(zaqar) == UNCHANGED
        mailbox.post({"a": 1})
        assert content(take(zaqar)) == {"a": 1}


# --- pushed ------------------------------------------------------------------------------------------------


def test_what_is_posted_makes_the_source_readable_within_half_a_second(
    mailbox: Mailbox,
) -> None:
    heard, collected = [], []
    with collector(mailbox, use_websockets=True) as zaqar:
        take(zaqar)
        assert not readable(zaqar, 0.05)
        for number in range(20):
            begun = time.monotonic()
            mailbox.post({"number": number})
            assert readable(zaqar, 5)
            heard.append(time.monotonic() - begun)
            assert content(zaqar.collect()) == {"number": number}
            collected.append(time.monotonic() - begun)
            zaqar.stored()
    print(f"posted to readable: {statistics.median(heard):.4f} s, at most {max(heard):.4f} s")
    print(f"posted to collected: {statistics.median(collected):.4f} s, at most {max(collected):.4f} s")
    assert statistics.median(heard) < 0.5


def test_a_push_wakes_once(mailbox: Mailbox) -> None:
    with collector(mailbox, use_websockets=True) as zaqar:
        take(zaqar)
        mailbox.post({"a": 1})
        assert readable(zaqar, 5)
        assert content(take(zaqar)) == {"a": 1}
        assert not readable(zaqar, 0.2)
        assert take(zaqar) == UNCHANGED


def test_a_push_that_comes_while_the_last_is_being_deleted_wakes(mailbox: Mailbox) -> None:
    with collector(mailbox, use_websockets=True) as zaqar:
        take(zaqar)
        mailbox.post({"a": 1})
        assert readable(zaqar, 5)
        zaqar.collect()
        mailbox.post({"a": 2})
        assert readable(zaqar, 5)  # it has come, and is read with the answer to the next request
        zaqar.stored()
        assert readable(zaqar, 0)
        assert content(take(zaqar)) == {"a": 2}
        assert not readable(zaqar, 0.2)


def test_the_subscription_ends_with_the_connection(mailbox: Mailbox) -> None:
    with collector(mailbox, use_websockets=True) as zaqar:
        take(zaqar)
        assert len(mailbox.subscriptions()) == 1
    eventually(lambda: mailbox.subscriptions() == [])


# --- the connection ----------------------------------------------------------------------------------------


class Relay:
    """Passes bytes on to a server until told to ``stall`` (silently lose them) or to ``cut`` connections."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._upstream = (parts.hostname or "", parts.port or 0)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"{parts.scheme}://127.0.0.1:{self._listening.getsockname()[1]}"
        self.accepted = 0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._stalled: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def stall(self) -> None:
        """What the connections of now carry is lost from now on; neither side learns of it."""
        self._stalled.update(one for pair in self._pairs for one in pair)

    def cut(self) -> None:
        for pair in self._pairs:
            for one in pair:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listening.close()
        self.cut()
        for thread in self._threads[1:]:
            thread.join()
        for pair in self._pairs:
            for one in pair:
                one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(self._upstream)
                self._pairs.append((near, far))
                self.accepted += 1
                for source, target in ((near, far), (far, near)):
                    thread = threading.Thread(target=self._pass_on, args=(source, target))
                    self._threads.append(thread)
                    thread.start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(2**16):
                if source not in self._stalled:
                    target.sendall(piece)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


class Rerouted(Keystone):
    """The real one, but its catalog leads through a relay."""

    relay = ""

    def login(self, service_type: str) -> Login:
        return super().login(service_type)._replace(endpoint=self.relay)


class Relayed(NamedTuple):
    relay: Relay
    zaqar: Zaqar
    queue: WebsocketQueue


@pytest.fixture
def relayed(mailbox: Mailbox) -> Iterator[Relayed]:
    """A collector over a websocket whose every connection goes through the relay."""
    relay = Relay(mailbox.token.catalog["messaging-websocket"])
    options = mailbox.options | {"timeout": 0.5}
    client = http.Client(NAME, CREDENTIALS, options, LIMITS)
    keystone = Rerouted(client, options)
    keystone.relay = relay.url
    queue = WebsocketQueue(client, keystone, mailbox.name, LIMITS.bytes)
    zaqar = Zaqar(options, LIMITS, lambda: queue)
    assert take(zaqar) == UNCHANGED
    yield Relayed(relay, zaqar, queue)
    zaqar.close()
    relay.close()


def test_one_connection_is_kept(relayed: Relayed, mailbox: Mailbox) -> None:
    for number in range(3):
        mailbox.post({"number": number})
        assert content(take(relayed.zaqar)) == {"number": number}
    assert relayed.relay.accepted == 1


def test_a_connection_that_is_cut_wakes_and_is_replaced_at_once(relayed: Relayed, mailbox: Mailbox) -> None:
    relayed.relay.cut()
    assert readable(relayed.zaqar, 5)
    mailbox.post({"a": 1})
    assert content(take(relayed.zaqar)) == {"a": 1}
    mailbox.post({"a": 2})
    assert readable(relayed.zaqar, 5)
    assert content(take(relayed.zaqar)) == {"a": 2}
    assert relayed.relay.accepted == 2


def test_a_connection_that_is_dead_without_a_word_is_noticed_at_the_next_poll(
    relayed: Relayed, mailbox: Mailbox
) -> None:
    relayed.relay.stall()
    mailbox.post({"a": 1})
    assert not readable(relayed.zaqar, 0.2)
    begun = time.monotonic()
    assert content(take(relayed.zaqar)) == {"a": 1}
    assert 0.5 < time.monotonic() - begun < 3
    mailbox.post({"a": 2})
    assert readable(relayed.zaqar, 5)
    assert content(take(relayed.zaqar)) == {"a": 2}


def test_a_delete_that_fails_is_made_good_after_the_next_poll(
    relayed: Relayed, mailbox: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    mailbox.post({"a": 1})
    assert content(relayed.zaqar.collect()) == {"a": 1}
    relayed.relay.stall()
    relayed.zaqar.stored()
    assert "no answer for 0.5 s; messages that were read stay in the queue" in caplog.text
    assert mailbox.bodies() == [{"a": 1}]
    assert take(relayed.zaqar) == UNCHANGED
    assert mailbox.bodies() == []


def test_a_subscription_is_renewed_before_it_runs_out(relayed: Relayed, mailbox: Mailbox) -> None:
    relayed.queue._renewal -= RENEWAL
    assert take(relayed.zaqar) == UNCHANGED
    assert relayed.relay.accepted == 2
    eventually(lambda: len(mailbox.subscriptions()) == 1)
    mailbox.post({"a": 1})
    assert readable(relayed.zaqar, 5)


def test_a_server_that_is_down_is_told_and_found_when_it_is_back(relayed: Relayed, mailbox: Mailbox) -> None:
    address = urlsplit(relayed.relay.url)
    relayed.relay.close()
    snapshot = take(relayed.zaqar)
    assert snapshot.error == f"{relayed.relay.url}: the connection is refused: nothing listens there"
    assert relayed.zaqar.fileno() == -1
    mailbox.post({"a": 1})
    assert address.port
    back = Relay(mailbox.token.catalog["messaging-websocket"])
    keystone = relayed.queue._keystone
    assert isinstance(keystone, Rerouted)
    keystone.relay = back.url
    try:
        assert content(take(relayed.zaqar)) == {"a": 1}
    finally:
        relayed.zaqar.close()
        back.close()
