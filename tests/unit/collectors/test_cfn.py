"""Heat's CloudFormation API: what is asked, and what is made of the answer."""

import io
import json
import pathlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresh_agent.collectors import cfn
from refresh_agent.model import Document, Snapshot
from tests.integration import bad_server as bad
from tests.unit.support import LIMITS, json_objects

SIGNED = "onf8w2l0vnV194ba9v1uSpy4jkf1HBN/ydCZ6yQEvR8="
"""Of the request below, by the signer that os-collect-config uses."""


def collector(url: str | None, **more: Any) -> cfn.Cfn:
    options = {
        "metadata_url": url and f"{url}/v1/",
        "stack_name": "stack-1",
        "path": ["server.Metadata"],
        "access_key_id": "AKID",
        "secret_access_key": "s3cret",
        "timeout": 1.0,
        "deployment_key": ["deployments"],
    }
    return cfn.build(options | more, LIMITS)


def content_of(snapshot: Snapshot) -> Any:
    assert snapshot.error == ""
    return json.loads(snapshot.documents[0].raw or b"")


def test_a_request_is_signed_as_os_collect_config_does(server: bad.Listener) -> None:
    params = {
        "Action": "DescribeStackResource",
        "StackName": "a stack/é~1",
        "LogicalResourceId": "server",
        "AWSAccessKeyId": "AKID",
        "SignatureVersion": "2",
        "SignatureMethod": "HmacSHA256",
    }
    assert cfn.signature("s3cret", "http://127.0.0.1:8000/v1/", params) == SIGNED
    server.behave = bad.good(bad.cfn_answer("{}"))
    collector(server.url, stack_name="a stack/é~1").collect()
    (seen,) = server.seen
    expected = cfn.signature("s3cret", f"{server.url}/v1/", params)
    assert dict(seen.query) == {key: [value] for key, value in (params | {"Signature": expected}).items()}
    assert list(seen.query) == [*params, "Signature"]
    assert seen.path == "/v1/"
    assert seen.headers["Content-Type"] == "application/json"


def test_every_path_is_signed_afresh(server: bad.Listener) -> None:
    """os-collect-config defect 8: one signer for all paths, which adds the second request to the first."""
    server.behave = bad.good(bad.cfn_answer("{}"))
    collector(server.url, path=["a.Metadata", "b.Metadata", "a.Metadata"]).collect()
    first, second, third = ([value] for seen in server.seen for value in seen.query["Signature"])
    assert first == third != second
    collector(server.url, path=["b.Metadata"]).collect()
    assert server.seen[-1].query["Signature"] == second


def test_the_json_of_one_path_goes_out_as_it_came(server: bad.Listener) -> None:
    text = '{ "a": "é & <b> \\u00e9", "z":[1, 2] }'
    server.behave = bad.good(bad.cfn_answer(text))
    assert collector(server.url).collect() == Snapshot(
        "cfn",
        (Document("cfn", text.encode(), origin=f"GET {server.url}/v1/: server.Metadata"),),
        deployment_keys=("deployments",),
    )


def test_the_deployment_keys_are_the_global_ones(server: bad.Listener) -> None:
    """os-collect-config defect 9: its cfn looks at a deprecated option of its own instead."""
    server.behave = bad.good(bad.cfn_answer("{}"))
    snapshot = collector(server.url, deployment_key=("one", "two")).collect()
    assert snapshot.deployment_keys == ("one", "two")


def test_one_request_a_poll_on_a_kept_connection(server: bad.Listener) -> None:
    server.behave = bad.good(bad.cfn_answer("{}"))
    source = collector(server.url)
    for _ in range(4):
        source.collect()
    assert [seen.connection for seen in server.seen] == [1] * 4
    source.close()


def test_several_paths_are_merged_key_by_key_and_the_later_wins(server: bad.Listener) -> None:
    def behave(handler: bad.Handler) -> None:
        if "LogicalResourceId=one" in handler.path:
            handler.give(bad.cfn_answer('{"a": {"x": 1, "y": 1}, "b": 1}'))
        else:
            handler.give(bad.cfn_answer('{"a": {"x": 2}, "sub": {"deep": {"c": 3}}}'))

    server.behave = behave
    assert content_of(collector(server.url, path=["one.Metadata", "two.Metadata"]).collect()) == {
        "a": {"x": 2},
        "b": 1,
        "sub": {"deep": {"c": 3}},
    }
    assert content_of(collector(server.url, path=["one.Metadata", "two.Metadata.sub.deep"]).collect()) == {
        "a": {"x": 1, "y": 1},
        "b": 1,
        "c": 3,
    }
    assert content_of(collector(server.url, path=["two.Metadata.sub"]).collect()) == {"deep": {"c": 3}}


