"""The zaqar source against a server that misbehaves: told clearly, soon over, and then forgotten.

The server is the tests' own. A real Zaqar cannot be made to answer nonsense, to drip, to refuse a token that
it has accepted, or to push a message before it lists it. What a real one can be made to show,
tests/e2e/test_zaqar.py does.
"""

import json
import struct
import time
from typing import Any

import pytest

from refresh_agent.collectors.zaqar import SMALLEST_PAGE
from refresh_agent.collectors.zaqar_messages import MOST_PAGES
from refresh_agent.collectors.zaqar_websocket import PATIENCE
from tests.integration import bad_server as bad
from tests.integration.bad_zaqar import CLOSE, PING, QUEUE, Peer, frame
from tests.integration.bad_zaqar import pushed as push_frame
from tests.integration.zaqars import TIMEOUT, UNCHANGED, Zaqars, assert_fault, content, readable, take
from tests.unit.support import open_descriptors

# --- over HTTP ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (bad.silence, "timed out: no answer for 0.2 s"),
        (bad.slow_headers, "timed out: not complete after 1.2 s"),
        (bad.slow_body, "timed out: not complete after 1.2 s"),
        (bad.reset, "the server reset the connection"),
        (bad.not_http, "the answer is not HTTP"),
        (
            bad.huge(SMALLEST_PAGE + 2**21),
            f"larger than [limits] metadata_bytes ({SMALLEST_PAGE} bytes) allows",
        ),
        (bad.html, "answers with HTML or XML, not JSON"),
        (bad.good(b'{"messages": [{"id": "1", "bo'), "the answer is not a JSON object, as Zaqar's are"),
        (bad.good(b"[" * 10**6), "the answer is not a JSON object, as Zaqar's are"),
        (bad.good(b"{}"), "the answer holds no list of messages"),
        (bad.good(b'{"messages": [{"body": {}}]}'), "the answer holds a message without a proper id"),
        (bad.status(403), "answers 403 (forbidden): check user_id, password and project_id in [zaqar]"),
        (bad.status(503, "7"), "asks to be left alone for a while"),
    ],
)
def test_a_fault_is_told_and_then_forgotten(zaqars: Zaqars, behaviour: bad.Behaviour, words: str) -> None:
    good = zaqars.server.behaviours[QUEUE]
    zaqars.queue.messages = [("1", {"a": 1})]
    with zaqars.collector() as zaqar:
        zaqars.server.behaviours[QUEUE] = behaviour
        assert_fault(zaqar, words)
        zaqar.stored()
        zaqars.server.behaviours[QUEUE] = good
        assert content(take(zaqar)) == {"a": 1}
        assert zaqars.queue.messages == []


def test_a_token_that_ends_between_two_pages_is_replaced(zaqars: Zaqars) -> None:
    zaqars.queue.messages = [(str(number), {"number": number}) for number in range(25)]

    def first_page(handler: bad.Handler) -> None:
        zaqars.queue.over_http(handler)
        zaqars.queue.revoked.add("token-1")

    zaqars.server.behaviours[QUEUE] = bad.in_turn(first_page, zaqars.queue.over_http)
    with zaqars.collector() as zaqar:
        assert content(take(zaqar)) == {"number": 24}
        assert zaqars.queue.messages == []
        assert zaqars.keystone.logins == 2


def test_a_token_that_ends_before_the_delete_is_replaced(zaqars: Zaqars) -> None:
    zaqars.queue.messages = [("1", {"a": 1})]
    with zaqars.collector() as zaqar:
        assert content(zaqar.collect()) == {"a": 1}
        zaqars.queue.revoked.add("token-1")
        zaqar.stored()
        assert zaqars.queue.messages == []


def test_a_delete_is_not_sent_elsewhere(zaqars: Zaqars, caplog: pytest.LogCaptureFixture) -> None:
    """It carries the token."""
    zaqars.queue.messages = [("1", {"a": 1})]
    with zaqars.collector() as zaqar:
        zaqar.collect()
        zaqars.server.behaviours[QUEUE] = bad.redirect(f"{zaqars.server.url}/elsewhere", 307)
        zaqar.stored()
    assert "answers 307 (temporary redirect): not expected; messages that were read stay" in caplog.text
    assert "/elsewhere" not in [seen.path for seen in zaqars.server.seen]


