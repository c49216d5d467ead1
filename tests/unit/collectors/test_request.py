"""A document at a URL, asked for with conditions."""

from collections.abc import Iterator

import pytest

from refresh_agent.collectors.request import Request, build, conditions
from refresh_agent.model import Document, Snapshot
from tests.integration import bad_server as bad
from tests.unit.support import LIMITS

DATE = "Sat, 21 Nov 2026 13:00:00 GMT"


@pytest.fixture
def collector(server: bad.Listener) -> Iterator[Request]:
    made = build(
        {"metadata_url": f"{server.url}/o?temp_url_sig=x", "timeout": 1.0, "deployment_key": ["d"]}, LIMITS
    )
    yield made
    made.close()


def conditional(body: bytes, etag: str) -> bad.Behaviour:
    def behave(handler: bad.Handler) -> None:
        if handler.headers.get("If-None-Match") == etag:
            handler.give(b"", 304)
        else:
            handler.give(body, ETag=etag, Last_Modified=DATE)

    return behave


def test_the_document_goes_out_as_it_came(server: bad.Listener, collector: Request) -> None:
    server.behave = bad.good(b'{ "a":1 }\n')
    assert collector.collect() == Snapshot(
        "request",
        (Document("request", b'{ "a":1 }\n', origin=f"{server.url}/o"),),
        deployment_keys=("d",),
    )


def test_an_unchanged_document_costs_one_request_without_a_body(
    server: bad.Listener, collector: Request
) -> None:
    """os-collect-config defect 11: it forgets what it learnt, and so asks HEAD and GET every time."""
    server.behave = conditional(b"{}", '"1"')
    assert collector.collect().documents
    collector.stored()
    for _ in range(3):
        assert collector.collect() == Snapshot("request", unchanged=True)
        collector.stored()
    assert [seen.method for seen in server.seen] == ["GET"] * 4
    assert "If-Modified-Since" not in server.seen[-1].headers
    server.behave = conditional(b'{"a": 2}', '"2"')
    assert [document.raw for document in collector.collect().documents] == [b'{"a": 2}']
    collector.stored()
    assert collector.collect().unchanged


def test_what_was_not_stored_is_asked_for_again(server: bad.Listener, collector: Request) -> None:
    server.behave = conditional(b"{}", '"1"')
    collector.collect()
    assert collector.collect().documents


def test_a_page_for_people_is_not_remembered(server: bad.Listener, collector: Request) -> None:
    server.behave = conditional(b"<html>", '"1"')
    for _ in range(2):
        assert "HTML or XML, not JSON" in collector.collect().error
        collector.stored()


def test_a_server_without_validators_is_asked_for_everything(
    server: bad.Listener, collector: Request
) -> None:
    server.behave = bad.in_turn(conditional(b"{}", '"1"'), bad.good(b"{}"))
    collector.collect()
    collector.stored()
    assert collector.collect().documents
    collector.stored()
    collector.collect()
    assert "If-None-Match" not in server.seen[-1].headers


def test_without_a_url_it_is_not_configured() -> None:
    snapshot = build({"metadata_url": None, "timeout": 10.0, "deployment_key": []}, LIMITS).collect()
    assert (snapshot.error, snapshot.absent) == ("metadata_url is not set in [request]: not configured", True)


@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        ({"ETag": '"1"', "Last-Modified": DATE}, {"If-None-Match": '"1"'}),
        ({"Last-Modified": DATE, "Date": "Sat, 21 Nov 2026 13:01:00 GMT"}, {"If-Modified-Since": DATE}),
        ({"Last-Modified": DATE, "Date": "Sat, 21 Nov 2026 13:00:59 GMT"}, {}),
        ({"ETag": 'W/"1"', "Last-Modified": DATE, "Date": DATE}, {}),
        ({"ETag": 'W/"1"'}, {}),
        ({"Last-Modified": DATE}, {}),
        ({"Last-Modified": "yesterday", "Date": DATE}, {}),
        ({"Last-Modified": DATE, "Date": "Sat, 21 Nov 2026 13:02:00 -0000"}, {}),
        ({}, {}),
    ],
)
def test_a_change_within_the_same_second_is_not_missed(
    headers: dict[str, str], asked: dict[str, str]
) -> None:
    """A time of whole seconds tells nothing of what is changed again before the second is over."""
    assert conditions(headers) == asked
