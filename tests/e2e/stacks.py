"""Stacks of a tenant, over Heat's HTTP API."""

import json
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from tests.e2e.identity import Token

TEMPLATE = (pathlib.Path(__file__).resolve().parent / "template.yaml").read_text()
RESOURCE = "node"


class Stack:
    """One server with one script deployment, which says ``greeting``.

    ``transport``: POLL_SERVER_CFN, POLL_SERVER_HEAT or ZAQAR_MESSAGE; ``signal``: CFN_SIGNAL, HEAT_SIGNAL or
    NO_SIGNAL. One at a time, or the SQLite under Heat gets in their way.
    """

    def __init__(self, token: Token, name: str) -> None:
        self.name = name
        self._session = token.session
        self._heat = token.catalog["orchestration"]
        self._parameters: dict[str, str] = {}
        self._path = f"/stacks/{name}"

    def create(self, transport: str, signal: str, greeting: str = "hello", seconds: float = 30) -> None:
        """Back when the metadata is there to be fetched. It is complete once the node has signalled."""
        self._parameters = {"transport": transport, "signal": signal, "greeting": greeting}
        body = {**self._body(), "stack_name": self.name}
        made = self._call("POST", "/stacks", json=body)["stack"]["id"]
        self._path = f"/stacks/{self.name}/{made}"
        self.wait_for_metadata(greeting, seconds)

    def update(self, greeting: str, seconds: float = 30, *, transport: str = "") -> None:
        """Back as soon as the new metadata is there for the node to fetch. ``transport``: another one."""
        self._parameters["greeting"] = greeting
        self._parameters["transport"] = transport or self._parameters["transport"]
        self._call("PATCH", self._path, json={**self._body(), "existing": True})
        self.wait_for_metadata(greeting, seconds)

    def _body(self) -> dict[str, Any]:
        return {"template": TEMPLATE, "parameters": self._parameters, "timeout_mins": 10}

    def show(self) -> Mapping[str, Any]:
        """Heat's own account of it: stack_status, stack_status_reason, outputs and so on."""
        shown: dict[str, Any] = self._call("GET", self._path)["stack"]
        return shown

    def wait(self, status: str, seconds: float = 30) -> None:
        """Until it is, say, CREATE_COMPLETE. An assertion error if it fails, or is not by then."""

        def reached() -> bool:
            shown = self.show()
            now = shown["stack_status"]
            assert now == status or not now.endswith("FAILED"), f"{now}: {shown['stack_status_reason']}"
            return bool(now == status)

        _until(reached, seconds, f"{self.name} is not {status}")

    def wait_for_metadata(self, greeting: str, seconds: float = 30) -> None:
        """Until what the node fetches has that greeting in it."""
        wanted = f'"value": {json.dumps(greeting)}'
        _until(lambda: wanted in json.dumps(self.metadata()), seconds, f"{self.name} has no such metadata")

    def outputs(self) -> dict[str, Any]:
        """``said`` and ``stdout`` of the script, None as long as it did not signal."""
        return {one["output_key"]: one.get("output_value") for one in self.show()["outputs"]}

    def os_collect_config(self) -> dict[str, Any]:
        """What os-collect-config.conf is to hold: ``collectors``, and the group of that transport."""
        found: dict[str, Any] = self.outputs()["os_collect_config"]
        return found

    def metadata(self) -> dict[str, Any]:
        """Of the server, as the owner sees it. Empty before there is a server."""
        answer = self._session.get(
            f"{self._heat}{self._path}/resources/{RESOURCE}/metadata", timeout=60, allow_redirects=True
        )
        if answer.status_code == 404:
            return {}
        found: dict[str, Any] = answer.json()["metadata"]
        return found

    def delete(self, seconds: float = 30) -> None:
        """Back when it is gone."""
        self._call("DELETE", self._path)

        def gone() -> bool:
            answer = self._session.get(f"{self._heat}{self._path}", timeout=60)
            status = "" if answer.status_code == 404 else answer.json()["stack"]["stack_status"]
            assert status != "DELETE_FAILED", answer.text
            return status in {"", "DELETE_COMPLETE"}

        _until(gone, seconds, f"{self.name} is not deleted")

    def _call(self, verb: str, path: str, **arguments: Any) -> Any:
        answer = self._session.request(verb, f"{self._heat}{path}", timeout=60, **arguments)
        assert answer.ok, f"{verb} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content and "json" in answer.headers["Content-Type"] else {}


def _until(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """Not tests.waiting: asking a hundred times a second, it would keep Heat from its work."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{otherwise} after {seconds:g} s"
        time.sleep(0.1)