def test_pages_without_end_are_given_up(zaqars: Zaqars) -> None:
    def page(handler: bad.Handler) -> None:
        name = str(len(zaqars.server.seen))
        answer = {
            "messages": [{"id": name, "body": {"n": name}}],
            "links": [{"rel": "next", "href": "?marker=1"}],
        }
        handler.give(json.dumps(answer).encode())

    zaqars.server.behaviours[QUEUE] = page
    with zaqars.collector() as zaqar:
        assert content(zaqar.collect()) == {"n": zaqar._history[-1]}
        assert len(zaqar._history) == MOST_PAGES


# --- the handshake of a websocket --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (bad.silence, "timed out: no answer for 0.2 s"),
        (bad.slow_headers, "timed out"),
        (bad.closed, "the server closed the connection"),
        (bad.not_http, "does not answer as Zaqar does over a websocket"),
        (bad.html, "answers 200 (ok): not expected"),
        (bad.status(404), "answers 404 (not found)"),
        (bad.status(503), "answers 503 (service unavailable): the server is busy or being maintained"),
        (bad.redirect("ws://127.0.0.1:1/"), "does not answer as Zaqar does over a websocket"),
        (bad.good(b"", 101, Upgrade="websocket", Connection="Upgrade"), "does not answer as Zaqar does"),
        (bad.huge(SMALLEST_PAGE + 2**21), "the answer is larger than [limits] metadata_bytes"),
    ],
)
def test_a_handshake_that_fails_is_told_and_tried_again(
    zaqars: Zaqars, behaviour: bad.Behaviour, words: str
) -> None:
    good = zaqars.server.behaviours["/ws"]
    zaqars.queue.messages = [("1", {"a": 1})]
    with zaqars.collector(use_websockets=True) as zaqar:
        zaqars.server.behaviours["/ws"] = behaviour
        assert_fault(zaqar, words)
        assert zaqar.fileno() == -1
        zaqar.stored()
        zaqars.server.behaviours["/ws"] = good
        assert content(take(zaqar)) == {"a": 1}
        assert zaqars.queue.messages == []


def test_a_token_that_is_refused_is_replaced(zaqars: Zaqars) -> None:
    zaqars.queue.revoked.add("token-1")
    with zaqars.collector(use_websockets=True) as zaqar:
        assert take(zaqar) == UNCHANGED
        assert zaqars.keystone.logins == 2
        assert [len(zaqars.queue.peers), zaqars.queue.actions.count("authenticate")] == [2, 2]


def test_who_is_refused_with_every_token_is_told_what_to_check(zaqars: Zaqars) -> None:
    zaqars.queue.revoked |= {f"token-{number}" for number in range(10)}
    with zaqars.collector(use_websockets=True) as zaqar:
        assert_fault(zaqar, "authenticate at ws://127.0.0.1:")
        assert_fault(zaqar, "401 (unauthorized): check user_id, password and project_id in [zaqar]")


# --- what a websocket brings -------------------------------------------------------------------------------


def drip(peer: Peer, _request: Any) -> None:
    peer.write(b"\x81\x7d")
    for _ in range(600):
        peer.write(b" ")
        if peer.handler.server.stopping.wait(0.05):
            return


def flood(piece: bytes) -> Any:
    def react(peer: Peer, _request: Any) -> None:
        while not peer.handler.server.stopping.wait(0.005):
            peer.write(piece)

    return react


def oversized(peer: Peer, _request: Any) -> None:
    size = SMALLEST_PAGE + 2**21
    peer.write(b"\x81\x7f" + struct.pack("!Q", size))
    for _ in range(0, size, 2**16):
        peer.write(b" " * 2**16)


def in_endless_pieces(peer: Peer, _request: Any) -> None:
    peer.write(b"\x01\x01 ")
    while not peer.handler.server.stopping.is_set():
        peer.write((b"\x00\x7e\xff\xff" + b" " * 0xFFFF) * 16)


def silent(peer: Peer, _request: Any) -> None:
    peer.handler.server.stopping.wait(30)


def hang_up(peer: Peer, _request: Any) -> None:
    peer.write(frame(struct.pack("!H", 4003) + b"Authentication expired.", CLOSE))
    raise ConnectionResetError


def abort(peer: Peer, _request: Any) -> None:
    peer.write(b"\x81\x7d  ")
    bad._abort(peer.handler)
    raise ConnectionResetError


def sends(data: bytes) -> Any:
    return lambda peer, _request: peer.write(data)


