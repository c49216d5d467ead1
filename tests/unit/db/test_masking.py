import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresh_agent.db.worker.masking import masker

passwords = st.text(min_size=6, max_size=20).filter(lambda text: text.strip() and text.isprintable())


@given(passwords)
def test_however_it_is_written(password: str) -> None:
    url = f"postgresql://shop:{quote(password, safe='')}@db.example/shop"
    mask = masker([url])
    for form in (
        url,
        url.replace("%", "%%"),
        password,
        quote(password),
        quote(password, safe=" +"),
        quote_plus(password),
        quote(password, safe="").lower() if password.isascii() and password.islower() else password,
        json.dumps(password),
        repr(password),
    ):
        masked = mask(f"<< {form} >>")
        assert form not in masked
        assert "***" in masked


@pytest.mark.parametrize(
    ("connection", "text", "masked"),
    [
        ("mysql://u:abc@h/d", "mysql://u:abc@h/d", "mysql://u:***@h/d"),
        ("mysql://u:lock@bolt@h/d", "no host bolt@h, password lock@bolt", "no host ***@h, password ***"),
        ("mysql://u:x@h/d", "an exotic example: mysql://u:x@h/d", "an exotic example: mysql://u:***@h/d"),
        ("mysql://h/d?passwd=geheim&charset=utf8", "geheim utf8", "*** utf8"),
        ("mysql://u@h/d", "u@h", "u@h"),
        ("mysql://u:@h/d", "u:@h", "u:@h"),
        ("sqlite:////var/lib/shop.db", "/var/lib/shop.db", "/var/lib/shop.db"),
        ("", "text", "text"),
        ("postgresql:/u:geheim@h", "geheim", "***"),
        ("x://u:ab%2fcd@h", "ab/cd ab%2fcd ab%2Fcd", "*** *** ***"),
    ],
)
def test_masked(connection: str, text: str, masked: str) -> None:
    assert masker([connection])(text) == masked


def test_several_connections_and_a_password_that_begins_another() -> None:
    mask = masker(["x://u:pass@h", "x://u:password@h"])
    assert mask("pass password passwords") == "*** *** ***s"
