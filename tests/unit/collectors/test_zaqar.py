"""Which message of a queue is the state, and which nobody needs any more.

How Zaqar is asked: tests/e2e/test_zaqar.py, with a real one, and tests/integration/test_zaqar_faults.py.
"""

import json
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresh_agent.collectors.http import HttpError
from refresh_agent.collectors.http_faults import RefusedError
from refresh_agent.collectors.zaqar import RestQueue, Zaqar, build, next_marker
from refresh_agent.collectors.zaqar_messages import Message, Reading, messages_in, parse
from refresh_agent.collectors.zaqar_websocket import WebsocketQueue
from refresh_agent.model import MetadataLimits, Snapshot
from tests.unit.support import LIMITS

OPTIONS: dict[str, Any] = {
    "user_id": "u",
    "password": "a secret of the node",
    "project_id": "p",
    "auth_url": "http://127.0.0.1:1/v3",
    "queue_id": "q",
    "deployment_key": ("deployments",),
}


def messages(*bodies: Any) -> list[Message]:
    return [Message(f"m{number}", body) for number, body in enumerate(bodies, 1)]


def reading(*pages: Sequence[Message], done: Sequence[str] = ()) -> Reading:
    made = Reading(done, LIMITS)
    for page in pages:
        made.add(page)
    return made


def deep(levels: int) -> Any:
    body: Any = {}
    for _ in range(levels):
        body = {"a": body}
    return body


class Listed:
    """A queue in memory. ``fault`` is what Zaqar answers to everything, if it is set."""

    def __init__(self, *bodies: Any) -> None:
        self.messages = messages(*bodies)
        self.fault = self.delete_fault = ""

    def post(self, name: str, body: Any) -> None:
        self.messages.append(Message(name, body))

    def read(self, reading: Reading) -> None:
        if self.fault:
            raise HttpError(self.fault, 503, 7.0)
        reading.add(self.messages)

    def delete(self, ids: Sequence[str]) -> None:
        if self.delete_fault:
            raise HttpError(self.delete_fault, 503)
        self.messages = [message for message in self.messages if message.id not in ids]

    def fileno(self) -> int:
        return 17

    def close(self) -> None:
        pass

    @property
    def ids(self) -> list[str]:
        return [message.id for message in self.messages]


def collector(queue: Listed) -> Zaqar:
    return Zaqar(OPTIONS, LIMITS, lambda: queue)


def content(snapshot: Snapshot) -> Any:
    (document,) = snapshot.documents
    return None if document.raw is None else json.loads(document.raw)


# --- which message is the state ----------------------------------------------------------------------------


def test_the_newest_message_is_the_state_and_all_up_to_it_are_history() -> None:
    found = reading(messages({"a": 1}, {"a": 2}, {"a": 3}))
    assert found.raw == b'{"a":3}'
    assert found.history == ("m1", "m2", "m3")
    assert found.problem == ""


def test_the_newest_message_may_be_on_any_page() -> None:
    all_of_them = messages(*({"a": number} for number in range(25)))
    found = reading(all_of_them[:10], all_of_them[10:20], all_of_them[20:])
    assert found.raw == b'{"a":24}'
    assert found.history == tuple(message.id for message in all_of_them)


def test_a_page_that_comes_twice_changes_nothing() -> None:
    page = messages({"a": 1}, {"a": 2})
    found = reading(page, page)
    assert found.raw == b'{"a":2}'
    assert found.listed == found.history == ("m1", "m2")


def test_an_empty_queue_holds_nothing() -> None:
    found = reading([])
    assert (found.raw, found.problem, found.history) == (None, "", ())


def test_what_is_durable_already_is_history_with_all_before_it() -> None:
    found = reading(messages({"a": 1}, {"a": 2}), done=["m2"])
    assert found.raw is None
    assert found.history == ("m1", "m2")


def test_what_is_newer_than_the_durable_is_the_state() -> None:
    found = reading(messages({"a": 1}, {"a": 2}), messages({}, {}, {"a": 3}), done=["m2"])
    assert found.raw == b'{"a":3}'
    assert found.history == ("m1", "m2", "m3")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ([1], "is a JSON list, not an object"),
        ("text", "is a JSON string, not an object"),
        (None, "is a JSON null, not an object"),
        (deep(100), "nests deeper than [limits] metadata_depth (64)"),
        (deep(100_000), "nests deeper than [limits] metadata_depth (64)"),
        ({"a": "x" * 2**20}, "is larger than [limits] metadata_bytes (1048576 bytes)"),
    ],
)
def test_what_cannot_be_metadata_supersedes_nothing(body: Any, reason: str) -> None:
    found = reading(messages({"a": 1}, body))
    assert found.raw == b'{"a":1}'
    assert found.history == ("m1",)
    alone = reading(messages(body))
    assert (alone.raw, alone.history) == (None, ())
    assert alone.problem == f"message m1 {reason}"