FAULTS = [
    (silent, "timed out: no answer for 0.2 s"),
    (drip, "timed out"),
    (flood(frame(b"", PING)), "timed out"),
    (flood(push_frame({"a": 1})), "timed out"),
    (oversized, f"the answer is larger than [limits] metadata_bytes ({SMALLEST_PAGE} bytes) allows"),
    (in_endless_pieces, "the answer is larger than"),
    (hang_up, "the server closed the connection"),
    (abort, "the server reset the connection"),
    (sends(b"\xf1\x00"), "does not answer as Zaqar does over a websocket"),
    (sends(b"\x80\x01 "), "does not answer as Zaqar does over a websocket"),
    (sends(frame(b"x" * 126, PING)), "does not answer as Zaqar does over a websocket"),
    (sends(frame(b"no JSON")), "the answer is not a JSON object, as Zaqar's are"),
    (sends(frame(b"\xff\xfe")), "the answer is not a JSON object, as Zaqar's are"),
    (sends(frame(b'["a list"]')), "the answer is not a JSON object, as Zaqar's are"),
    (sends(frame(b"[" * 10**6)), "the answer is not a JSON object, as Zaqar's are"),
    (sends(frame(b'{"request": {}}')), "the answer has no status, as Zaqar's have"),
    (sends(frame(b'{"request": {}, "headers": []}')), "the answer has no status, as Zaqar's have"),
    (sends(frame(b'{"request": {}, "headers": {"status": 1e999}}')), "the answer has no status"),
    (
        sends(frame(b'{"request": {}, "headers": {"status": 200}, "body": "x"}')),
        "the answer holds no list of messages",
    ),
    (
        sends(frame(b'{"request": {}, "headers": {"status": 500}, "body": "Traceback"}')),
        "answers 500 (internal server error): the server failed",
    ),
]
NAMES = ["silent", "drip", "pings", "pushes", "oversized", "pieces", "hang-up", "abort"]
every_fault = pytest.mark.parametrize(
    ("fault", "words"), FAULTS, ids=NAMES + [str(number) for number in range(len(FAULTS) - len(NAMES))]
)


@every_fault
def test_a_fault_over_a_websocket_is_told_and_then_forgotten(zaqars: Zaqars, fault: Any, words: str) -> None:
    zaqars.queue.messages = [("1", {"a": 1})]
    with zaqars.collector(use_websockets=True) as zaqar:
        zaqars.queue.reactions["message_list"] = fault
        before = open_descriptors()
        assert_fault(zaqar, words)
        assert zaqar.fileno() == -1
        zaqar.stored()
        zaqars.queue.reactions.clear()
        assert content(take(zaqar)) == {"a": 1}
        assert zaqars.queue.messages == []
        zaqar.close()
        assert open_descriptors() <= before + 4


@pytest.mark.parametrize("fault", [silent, hang_up, abort, sends(b"\xf1\x00"), sends(frame(b"no JSON"))])
def test_a_connection_that_goes_bad_is_replaced_at_once(zaqars: Zaqars, fault: Any) -> None:
    with zaqars.collector(use_websockets=True) as zaqar:
        assert take(zaqar) == UNCHANGED

        def once(peer: Peer, request: Any) -> None:
            zaqars.queue.reactions.clear()
            fault(peer, request)

        zaqars.queue.reactions["message_list"] = once
        zaqars.queue.messages = [("1", {"a": 1})]
        assert content(take(zaqar)) == {"a": 1}
        assert len(zaqars.queue.peers) == 2


def test_an_end_of_the_token_wakes_and_is_no_fault(zaqars: Zaqars) -> None:
    with zaqars.collector(use_websockets=True) as zaqar:
        assert take(zaqar) == UNCHANGED
        assert not readable(zaqar)
        zaqars.queue.revoked.add("token-1")
        zaqars.queue.peers[0].write(frame(struct.pack("!H", 4003) + b"Authentication expired.", CLOSE))
        assert readable(zaqar, 5)
        assert take(zaqar) == UNCHANGED
        assert zaqars.keystone.logins == 2
        assert not readable(zaqar)


def test_a_server_that_closes_every_connection_is_left_alone_until_the_next_poll(zaqars: Zaqars) -> None:
    def list_and_close(peer: Peer, request: Any) -> None:
        zaqars.queue.react(peer, request)
        hang_up(peer, request)

    zaqars.queue.reactions["message_list"] = list_and_close
    with zaqars.collector(use_websockets=True) as zaqar:
        for _ in range(2):
            assert take(zaqar) == UNCHANGED
            assert readable(zaqar, 5)
        for _ in range(2):
            assert take(zaqar) == UNCHANGED
            assert zaqar.fileno() == -1
        zaqars.queue.reactions.clear()
        for waited_for in (False, True):
            assert take(zaqar) == UNCHANGED
            assert (zaqar.fileno() >= 0) is waited_for


