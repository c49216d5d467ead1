"""Secrets do not show up, however they are written."""

import itertools
import json
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresh_agent.redact import (
    HELD_BACK,
    MASK,
    MOST_KNOWN,
    RUNS_KNOWN,
    SHORTEST,
    MaskedStream,
    Masker,
    forms,
    looks_secret,
    secrets_in,
)

SECRETS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=SHORTEST, max_size=40).filter(
    lambda text: len(text.strip()) >= SHORTEST and text.splitlines() == [text]
)


@pytest.mark.parametrize(
    "key",
    ["password", "admin_passwd", "SECRET", "auth-token", "credentials", "private_key", "secret_access_key"],
)
def test_keys_that_look_secret(key: str) -> None:
    assert looks_secret(key)


@pytest.mark.parametrize("key", ["public_key", "ssh_public_key", "key_name", "user", "path", "keyboard", ""])
def test_keys_that_do_not(key: str) -> None:
    assert not looks_secret(key)


def test_secrets_are_found_at_any_depth_also_as_named_values_of_a_deployment() -> None:
    content = {
        "db": {"password": "one-secret", "user": "two-public"},
        "token": {"a": ["three-secret", {"b": "four-secret"}], "n": 5},
        "deployments": [
            {
                "inputs": [
                    {"name": "deploy_password", "value": "five-secret"},
                    {"name": "greeting", "value": "hello-you"},
                ]
            }
        ],
    }
    found = set(secrets_in(content))
    assert found == {"one-secret", "three-secret", "four-secret", "five-secret"}


@given(secret=SECRETS, before=st.text(max_size=10), after=st.text(max_size=10))
def test_a_secret_is_masked_in_every_form(secret: str, before: str, after: str) -> None:
    mask = Masker([secret])
    for form in (secret, json.dumps(secret)[1:-1], quote(secret, safe=""), quote(secret), quote_plus(secret)):
        assert form not in mask(f"{before}\n{form}\n{after}").split("\n")


@given(secrets=st.lists(SECRETS, max_size=5), text=st.text(max_size=80))
def test_nothing_else_changes(secrets: list[str], text: str) -> None:
    known = {form for secret in secrets for form in forms(secret)}
    if not any(form in text.encode() for form in known) and "=" not in text:
        assert Masker(secrets)(text) == text


def test_of_two_that_begin_alike_nothing_of_the_longer_stays() -> None:
    assert Masker(["password1", "password1-and-more"])("x password1-and-more y") == f"x {MASK} y"


def test_of_several_lines_every_line_is_masked() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END KEY-----\n"
    mask = Masker([key])
    assert mask("  MIIEvQIBADANBg") == f"  {MASK}"
    assert mask(json.dumps({"key": key})) == f'{{"key": "{MASK}"}}'


def test_short_values_are_not_masked() -> None:
    assert Masker(["short"])("a short word") == "a short word"


def test_signatures_of_signed_urls_are_masked() -> None:
    url = "http://heat/v1/signal?AWSAccessKeyId=a&Signature=abc%3D&x=1 and temp_url_sig=0123'"
    assert (
        Masker()(url)
        == f"http://heat/v1/signal?AWSAccessKeyId=a&Signature={MASK}&x=1 and temp_url_sig={MASK}'"
    )


def test_more_can_be_learnt() -> None:
    mask = Masker(["first-secret"])
    mask.learn(["other-secret"])
    assert mask("first-secret other-secret") == f"{MASK} {MASK}"


# --- streams -----------------------------------------------------------------------------------------------


def in_pieces(mask: Masker, data: bytes, cuts: list[int]) -> list[bytes]:
    """What a stream tells of ``data`` that comes cut at these places, and at its end."""
    stream = MaskedStream(mask)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    told = [stream.feed(data[start:end]) for start, end in itertools.pairwise(places)]
    return [*told, stream.flush()]