def test_another_field_can_be_asked_for(server: bad.Listener) -> None:
    server.behave = bad.good(bad.cfn_answer('{"a": 1}', "Outputs"))
    assert content_of(collector(server.url, path=["server.Outputs"]).collect()) == {"a": 1}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("server", "[cfn] path: 'server' is not RESOURCE.FIELD"),
        ("server.", "[cfn] path: 'server.' is not RESOURCE.FIELD"),
        (".Metadata", "is not RESOURCE.FIELD"),
        ("server.Metadata..a", "is not RESOURCE.FIELD"),
        ("server.Nothing", "the answer describes no resource with a field 'Nothing'"),
        ("server.Metadata.b", "server.Metadata.b: there is no key 'b'"),
        ("server.Metadata.l.0", "server.Metadata.l.0: there is no key '0'"),
        ("server.Metadata.l", "server.Metadata.l: is not a JSON object"),
        ("server.ResourceType.x", "server.ResourceType.x: is not JSON: Expecting value at line 1"),
    ],
)
def test_a_path_that_leads_nowhere_is_told(server: bad.Listener, path: str, words: str) -> None:
    """os-collect-config defect 5: it ends with an AttributeError at a field that is not there."""
    server.behave = bad.good(bad.cfn_answer('{"a": 1, "l": [{}]}'))
    snapshot = collector(server.url, path=[path]).collect()
    assert words in snapshot.error
    assert not snapshot.absent


def test_the_hint_of_heat_cfntools_stands_in_for_the_url(
    server: bad.Listener, tmp_path: pathlib.Path
) -> None:
    hint = tmp_path / "cfn-metadata-server"
    server.behave = bad.good(bad.cfn_answer("{}"))
    source = collector(None, heat_metadata_hint=str(hint))
    snapshot = source.collect()
    assert snapshot.absent
    assert snapshot.error == (
        f"metadata_url is not set in [cfn], and there is no {hint} (heat_metadata_hint): not configured"
    )
    hint.write_text(f"{server.url}\n")
    assert content_of(source.collect()) == {}
    assert server.seen[0].path == "/v1/"
    hint.write_bytes(b"\xff")
    assert source.collect().error == f"{hint} ([cfn] heat_metadata_hint): holds no URL"
    hint.unlink()
    hint.mkdir()
    assert source.collect().error == f"{hint} ([cfn] heat_metadata_hint): Is a directory"


@pytest.mark.parametrize("option", cfn.REQUIRED)
def test_without_an_option_it_is_not_configured(option: str) -> None:
    snapshot = collector("http://127.0.0.1:1", **{option: None}).collect()
    assert (snapshot.error, snapshot.absent) == (f"{option} is not set in [cfn]: not configured", True)


def test_without_any_url_it_is_not_configured() -> None:
    snapshot = collector(None).collect()
    assert (snapshot.error, snapshot.absent) == ("metadata_url is not set in [cfn]: not configured", True)


# --- the XML ---------------------------------------------------------------------------------------------


@given(json_objects(), st.sampled_from(["utf-8", "us-ascii"]))
def test_the_text_of_the_field_comes_out_whole(content: dict[str, Any], encoding: str) -> None:
    text = json.dumps(content, ensure_ascii=False)
    xml = bad.cfn_answer(text).decode().encode(encoding, "xmlcharrefreplace")
    assert json.loads(cfn.field_text(io.BytesIO(xml), "Metadata")) == content


def test_a_large_field_is_read_in_pieces() -> None:
    text = json.dumps({str(n): "é<&>" * 100 for n in range(3000)}, ensure_ascii=False)
    assert cfn.field_text(io.BytesIO(bad.cfn_answer(text)), "Metadata") == text.encode()


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        (b"", "is not XML: no element found"),
        (b"{}", "is not XML: not well-formed"),
        (bad.cfn_answer("{}")[:-5], "is not XML"),
        (b"<a/>", "describes no resource"),
        (b"<a>" * 100_000, "is not XML"),
        (bad.XML_WITH_ENTITIES, "has a DOCTYPE"),
        (b"<a>&lol;</a>", "is not XML: undefined entity"),
        (b'<?xml version="1.0" encoding="EBCDIC"?><a/>', "in an encoding that cannot be read"),
        (
            b'<?xml version="1.0" encoding="latin-1"?>' + bad.cfn_answer("X").replace(b"X", b"\xe9" * 10_000),
            "in another encoding than UTF-8",
        ),
    ],
)
def test_what_is_no_answer_is_told(xml: bytes, words: str) -> None:
    with pytest.raises(cfn.CfnError, match=words):
        cfn.field_text(io.BytesIO(xml), "Metadata")


def test_a_field_of_the_same_name_elsewhere_is_not_meant() -> None:
    xml = bad.cfn_answer('{"right": 1}').replace(b"<StackId>1", b"<StackId><Metadata>wrong</Metadata>")
    assert cfn.field_text(io.BytesIO(xml), "Metadata") == b'{"right": 1}'