def test_a_ping_is_answered_and_brings_nothing(zaqars: Zaqars) -> None:
    with zaqars.collector(use_websockets=True) as zaqar:
        assert take(zaqar) == UNCHANGED
        zaqars.queue.peers[0].write(frame(b"are you there?", PING))
        assert readable(zaqar, 5)
        begun = time.monotonic()
        assert take(zaqar) == UNCHANGED
        assert time.monotonic() - begun < TIMEOUT
        assert len(zaqars.queue.peers) == 1


def test_what_is_pushed_before_it_is_listed_is_waited_for(zaqars: Zaqars) -> None:
    """Zaqar notifies subscribers while it is still storing the message."""
    lists: list[int] = []

    def react(peer: Peer, request: Any) -> None:
        lists.append(1)
        if len(lists) == 3:
            zaqars.queue.messages.append(("2", {"a": 2}))
        zaqars.queue.react(peer, request)

    with zaqars.collector(use_websockets=True) as zaqar:
        zaqars.queue.messages = [("1", {"a": 1})]
        assert content(zaqar.collect()) == {"a": 1}
        zaqars.queue.reactions["message_list"] = react
        zaqars.queue.peers[0].push({"a": 2})
        assert readable(zaqar, 5)
        assert content(take(zaqar)) == {"a": 2}
        assert len(lists) == 3
        assert zaqars.queue.messages == []


def test_what_is_pushed_and_never_listed_is_not_waited_for_for_ever(zaqars: Zaqars) -> None:
    """Another client has taken it, or Zaqar could not store it."""
    with zaqars.collector(use_websockets=True) as zaqar:
        take(zaqar)
        zaqars.queue.peers[0].push({"a": 2})
        assert readable(zaqar, 5)
        begun = time.monotonic()
        assert take(zaqar) == UNCHANGED
        assert time.monotonic() - begun < sum(PATIENCE) + 1
        assert not readable(zaqar)
        zaqars.queue.actions.clear()
        assert take(zaqar) == UNCHANGED
        assert zaqars.queue.actions == ["message_list"]


def test_what_was_listed_before_its_push_came_is_not_waited_for(zaqars: Zaqars) -> None:
    zaqars.queue.messages = [("1", {"a": 1, "b": [2]})]
    with zaqars.collector(use_websockets=True) as zaqar:
        assert content(take(zaqar)) == {"a": 1, "b": [2]}
        zaqars.queue.peers[0].push({"b": [2], "a": 1})
        assert readable(zaqar, 5)
        zaqars.queue.actions.clear()
        assert take(zaqar) == UNCHANGED
        assert zaqars.queue.actions == ["message_list"]


def test_pages_that_no_marker_leads_to_come_once_those_before_are_deleted(zaqars: Zaqars) -> None:
    """As with MongoDB, whose markers Zaqar does not tell over a websocket."""

    def react(peer: Peer, request: Any) -> None:
        if "marker" in request["body"]:
            peer.answer(request, {"messages": []})
        else:
            zaqars.queue.react(peer, request)

    zaqars.queue.reactions["message_list"] = react
    zaqars.queue.messages = [(str(number), {"number": number}) for number in range(25)]
    with zaqars.collector(use_websockets=True) as zaqar:
        for number in (9, 19, 24):
            assert content(take(zaqar)) == {"number": number}
            assert readable(zaqar) is (number < 24)
        assert zaqars.queue.messages == []


def test_a_page_that_is_repeated_for_ever_does_not_wake_for_ever(zaqars: Zaqars) -> None:
    zaqars.queue.messages = [(str(number), {"number": number}) for number in range(10)]
    page = [{"id": name, "body": body} for name, body in zaqars.queue.messages]
    zaqars.queue.reactions["message_list"] = lambda peer, request: peer.answer(request, {"messages": page})
    with zaqars.collector(use_websockets=True) as zaqar:
        assert content(take(zaqar)) == {"number": 9}
        assert zaqars.queue.actions.count("message_list") == 2
        assert readable(zaqar)
        assert take(zaqar) == UNCHANGED
        assert not readable(zaqar)
