"""A JSON document at a URL, as a rule a Swift TempURL.

os-collect-config: request.py. It asks twice per poll (HEAD, GET) and forgets what it learnt; here one
conditional GET says whether anything is new.
"""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from refresh_agent.collectors import Polled, http
from refresh_agent.model import Document, MetadataLimits, Snapshot

NAME = "request"

SETTLED = 60.0
"""Seconds (RFC 9110, 8.8.2.2). What was modified so shortly before it was sent may be modified again within
the same second, and a server that goes by the time would never tell.
"""


class Request(Polled):
    def __init__(self, options: Mapping[str, Any], limits: MetadataLimits) -> None:
        self._options = options
        self._client = http.Client(NAME, "metadata_url (its signature may have expired)", options, limits)
        self._newest: dict[str, str] = {}
        self._known: dict[str, str] = {}

    def collect(self) -> Snapshot:
        """One document ``request``, or ``unchanged`` if the server says so."""
        if absent := http.not_configured(NAME, self._options, ("metadata_url",)):
            return absent
        url = self._options["metadata_url"]
        try:
            reply = self._client.get(url, headers=self._known, missing="there is no such object")
        except http.HttpError as error:
            return http.failed(NAME, error)
        where = http.shown_url(url)
        if reply.status == 304:
            return Snapshot(NAME, unchanged=True)
        if foreign := http.foreign_content(reply):
            return Snapshot(NAME, error=f"GET {where}: {foreign}")
        self._newest = conditions(reply.headers)
        document = Document(NAME, reply.body, origin=where)
        return Snapshot(NAME, (document,), deployment_keys=tuple(self._options["deployment_key"]))

    def stored(self) -> None:
        """Only now may the server leave out what it gave: what was not good is asked for again."""
        self._known = self._newest

    def forget(self) -> None:
        self._known = {}

    def close(self) -> None:
        self._client.close()


def conditions(headers: Mapping[str, str]) -> dict[str, str]:
    """What to ask with, so that the server need not send the same again; nothing if it could be mistaken."""
    tag, modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
    if tag and not tag.startswith("W/"):
        return {"If-None-Match": tag}
    try:
        sent = parsedate_to_datetime(headers.get("Date", ""))
        settled = (sent - parsedate_to_datetime(modified)).total_seconds() >= SETTLED
    except (ValueError, TypeError):
        settled = False
    return {"If-Modified-Since": modified} if settled else {}


def build(options: Mapping[str, Any], limits: MetadataLimits) -> Request:
    return Request(options, limits)
