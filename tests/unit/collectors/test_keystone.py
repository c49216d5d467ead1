"""Tokens and endpoints, from a Keystone that does what a test wants."""

from typing import Any

import pytest

from refresh_agent.collectors import http
from refresh_agent.collectors.keystone import CREDENTIALS, Keystone, Login
from tests.integration import bad_server as bad
from tests.unit.support import LIMITS


@pytest.fixture
def fake(server: bad.Listener) -> bad.FakeKeystone:
    return bad.FakeKeystone(server)


def keystone(url: str, **more: Any) -> Keystone:
    options = {
        "auth_url": url,
        "user_id": "user-1",
        "password": "the password",
        "project_id": "project-1",
        "region_name": None,
        "timeout": 1.0,
    }
    return Keystone(http.Client("heat", CREDENTIALS, options | more, LIMITS), options | more)


@pytest.mark.parametrize("suffix", ["", "/", "/v2.0", "/v2.0/", "/v3", "/v3/"])
def test_the_version_is_found_whatever_the_url_says(
    server: bad.Listener, fake: bad.FakeKeystone, suffix: str
) -> None:
    server.behaviours["/v3/"] = fake.versions
    login = keystone(server.url + suffix).login("orchestration")
    assert login == Login(f"{server.url}/heat/v1/project-1", "token-1", "project-1")
    assert "v2.0" not in "".join(seen.path for seen in server.seen)


def test_a_token_is_kept(server: bad.Listener, fake: bad.FakeKeystone) -> None:
    asked = keystone(server.url)
    assert {asked.login("orchestration").token for _ in range(5)} == {"token-1"}
    assert len(server.seen) == 2  # which versions, and the login
    assert all(seen.headers["User-Agent"].startswith(http.USER_AGENT) for seen in server.seen)


def test_a_token_is_renewed_before_it_expires(server: bad.Listener, fake: bad.FakeKeystone) -> None:
    fake.lifetime = 60
    asked = keystone(server.url)
    assert [asked.login("orchestration").token for _ in range(3)] == ["token-1", "token-2", "token-3"]
    fake.lifetime = 3600
    assert [asked.login("orchestration").token for _ in range(3)] == ["token-4"] * 3
    assert len(server.seen) == 5  # which versions there are is not asked again


def test_a_token_that_is_refused_is_tried_anew_once(server: bad.Listener, fake: bad.FakeKeystone) -> None:
    asked = keystone(server.url)
    used: list[str] = []

    def use(login: Login) -> str:
        used.append(login.token)
        if login.token in fake.revoked:
            raise http.HttpError("refused", 401)
        return login.token

    fake.revoked = {"token-1"}
    assert asked.authenticated("orchestration", use) == "token-2"
    fake.revoked = {"token-2", "token-3"}
    with pytest.raises(http.HttpError, match="refused"):
        asked.authenticated("orchestration", use)
    assert used == ["token-1", "token-2", "token-2", "token-3"]


def test_wrong_credentials_are_tried_once(server: bad.Listener, fake: bad.FakeKeystone) -> None:
    """Keystone may lock a user out who tries too often."""
    asked = keystone(server.url, password="another")
    with pytest.raises(http.HttpError, match="answers 401"):
        asked.authenticated("orchestration", lambda login: login)
    assert [seen.method for seen in server.seen] == ["GET", "POST"]


def test_another_fault_is_not_tried_again(server: bad.Listener, fake: bad.FakeKeystone) -> None:
    def use(_login: Login) -> str:
        raise http.HttpError("busy", 503)

    with pytest.raises(http.HttpError, match="busy"):
        keystone(server.url).authenticated("orchestration", use)
    assert fake.logins == 1


@pytest.mark.parametrize(("region", "name"), [("RegionOne", "heat"), ("RegionTwo", "two"), ("", "heat")])
def test_the_endpoint_of_the_region_is_taken(
    server: bad.Listener, fake: bad.FakeKeystone, region: str, name: str
) -> None:
    fake.endpoints.append(fake.endpoint("http://two/v1/", "RegionTwo"))
    assert name in keystone(server.url, region_name=region).login("orchestration").endpoint


def test_a_service_that_is_not_in_the_catalog_is_told(server: bad.Listener, fake: bad.FakeKeystone) -> None:
    with pytest.raises(http.HttpError) as caught:
        keystone(server.url).login("messaging")
    assert str(caught.value) == f"{server.url}: its catalog has no public endpoint of type messaging"
    with pytest.raises(http.HttpError) as caught:
        keystone(server.url, region_name="Elsewhere").login("orchestration")
    assert str(caught.value) == (
        f"{server.url}: its catalog has no public endpoint of type orchestration in the region 'Elsewhere'; "
        "check [heat] region_name"
    )