@given(
    secrets=st.lists(st.text("abc1", min_size=8, max_size=20), min_size=1, max_size=5),
    words=st.lists(st.text("abc1\n &", max_size=20), max_size=8),
    cuts=st.lists(st.integers(0, 300), max_size=6),
    data=st.data(),
)
def test_wherever_it_is_cut_a_stream_is_masked_as_a_whole(
    secrets: list[str], words: list[str], cuts: list[int], data: st.DataObject
) -> None:
    pieces = data.draw(st.lists(st.sampled_from([*secrets, *words, "\n", "Signature=ab1/c"]), max_size=12))
    text = "".join(pieces).encode()
    mask = Masker(secrets)
    assert b"".join(in_pieces(mask, text, cuts)) == mask.mask(text)


@pytest.mark.parametrize("secret", ["hunter2-hunter2", "x" * 8, "x" * 40, "s3cret-" * 300])
@pytest.mark.parametrize("size", [1, 7, 4096, 8191, 8192, 8193, 65536])
def test_no_boundary_of_a_line_without_end_splits_a_secret(secret: str, size: int) -> None:
    """Nor does the cut after 8 KiB that such a line gets."""
    data = b"".join(b"." * number + secret.encode() for number in range(0, 20000, 997 if size > 1 else 9973))
    told = in_pieces(Masker([secret]), data, list(range(0, len(data), size)))
    assert secret[:8].encode() not in b"".join(told)
    assert b"".join(told).count(b"***") == data.count(secret.encode())


@pytest.mark.parametrize("size", [1, 100, 8192, 65536])
def test_no_boundary_splits_a_signature(size: int) -> None:
    data = b"".join(b"." * number + b"&Signature=0123456789abcdef&" for number in range(0, 20000, 4999))
    told = b"".join(in_pieces(Masker(), data, list(range(0, len(data), size))))
    assert b"89abcdef" not in told
    assert told.count(b"Signature=***&") == 5


@pytest.mark.parametrize("into", range(1, 30))
def test_no_cut_of_a_line_without_end_hides_what_a_signature_is(into: int) -> None:
    signed = b"&temp_url_sig=deadbeefdeadbeef&"
    data = b"x" * (16384 - 4096 - into) + signed
    data += b"y" * (16384 - len(data))
    stream = MaskedStream(Masker())
    assert b"deadbeef" not in stream.feed(data) + stream.feed(b"\n") + stream.flush()


@pytest.mark.parametrize(
    "written", ["a%3cb%2fcd%26ef", "a\\u003cb/cd\\u0026ef", "a<b\\/cd&ef", "a\\u003cb\\/cd\\u0026ef"]
)
def test_as_other_languages_write_it(written: str) -> None:
    assert Masker(["a<b/cd&ef"])(f"[{written}]") == f"[{MASK}]"


def test_blanks_around_a_secret_do_not_matter() -> None:
    assert Masker([" password-1 "])("it is password-1!") == f"it is {MASK}!"


def test_a_line_is_told_as_soon_as_it_has_ended() -> None:
    stream = MaskedStream(Masker(["password-1"]))
    assert stream.feed(b"one\ntwo passw") == b"one\n"
    assert stream.feed(b"ord-1\nthree") == b"two ***\n"
    assert stream.flush() == b"three"
    assert stream.flush() == b""


@pytest.mark.parametrize("secrets", [[], ["x" * 8], ["xy" * 4], ["x" * 100_000]])
def test_a_line_without_end_does_not_stay_in_memory(secrets: list[str]) -> None:
    stream = MaskedStream(Masker(secrets))
    longest = max([4096, *map(len, secrets)])
    for _ in range(64):
        stream.feed(b"x" * 65536)
    assert len(stream.flush()) <= longest + 2 * HELD_BACK


def test_a_signature_without_end_does_not_stay_in_memory() -> None:
    stream = MaskedStream(Masker())
    told = stream.feed(b"Signature=") + b"".join(stream.feed(b"x" * 65536) for _ in range(64))
    assert len(told) > 2**20