def test_what_cannot_be_metadata_goes_with_the_next_good_message() -> None:
    assert reading(messages([1], {"a": 1})).history == ("m1", "m2")


def test_of_several_that_cannot_be_metadata_the_newest_is_told() -> None:
    found = reading(messages({"a": 1}, "x"), [Message("m3", [1]), Message("m4", 2)], done=["m1"])
    assert found.problem == "message m4 is a JSON number, not an object"
    assert found.history == ("m1",)


BODIES: st.SearchStrategy[Any] = st.sampled_from([{"a": 1}, {"b": 2}, [], "text", None])


@given(st.lists(BODIES, max_size=12), st.integers(1, 5), st.integers(0, 12))
def test_how_it_is_cut_into_pages_makes_no_difference(bodies: list[Any], size: int, durable: int) -> None:
    page = messages(*bodies)
    done = [f"m{durable}"]
    pages = [page[start : start + size] for start in range(0, len(page), size)]
    one, many = reading(page, done=done), reading(*pages, done=done)
    assert (one.raw, one.history, one.listed) == (many.raw, many.history, many.listed)


@given(st.lists(BODIES, max_size=12), st.integers(0, 12))
def test_no_good_message_is_history_unless_one_after_it_is_given_or_durable(
    bodies: list[Any], durable: int
) -> None:
    durable = min(durable, len(bodies))
    found = reading(messages(*bodies), done=[f"m{durable}"])
    good = [number for number, body in enumerate(bodies, 1) if isinstance(body, dict)]
    if found.raw is not None:
        assert len(found.history) == good[-1] > durable
    else:
        assert all(number <= durable for number in good)
        assert len(found.history) == durable


# --- what becomes of it ------------------------------------------------------------------------------------


def test_nothing_is_deleted_before_it_is_durable() -> None:
    queue = Listed({"a": 1}, {"a": 2})
    first = collector(queue)
    assert content(first.collect()) == {"a": 2}
    assert queue.ids == ["m1", "m2"]
    # The agent dies here.
    second = collector(queue)
    assert content(second.collect()) == {"a": 2}
    second.stored()
    assert queue.ids == []
    assert second.collect() == Snapshot("zaqar", unchanged=True)


def test_what_comes_while_it_is_being_stored_is_not_deleted_unread() -> None:
    queue = Listed({"a": 1})
    zaqar = collector(queue)
    zaqar.collect()
    queue.post("m2", {"a": 2})
    zaqar.stored()
    assert queue.ids == ["m2"]
    assert content(zaqar.collect()) == {"a": 2}


def test_what_could_not_be_stored_is_given_again() -> None:
    queue = Listed({"a": 1})
    zaqar = collector(queue)
    assert content(zaqar.collect()) == content(zaqar.collect()) == {"a": 1}


def test_a_delete_that_fails_is_told_once_and_made_good_after_a_later_poll(
    caplog: pytest.LogCaptureFixture,
) -> None:
    queue = Listed({"a": 1})
    queue.delete_fault = "DELETE http://z/v2/queues/q/messages: answers 503"
    zaqar = collector(queue)
    zaqar.collect()
    for _ in range(3):
        zaqar.stored()
        assert zaqar.collect() == Snapshot("zaqar", unchanged=True)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.messages[0].startswith("source zaqar: DELETE http://z/v2/queues/q/messages: answers 503; ")
    queue.delete_fault = ""
    zaqar.stored()
    assert queue.ids == []


def test_a_message_behind_one_that_could_not_be_deleted_is_news() -> None:
    queue = Listed({"a": 1})
    queue.delete_fault = "down"
    zaqar = collector(queue)
    zaqar.collect()
    zaqar.stored()
    queue.post("m2", {"a": 2})
    assert content(zaqar.collect()) == {"a": 2}
    queue.delete_fault = ""
    zaqar.stored()
    assert queue.ids == []


def test_a_failure_is_reported_and_nothing_is_deleted_after_it() -> None:
    queue = Listed({"a": 1})
    zaqar = collector(queue)
    zaqar.collect()
    queue.fault = "GET http://z: answers 503"
    assert zaqar.collect() == Snapshot("zaqar", error="GET http://z: answers 503", retry_after=7.0)
    zaqar.stored()
    assert queue.ids == ["m1"]


