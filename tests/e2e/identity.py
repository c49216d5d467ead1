"""Keystone over HTTP: what Heat and Zaqar need in it, and tokens."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import requests

from tests.e2e import settings


class Token(NamedTuple):
    """``catalog``: the type of a service → its public URL."""

    session: requests.Session
    project_id: str
    catalog: Mapping[str, str]


def log_in(keystone_url: str, name: str, password: str, project: str) -> Token:
    """A session of which every request carries the token. Close it."""
    session = requests.Session()
    session.trust_env = False
    domain = {"id": "default"}
    user = {"name": name, "domain": domain, "password": password}
    body: Any = {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": project, "domain": domain}},
        }
    }
    answer = session.post(f"{keystone_url}/v3/auth/tokens", json=body, timeout=60)
    answer.raise_for_status()
    session.headers["X-Auth-Token"] = answer.headers["X-Subject-Token"]
    token = answer.json()["token"]
    catalog = {
        service["type"]: endpoint["url"]
        for service in token["catalog"]
        for endpoint in service["endpoints"]
        if endpoint["interface"] == "public"
    }
    return Token(session, token["project"]["id"], catalog)


class Identity:
    """Keystone as its administrator. ``close`` it."""

    def __init__(self, keystone_url: str) -> None:
        self._url = f"{keystone_url}/v3"
        self._session = log_in(keystone_url, "admin", settings.ADMIN_PASSWORD, "admin").session

    def close(self) -> None:
        self._session.close()

    def prepare(self) -> None:
        """The users, roles and the domain that Heat wants, and a tenant without rights who owns stacks."""
        roles = {role["name"]: role["id"] for role in self._get("roles")}
        for name in {"heat_stack_owner", "heat_stack_user", "service"} - set(roles):
            roles[name] = self._post("roles", name=name)
        service = self._post("projects", name="service", domain_id="default")
        heat = self._user("heat", settings.SERVICE_PASSWORD, "default")
        # Only these two may check the signatures that heat-api-cfn gets.
        for role in ("admin", "service"):
            self._put(f"projects/{service}/users/{heat}/roles/{roles[role]}")
        # What heat-keystone-setup-domain does.
        domain = self._post("domains", name="heat", description="Stack projects and users")
        admin = self._user("heat_domain_admin", settings.DOMAIN_PASSWORD, domain)
        self._put(f"domains/{domain}/users/{admin}/roles/{roles['admin']}")
        demo = self._post("projects", name="demo", domain_id="default")
        tenant = self._user("demo", settings.TENANT_PASSWORD, "default")
        for role in ("member", "heat_stack_owner"):
            self._put(f"projects/{demo}/users/{tenant}/roles/{roles[role]}")

    def register(self, kind: str, url: str, public_url: str) -> None:
        """Put a service into the catalog."""
        service = self._post("services", type=kind, name=kind)
        for interface, each in (("public", public_url), ("internal", url), ("admin", url)):
            self._post(
                "endpoints", service_id=service, interface=interface, url=each, region_id=settings.REGION
            )

    def _user(self, name: str, password: str, domain: str) -> str:
        return self._post("users", name=name, domain_id=domain, password=password)

    def _get(self, things: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._call("GET", things).json()[things]
        return found

    def _post(self, things: str, **body: str) -> str:
        """Make one; its id."""
        thing = things.removesuffix("s")
        return str(self._call("POST", things, json={thing: body}).json()[thing]["id"])

    def _put(self, path: str) -> None:
        self._call("PUT", path)

    def _call(self, verb: str, path: str, **arguments: Any) -> requests.Response:
        answer = self._session.request(verb, f"{self._url}/{path}", timeout=60, **arguments)
        assert answer.ok, f"{verb} {path}: {answer.status_code} {answer.text}"
        return answer
