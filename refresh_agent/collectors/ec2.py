"""The EC2 metadata service of a cloud: a tree of small texts. A config drive, if there is one, comes first.

os-collect-config: ec2.py; it keeps what it has once found for ever, here it is looked at again every hour.
"""

import math
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from refresh_agent import metadata
from refresh_agent.collectors import Polled, config_drive, http
from refresh_agent.model import Document, MetadataLimits, Snapshot

NAME = "ec2"

METADATA_URL = "http://169.254.169.254/latest/meta-data"

MOST_REQUESTS = 1000
"""A real tree takes some thirty."""

MOST_TIME = 30
"""The whole tree may take so many times ``timeout``."""


EVERY = 3600.0


class TreeError(Exception):
    """The listing is not one of a real metadata service; the text is for the operator."""


class Ec2(Polled):
    every = EVERY

    def __init__(self, options: Mapping[str, Any], limits: MetadataLimits) -> None:
        self._url = str(options.get("metadata_url") or METADATA_URL).rstrip("/")
        self._limits = limits
        self._keys = tuple(options.get("deployment_key") or ())
        self._client = http.Client(NAME, "metadata_url", options, limits)
        self._drive_due = -math.inf

    def collect(self) -> Snapshot:
        """One document ``ec2``, from wherever it came."""
        document = self._from_drive()
        if document is None:
            try:
                content = _Tree(self._client, self._limits).read(f"{self._url}/")
            except http.HttpError as error:
                # On a node outside of a cloud nobody answers at the default address.
                absent = self._url == METADATA_URL and error.status in {0, 404}
                self.every = 0.0  # or else the network is not up yet
                return http.failed(NAME, error, absent=absent)
            except TreeError as error:
                return Snapshot(NAME, error=f"GET {http.shown_url(self._url)}/: {error}")
            document = Document(NAME, metadata.dump(content), origin=http.shown_url(self._url))
        self.every = EVERY
        return Snapshot(NAME, (document,), deployment_keys=self._keys)

    def close(self) -> None:
        self._client.close()

    def _from_drive(self) -> Document | None:
        """None also if what is on the drive is no metadata: os-collect-config asks the service then, too.

        A drive comes with the machine: where there is none, the disks are not woken for it at every poll.
        """
        if time.monotonic() < self._drive_due:
            return None
        try:
            document = config_drive.read(NAME, self._limits)
            return document if metadata.parse(document.raw or b"", self._limits) else None
        except config_drive.DriveError as error:
            self._drive_due = time.monotonic() + EVERY if error.absent else -math.inf
        except metadata.MetadataError:
            pass
        return None


def build(options: Mapping[str, Any], limits: MetadataLimits) -> Ec2:
    return Ec2(options, limits)


class _Tree:
    """One walk through the listings, bounded in requests, depth, size and time."""

    def __init__(self, client: http.Client, limits: MetadataLimits) -> None:
        self._client = client
        self._depth = limits.depth
        self._room = limits.bytes
        self._requests = MOST_REQUESTS
        self._deadline = time.monotonic() + MOST_TIME * client.timeout

    def read(self, url: str) -> dict[str, Any]:
        """The tree whose listing is at ``url``. Raises HttpError and TreeError."""
        content = self._listing(url, 1)
        if not content:
            raise TreeError("the listing is empty")
        return content

    def _listing(self, url: str, depth: int) -> dict[str, Any]:
        if depth > self._depth:
            raise TreeError(f"nests deeper than [limits] metadata_depth ({self._depth})")
        content: dict[str, Any] = {}
        for entry in filter(None, map(str.strip, self._text(url).split("\n"))):
            name, folder = _entry(entry)
            below = f"{url}{quote(name)}"
            content[name] = self._listing(f"{below}/", depth + 1) if folder else self._text(below)
        return content

    def _text(self, url: str) -> str:
        self._requests -= 1
        if self._requests < 0:
            raise TreeError(f"has more than {MOST_REQUESTS} entries; given up")
        if time.monotonic() > self._deadline:
            raise TreeError(f"is not complete after {MOST_TIME * self._client.timeout:g} s; given up")
        reply = self._client.get(url, missing="there is no metadata service, or not this entry")
        if foreign := http.foreign_content(reply):
            raise TreeError(foreign)
        self._room -= len(reply.body)
        if self._room < 0:
            raise TreeError("is larger than [limits] metadata_bytes")
        return reply.body.decode("utf-8", "replace")


def _entry(entry: str) -> tuple[str, bool]:
    """Its name, and whether it is a listing itself: ``name/``, or ``0=key-name`` for what is at ``0/``."""
    name, numbered, _ = entry.partition("=")
    folder = bool(numbered) or name.endswith("/")
    name = name.rstrip("/")
    if name in {"", ".", ".."} or "/" in name:
        raise TreeError("the listing has an entry that is no name")
    return name, folder
