"""A resource's metadata from Heat, behind a Keystone of the tests."""

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresh_agent.collectors import heat
from refresh_agent.collectors.heat import Heat, build, unwrap
from refresh_agent.model import Document, Snapshot
from tests.integration import bad_server as bad
from tests.unit.support import LIMITS, json_objects, json_values

PATH = "/heat/v1/project-1/stacks/stack-1/uuid-1/resources/my%20server%2F/metadata"


@pytest.fixture
def keystone(server: bad.Listener) -> bad.FakeKeystone:
    return bad.FakeKeystone(server)


def collector(url: str, **more: Any) -> Heat:
    options = {
        "auth_url": url,
        "user_id": "user-1",
        "password": "the password",
        "project_id": "project-1",
        "stack_id": "stack-1/uuid-1",
        "resource_name": "my server/",
        "region_name": "",
        "timeout": 1.0,
        "deployment_key": ["deployments"],
    }
    return build(options | more, LIMITS)


def test_the_metadata_goes_out_as_it_came(server: bad.Listener, keystone: bad.FakeKeystone) -> None:
    server.behave = keystone.guarded(bad.good(b'{"metadata": {"b":[1 ,2]}}'))
    assert collector(server.url).collect() == Snapshot(
        "heat",
        (Document("heat", b'{"b":[1 ,2]}', origin=f"{server.url}{PATH}"),),
        deployment_keys=("deployments",),
    )
    assert server.seen[-1].path == PATH
    assert server.seen[-1].headers["Accept"] == "application/json"


def test_an_unchanged_poll_is_one_request(server: bad.Listener, keystone: bad.FakeKeystone) -> None:
    """os-collect-config defect 10: its token is never kept; every poll discovers and logs in anew."""
    server.behave = keystone.guarded(bad.good(b'{"metadata": {}}'))
    source = collector(server.url)
    assert source.collect().documents
    before = len(server.seen)
    for _ in range(5):
        assert source.collect().documents
    assert [seen.path for seen in server.seen[before:]] == [PATH] * 5
    assert len({seen.connection for seen in server.seen}) == 1
    assert keystone.logins == 1
    source.close()


def test_a_token_that_ended_before_its_time_is_renewed_without_a_word(
    server: bad.Listener, keystone: bad.FakeKeystone
) -> None:
    server.behave = keystone.guarded(bad.good(b'{"metadata": {}}'))
    source = collector(server.url)
    source.collect()
    keystone.revoked.add("token-1")
    assert source.collect().error == ""
    assert keystone.logins == 2


def test_a_resource_that_does_not_exist_is_named(server: bad.Listener, keystone: bad.FakeKeystone) -> None:
    server.behave = keystone.guarded(bad.status(404))
    assert collector(server.url).collect().error == (
        f"GET {server.url}{PATH}: answers 404 (not found): there is no resource 'my server/' in a stack "
        "'stack-1/uuid-1'; check [heat]"
    )


@pytest.mark.parametrize(
    ("body", "raw"),
    [
        (b'{"other": [], "metadata": {"a": 1}}', b'{\n "a": 1\n}'),
        (b'{"\\u006detadata": {"a": 1}}', b'{\n "a": 1\n}'),
    ],
)
def test_an_envelope_that_heat_would_not_write_is_read_all_the_same(
    server: bad.Listener, keystone: bad.FakeKeystone, body: bytes, raw: bytes
) -> None:
    server.behave = bad.good(body)
    (document,) = collector(server.url).collect().documents
    assert document.raw == raw


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[]", "is a JSON list, not an object"),
        (b'{"metadata": null}', "holds no object 'metadata'"),
        (b'{"metadata": []}', "holds no object 'metadata'"),
        (b"{}", "holds no object 'metadata'"),
        (b'{"metadata": {"a"', "is not JSON"),
        (b"", "is empty"),
    ],
)
def test_an_answer_without_metadata_is_told(
    server: bad.Listener, keystone: bad.FakeKeystone, body: bytes, words: str
) -> None:
    """os-collect-config defect 5: what is not an object ends it with a TypeError."""
    server.behave = bad.good(body)
    (document,) = collector(server.url).collect().documents
    assert document.raw is None
    assert document.error == f"GET {server.url}{PATH}: {words}" or words in document.error


@pytest.mark.parametrize(
    "option", ["auth_url", "password", "project_id", "user_id", "resource_name", "stack_id"]
)
@pytest.mark.parametrize("value", [None, ""])
def test_without_an_option_it_is_not_configured(option: str, value: str | None) -> None:
    snapshot = collector("http://127.0.0.1:1", **{option: value}).collect()
    assert (snapshot.error, snapshot.absent) == (f"{option} is not set in [heat]: not configured", True)


# --- the envelope ------------------------------------------------------------------------------------------

WHITE = st.text(" \t\r\n", max_size=3)


@given(json_objects(), st.tuples(WHITE, WHITE, WHITE, WHITE, WHITE, WHITE), st.booleans())
def test_the_envelope_is_cut_off_whatever_the_white_space(
    content: dict[str, Any], white: tuple[str, ...], indented: bool
) -> None:
    inner = json.dumps(content, indent=1 if indented else None)
    body = '{}{{{}"metadata"{}:{}INNER{}}}{}'.format(*white).replace("INNER", inner)
    buffer = io.BytesIO(body.encode())
    assert unwrap(buffer)
    assert buffer.getvalue() == inner.encode()


@given(
    st.dictionaries(st.sampled_from(["metadata", "other", "a"]), json_objects() | json_values(), max_size=3)
    | json_values()
)
def test_what_is_cut_is_never_taken_for_something_else(content: Any) -> None:
    """If what is left is JSON at all, the whole was JSON, and held just this."""
    buffer = io.BytesIO(json.dumps(content).encode())
    if unwrap(buffer):
        try:
            inner = json.loads(buffer.getvalue())
        except ValueError:
            assert len(content) > 1
        else:
            assert content == {"metadata": inner}


@given(st.text('{}[]":,\\ 1abmetd', max_size=30))
def test_not_even_of_what_is_no_json(rest: str) -> None:
    body = f'{{"metadata": {{{rest}}}}}'.encode()
    buffer = io.BytesIO(body)
    assert unwrap(buffer)
    try:
        inner = json.loads(buffer.getvalue())
    except ValueError:
        return
    assert json.loads(body) == {"metadata": inner}


def test_a_large_document_is_moved_whole() -> None:
    inner = json.dumps({str(n): "x" * 1000 for n in range(2000)}).encode()
    buffer = io.BytesIO(b'{"metadata": ' + inner + b"}")
    assert unwrap(buffer)
    assert buffer.getvalue() == inner
    assert heat.NAME == "heat"
