"""A source for refresh-agent: what an inventory says about this node, as one JSON object over HTTP."""

import os
from collections.abc import Mapping
from typing import Any

from oslo_config import cfg

from refresh_agent.collectors import Polled
from refresh_agent.collectors.http import Client, HttpError, not_configured, shown_url
from refresh_agent.model import Document, MetadataLimits, Snapshot

NAME = "inventory"


class Inventory(Polled):
    """One document. The server is told the ETag of what is known, and then need not send that again."""

    options = (
        cfg.StrOpt("url", help="URL of the node's entry; {node} in it stands for the host's name."),
        cfg.StrOpt("token", secret=True, help="Bearer token, if the inventory wants one."),
        cfg.FloatOpt("timeout", default=10, min=0.1, help="Seconds to wait for the next bytes of an answer."),
        cfg.StrOpt("ca_file", help="Certificates of the authorities to trust, in PEM."),
    )

    def __init__(self, options: Mapping[str, Any], limits: MetadataLimits) -> None:
        self._missing = not_configured(NAME, options, ["url"])
        self._url = (options["url"] or "").replace("{node}", os.uname().nodename)
        self._client = Client(NAME, "token", options, limits)
        if options["token"]:
            self._client.session.headers["Authorization"] = f"Bearer {options['token']}"
        self._deployment_keys = tuple(options["deployment_key"])
        self._newest = self._stored = ""

    def collect(self) -> Snapshot:
        """Never raises: what is wrong is in the snapshot, and the last good document stands in."""
        if self._missing is not None:
            return self._missing
        try:
            headers = {"If-None-Match": self._stored} if self._stored else {}
            reply = self._client.get(self._url, headers=headers, missing="the inventory has no such node")
        except HttpError as error:
            return Snapshot(NAME, error=str(error), retry_after=error.retry_after)
        if reply.status == 304:
            return Snapshot(NAME, unchanged=True)
        self._newest = reply.headers.get("ETag", "")
        document = Document(NAME, reply.body, origin=shown_url(self._url))
        return Snapshot(NAME, (document,), deployment_keys=self._deployment_keys)

    def stored(self) -> None:
        """Only now may the server be told that it need not send this again."""
        self._stored = self._newest

    def forget(self) -> None:
        """What it gave is lost here: it is to be sent again."""
        self._stored = ""

    def close(self) -> None:
        self._client.close()
