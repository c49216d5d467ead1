"""A source that reads a queue of the server that misbehaves; what the tests of both start from."""

import contextlib
import json
import select
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from refresh_agent.collectors import http
from refresh_agent.collectors.zaqar import NAME, Zaqar, build
from refresh_agent.model import MetadataLimits, Snapshot
from tests.integration import bad_server as bad
from tests.integration.bad_zaqar import Queue, ZaqarKeystone

LIMITS = MetadataLimits(bytes=2**20, depth=64)
TIMEOUT = 0.2
TOTAL = http.TOTAL * TIMEOUT
SECRETS = ("the password", "token-")
UNCHANGED = Snapshot(NAME, unchanged=True)


class Zaqars(NamedTuple):
    """A server, and its Keystone. ``collector`` makes a source that reads its queue."""

    queue: Queue
    keystone: ZaqarKeystone

    @property
    def server(self) -> bad.Listener:
        return self.queue.server

    @contextlib.contextmanager
    def collector(self, **options: Any) -> Iterator[Zaqar]:
        given = {
            "auth_url": self.server.url,
            "user_id": "user-1",
            "password": "the password",
            "project_id": "project-1",
            "queue_id": "q",
            "timeout": TIMEOUT,
            "deployment_key": ("deployments",),
        }
        zaqar = build(given | options, LIMITS)
        try:
            yield zaqar
        finally:
            zaqar.close()


def take(zaqar: Zaqar) -> Snapshot:
    snapshot = zaqar.collect()
    zaqar.stored()
    return snapshot


def content(snapshot: Snapshot) -> Any:
    assert snapshot.error == ""
    (document,) = snapshot.documents
    assert document.raw is not None, document.error
    return json.loads(document.raw)


def readable(zaqar: Zaqar, seconds: float = 0) -> bool:
    return bool(select.select([zaqar.fileno()], [], [], seconds)[0])


def assert_fault(zaqar: Zaqar, words: str, exchanges: int = 1) -> None:
    """It is told in these words, without a secret, and in time."""
    begun = time.monotonic()
    error = zaqar.collect().error
    assert time.monotonic() - begun < exchanges * TOTAL + 2
    assert words in error
    assert not any(secret in error for secret in SECRETS)
    assert "\n" not in error
