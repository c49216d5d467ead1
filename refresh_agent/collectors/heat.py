"""A resource's metadata from Heat's own API, with a token from Keystone.

os-collect-config: heat.py, which logs in anew for every poll. Here a poll is one request.
"""

import io
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from refresh_agent import metadata
from refresh_agent.collectors import Polled, http
from refresh_agent.collectors.keystone import CREDENTIALS, REQUIRED, Keystone, Login
from refresh_agent.model import Document, MetadataLimits, Snapshot

NAME = "heat"

_SPACE = rb"[ \t\r\n]*"
_BEFORE = re.compile(_SPACE + rb"\{" + _SPACE + rb'"metadata"' + _SPACE + rb":" + _SPACE + rb"(?=\{)")
_AFTER = re.compile(rb"(?<=\})" + _SPACE + rb"\}" + _SPACE + rb"\Z")
_ENDS = 256
"""Bytes at either end of an answer in which its envelope is looked for."""


class Heat(Polled):
    def __init__(self, options: Mapping[str, Any], limits: MetadataLimits) -> None:
        self._options = options
        self._limits = limits
        self._client = http.Client(NAME, CREDENTIALS, options, limits)
        self._absent = http.not_configured(NAME, options, (*REQUIRED, "resource_name", "stack_id"))
        self._keystone = None if self._absent else Keystone(self._client, options)

    def collect(self) -> Snapshot:
        """One document ``heat``."""
        if self._absent or not self._keystone:
            return self._absent or Snapshot(NAME)
        try:
            document = self._keystone.authenticated("orchestration", self._fetch)
        except http.HttpError as error:
            return http.failed(NAME, error)
        return Snapshot(NAME, (document,), deployment_keys=tuple(self._options["deployment_key"]))

    def close(self) -> None:
        self._client.close()

    def _fetch(self, login: Login) -> Document:
        stack, resource = self._options["stack_id"], self._options["resource_name"]
        url = f"{login.endpoint}/stacks/{quote(stack)}/resources/{quote(resource, safe='')}/metadata"
        missing = f"there is no resource {resource!r} in a stack {stack!r}"
        headers = {"X-Auth-Token": login.token, "Accept": "application/json"}
        reply = self._client.get(url, headers=headers, missing=missing)
        where = http.shown_url(url)
        if foreign := http.foreign_content(reply):
            return Document(NAME, None, error=f"GET {where}: {foreign}")
        if unwrap(reply.buffer):
            return Document(NAME, reply.body, origin=where)
        return self._parsed(reply.body, where)

    def _parsed(self, body: bytes, where: str) -> Document:
        """The long way, for an envelope that Heat would not write."""
        limits = self._limits._replace(bytes=self._limits.bytes + http.ENVELOPE, depth=self._limits.depth + 1)
        try:
            content = metadata.parse(body, limits).get("metadata")
        except metadata.MetadataError as error:
            return Document(NAME, None, error=f"GET {where}: {error}")
        if not isinstance(content, dict):
            return Document(NAME, None, error=f"GET {where}: holds no object 'metadata'")
        return Document(NAME, metadata.dump(content), origin=where)


def build(options: Mapping[str, Any], limits: MetadataLimits) -> Heat:
    return Heat(options, limits)


def unwrap(buffer: io.BytesIO) -> bool:
    """Cut ``{"metadata": {...}}`` down to the inner object, in place; False if it does not look like that.

    Nothing is parsed: what is left is JSON if and only if the whole was, with this one key. (With another key
    behind it the rest is no JSON, which is told, and never taken for something else.)
    """
    with buffer.getbuffer() as view:
        before = _BEFORE.match(bytes(view[:_ENDS]))
        tail = bytes(view[-_ENDS:])
        after = _AFTER.search(tail)
        if before is None or after is None:
            return False
        start, end = before.end(), len(view) - len(tail) + after.start()
        view[: end - start] = view[start:end]
    buffer.truncate(end - start)
    return True
