"""Secrets do not show up, however they are written."""

import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresh_agent.redact import MASK, SHORTEST, Masker, forms, looks_secret, secrets_in

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