@given(st.binary(max_size=200), st.lists(SECRETS, max_size=3))
def test_bytes_that_are_no_text_are_masked_too(data: bytes, secrets: list[str]) -> None:
    mask = Masker(secrets)
    if not any(form in data for secret in secrets for form in forms(secret)) and b"=" not in data:
        assert mask.mask(data) == data
    for secret in secrets:
        assert secret.encode() not in mask.mask(data + secret.encode() + data)


def test_many_secrets_are_all_found() -> None:
    secrets = [f"{number:08d}-of-many" for number in range(500)]
    mask = Masker(secrets)
    for offset in range(8):
        assert mask(" " * offset + " ".join(secrets)).split() == [MASK] * 500


def secret_of(run: int) -> str:
    return f"{run:08d}-of-a-run"


def test_of_secrets_that_change_with_every_run_the_oldest_are_forgotten() -> None:
    mask = Masker()
    for run in range(3 * MOST_KNOWN):
        mask.next_run()
        mask.learn([secret_of(run), "never-changes"])
    assert len(mask._known) <= MOST_KNOWN + 2
    assert len(mask._holders) <= (MOST_KNOWN + 2) * len(secret_of(0))
    assert mask(secret_of(0)) == secret_of(0)
    newest = [secret_of(run) for run in range(3 * MOST_KNOWN - RUNS_KNOWN, 3 * MOST_KNOWN)]
    assert mask(" ".join([*newest, "never-changes"])).split() == [MASK] * (RUNS_KNOWN + 1)


def test_the_secrets_of_the_last_runs_are_known_however_many_they_are() -> None:
    mask = Masker()
    for run in range(RUNS_KNOWN):
        mask.next_run()
        mask.learn([secret_of(1000 * run + number) for number in range(200)])
    assert mask(secret_of(199)) == MASK
    for _ in range(2):
        mask.next_run()
    assert mask(secret_of(199)) == secret_of(199)
    assert mask(secret_of(2000)) == MASK


def test_what_was_forgotten_is_learnt_again() -> None:
    mask = Masker()
    for run in range(2 * MOST_KNOWN):
        mask.next_run()
        mask.learn([secret_of(run)])
    mask.learn([secret_of(0)])
    assert mask(secret_of(0)) == MASK


@pytest.mark.parametrize(
    ("content", "secrets"),
    [
        ({"url": "mysql+pymysql://nova:geh%2Feim@db/nova"}, {"geh%2Feim", "geh/eim"}),
        ({"list": ["http://u:geheimnis@k/v3"]}, {"geheimnis"}),
        ({"admin_pass": "geheimnis"}, {"geheimnis"}),
        ({"ssh_passphrase": "geheimnis"}, {"geheimnis"}),
        ({"api_key": "geheimnis"}, {"geheimnis"}),
        ({"Authorization": "Basic geheim"}, {"Basic geheim"}),
        ({"key": "password", "value": "geheimnis"}, {"geheimnis"}),
        ({"pin_token": 1234567890}, {"1234567890"}),
        ({"key": "-----BEGIN RSA PRIVATE KEY-----\nx"}, {"-----BEGIN RSA PRIVATE KEY-----\nx"}),
        ({"bypass": "geheimnis", "url": "http://host/a@b:c", "key": "pass", "compass": "x"}, set()),
    ],
)
def test_secrets_are_known_by_more_than_their_key(content: Any, secrets: set[str]) -> None:
    assert set(secrets_in(content)) == secrets


def test_the_password_of_a_url_is_masked_wherever_it_comes_from() -> None:
    assert Masker().mask(b"GET http://user:pw@host/x") == b"GET http://user:***@host/x"
    assert Masker().mask(b"see http://host:80/a@b") == b"see http://host:80/a@b"
