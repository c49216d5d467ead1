"""A real Keystone and Heat, and Zaqar when it is asked for, on loopback in a folder of their own.

    with Cloud(folder) as cloud:
        stack = cloud.stack()

Needs the environment `heat`, and `zaqar` for Zaqar, of tools/environments.py.
"""

import contextlib
import itertools
import pathlib
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import requests

from tests.e2e import settings
from tests.e2e.identity import Identity, Token, log_in
from tests.e2e.proxy import CountingProxy
from tests.e2e.servers import CloudError, Servers, listen, url_of
from tests.e2e.stacks import Stack
from tools import environments


class Cloud:
    """``folder`` is empty; whoever made it removes it after ``stop``.

    ``counted``: nodes and tenants reach every HTTP service through a CountingProxy, ``proxies`` by name:
    keystone, heat, cfn, zaqar. What the services say to each other does not go through them; nor do
    websockets.
    """

    def __init__(self, folder: pathlib.Path, *, counted: bool = False) -> None:
        self.folder = folder
        self.proxies: dict[str, CountingProxy] = {}
        self._counted = counted
        self._closing = contextlib.ExitStack()
        self._names = itertools.count(1)
        self._zaqar = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Back when all services answer. Raises CloudError with the log of a server that did not come up."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        self._running = Servers(self.folder)
        self._closing.callback(self._running.stop)
        sockets = {name: listen() for name in ("keystone", "heat", "cfn")}
        urls = {name: url_of(listening) for name, listening in sockets.items()}
        public = {name: self._public(name, url) for name, url in urls.items()}
        self._keystone = urls["keystone"]
        self.auth_url = f"{public['keystone']}/v3"
        venv = environments.ensure("heat")
        config = settings.heat(self.folder, venv / "etc" / "heat", self._keystone, public["cfn"])
        self._start_heat(venv, config, [sockets["heat"], sockets["cfn"]])
        self._start_keystone(venv, sockets["keystone"])
        with self._watched():
            with contextlib.closing(Identity(self._keystone)) as identity:
                identity.prepare()
                for kind, name, path in (
                    ("orchestration", "heat", "/v1/%(tenant_id)s"),
                    ("cloudformation", "cfn", "/v1"),
                ):
                    identity.register(kind, f"{urls[name]}{path}", f"{public[name]}{path}")
            for name in ("heat", "cfn"):
                requests.get(f"{urls[name]}/healthcheck", timeout=60).raise_for_status()

    def _start_heat(
        self, venv: pathlib.Path, config: settings.Sections, sockets: list[socket.socket]
    ) -> None:
        path = self.folder / "heat.conf"
        settings.write(path, config)
        arguments: list[str | socket.socket] = [str(path), str(self.folder / "heat.db"), *sockets]
        self._running.serve("heat", venv / "bin" / "python", "serve_heat.py", arguments)

    def _start_keystone(self, venv: pathlib.Path, listening: socket.socket) -> None:
        config = self.folder / "keystone.conf"
        settings.write(config, settings.keystone(self.folder))
        for name in ("fernet", "credential"):
            (self.folder / name).mkdir(0o700)
        environment = {
            "OS_KEYSTONE_CONFIG_FILES": str(config),
            "OS_BOOTSTRAP_PASSWORD": settings.ADMIN_PASSWORD,
            "OS_BOOTSTRAP_REGION_ID": settings.REGION,
            "OS_BOOTSTRAP_PUBLIC_URL": self.auth_url,
            "OS_BOOTSTRAP_INTERNAL_URL": f"{self._keystone}/v3",
            "OS_BOOTSTRAP_ADMIN_URL": f"{self._keystone}/v3",
        }
        arguments: list[str | socket.socket] = [str(self.folder), listening]
        self._running.serve("keystone", venv / "bin" / "python", "serve_keystone.py", arguments, environment)

    def zaqar(self) -> None:
        """Start Zaqar, over HTTP and over websockets, unless it runs; nodes find both in the catalog.

        To be called before a stack with ZAQAR_MESSAGE is created.
        """
        if self._zaqar:
            return
        venv = environments.ensure("zaqar")
        redis = self._running.redis()
        kinds = {"wsgi": ("messaging", "http"), "websocket": ("messaging-websocket", "ws")}
        with self._watched(), contextlib.closing(Identity(self._keystone)) as identity:
            for transport, (kind, scheme) in kinds.items():
                listening = listen()
                config = self.folder / f"zaqar-{transport}.conf"
                settings.write(config, settings.zaqar(self.folder, self._keystone, redis, transport))
                url = url_of(listening, scheme)
                self._running.serve(kind, venv / "bin" / "python", "serve_zaqar.py", [str(config), listening])
                identity.register(kind, url, self._public("zaqar", url) if scheme == "http" else url)
                # Also of the one with websockets: it answers that this is none.
                requests.get(url.replace("ws:", "http:"), timeout=60)
        self._zaqar = True

    def stack(self) -> Stack:
        """A new one, still to be created; its tenant's token is good for an hour."""
        return Stack(self.tenant(), f"stack{next(self._names)}")

    def tenant(self) -> Token:
        """Of the tenant who owns stacks: a new token, of which the cloud closes the session."""
        with self._watched():
            token = log_in(self.auth_url.removesuffix("/v3"), "demo", settings.TENANT_PASSWORD, "demo")
        self._closing.callback(token.session.close)
        return token

    def pids(self) -> dict[str, int]:
        """Of the servers, by name: keystone, heat (all its parts), redis, messaging, messaging-websocket."""
        return self._running.pids()

    def stop(self) -> None:
        """End all that was started. May be called again."""
        self._closing.close()

    def _public(self, name: str, url: str) -> str:
        """Where nodes shall find that service."""
        if not self._counted:
            return url
        proxy = self.proxies[name] = CountingProxy(url)
        self._closing.callback(proxy.close)
        return proxy.url

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Say what a server's log says if it cannot be reached."""
        try:
            yield
        except requests.RequestException as error:
            raise CloudError(
                self._running.failed() or f"{error}; the logs are in {self.folder}/log"
            ) from error