def test_what_cannot_be_metadata_is_reported_and_stays() -> None:
    queue = Listed({"a": 1}, "text")
    zaqar = collector(queue)
    assert content(zaqar.collect()) == {"a": 1}
    zaqar.stored()
    for _ in range(2):
        snapshot = zaqar.collect()
        zaqar.stored()
        assert (snapshot.error, snapshot.documents[0].raw) == ("", None)
        assert snapshot.documents[0].error == (
            "queue q: message m2 is a JSON string, not an object; "
            "it is passed over, and can be deleted from the queue"
        )
    assert queue.ids == ["m2"]
    queue.post("m3", {"a": 3})
    assert content(zaqar.collect()) == {"a": 3}
    zaqar.stored()
    assert queue.ids == []


def test_deployment_keys_go_with_the_document() -> None:
    assert collector(Listed({})).collect().deployment_keys == ("deployments",)


# --- options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["user_id", "password", "project_id", "auth_url", "queue_id"])
def test_without_one_of_these_it_is_not_configured(missing: str) -> None:
    zaqar = build(OPTIONS | {missing: None}, LIMITS)
    snapshot = zaqar.collect()
    zaqar.stored()
    assert snapshot.absent
    assert snapshot.error == f"{missing} is not set in [zaqar]: not configured"
    assert zaqar.fileno() == -1
    zaqar.close()


@pytest.mark.parametrize(
    ("options", "verify"),
    [
        ({}, True),
        ({"ssl_certificate_validation": None}, True),
        ({"ssl_certificate_validation": True}, True),
        ({"ca_file": "/ca.pem"}, "/ca.pem"),
        ({"ssl_certificate_validation": True, "ca_file": "/ca.pem"}, "/ca.pem"),
        ({"ssl_certificate_validation": False}, False),
        ({"insecure": True}, False),
    ],
)
def test_certificates_are_checked_unless_the_operator_says_no(
    options: dict[str, Any], verify: bool | str
) -> None:
    """os-collect-config checks none unless it is told to."""
    zaqar = build(OPTIONS | options, LIMITS)
    queue = zaqar._queue
    assert isinstance(queue, RestQueue)
    assert queue._client.verify == verify
    zaqar.close()


def test_websockets_are_used_if_the_operator_says_so() -> None:
    zaqar = build(OPTIONS | {"use_websockets": True}, LIMITS)
    assert isinstance(zaqar._queue, WebsocketQueue)
    assert zaqar.fileno() == -1
    zaqar.close()


@pytest.mark.parametrize(("limit", "page"), [(2**10, 2**24), (2**30, 2**30)])
def test_an_answer_may_hold_a_page_of_messages_however_small_a_document_is_to_be(
    limit: int, page: int
) -> None:
    zaqar = build(OPTIONS | {"use_websockets": True}, MetadataLimits(limit, 64))
    assert isinstance(zaqar._queue, WebsocketQueue)
    assert zaqar._queue._limit == page
    zaqar.close()


# --- answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("links", "marker"),
    [
        ([{"rel": "next", "href": "/v2/queues/q/messages?marker=17&echo=true"}], "17"),
        ([{"rel": "next", "href": "http://elsewhere/?marker=a%2Fb"}], "a/b"),
        ([{"rel": "self", "href": "?marker=1"}, {"rel": "next", "href": "?marker=2"}], "2"),
        ([], ""),
        (None, ""),
        ({"next": 1}, ""),
        (["next"], ""),
        ([{"rel": "next"}], ""),
        ([{"rel": "next", "href": ["x"]}], ""),
        ([{"rel": "next", "href": "http://[x?marker=2"}], ""),
    ],
)
def test_where_the_next_page_begins(links: Any, marker: str) -> None:
    assert next_marker({"links": links}) == marker


def test_messages_are_taken_from_an_answer() -> None:
    answer = {"messages": [{"id": "1", "body": {"a": 1}, "ttl": 60}, {"id": "2"}]}
    assert messages_in(answer) == [Message("1", {"a": 1}), Message("2", None)]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "the answer holds no list of messages"),
        ([], "the answer holds no list of messages"),
        ({}, "the answer holds no list of messages"),
        ({"messages": {}}, "the answer holds no list of messages"),
        ({"messages": ["x"]}, "the answer holds a message without a proper id"),
        ({"messages": [{"body": {}}]}, "the answer holds a message without a proper id"),
        ({"messages": [{"id": 7}]}, "the answer holds a message without a proper id"),
        ({"messages": [{"id": "a\nb"}]}, "the answer holds a message without a proper id"),
        ({"messages": [{"id": "\ud800"}]}, "the answer holds a message without a proper id"),
    ],
)
def test_an_answer_that_is_not_of_zaqar_is_refused(answer: Any, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        messages_in(answer)


@pytest.mark.parametrize("raw", [b"", b"x", b"[]", b"\xff", b"[" * 100_000, "7"])
def test_what_is_no_json_object_is_refused(raw: bytes | str) -> None:
    with pytest.raises(RefusedError, match="not a JSON object"):
        parse(raw)
