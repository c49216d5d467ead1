"""A collector of another package: the example, installed beside refresh-agent and used by its command."""

import contextlib
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.functional.node import Node
from tools import environments

EXAMPLE = pathlib.Path(__file__).resolve().parent.parent.parent / "examples" / "inventory"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The directory that it is installed into. Built from a copy: a build leaves files behind."""
    folder = tmp_path_factory.mktemp("package")
    source, target = folder / "source", folder / "site"
    shutil.copytree(EXAMPLE, source)
    python = environments.ensure("build") / "bin" / "python"
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", target]
    subprocess.run([python, "-m", "pip", "install", *options, source], check=True)
    return target


@pytest.fixture
def node(tmp_path: pathlib.Path, installed: pathlib.Path) -> Node:
    node = Node(tmp_path)
    node.hook("configure/10-a", 'cat $OS_CONFIG_FILES >> "$0.seen"')
    return node


def seen(node: Node) -> str:
    return (node.base / "configure.d" / "10-a.seen").read_text()


class InventoryServer(http.server.ThreadingHTTPServer):
    """Stands in for somebody's inventory: there is no such program to install.

    ``content`` is what it says about every node; ``asked`` the path, token and ETag of every request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), InventoryHandler)
        self.content: object = {}
        self.asked: list[tuple[str, str | None, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class InventoryHandler(http.server.BaseHTTPRequestHandler):
    server: InventoryServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps(self.server.content).encode()
        tag, known = f'"{hash(body)}"', self.headers["If-None-Match"]
        self.server.asked.append((self.path, self.headers["Authorization"], known))
        self.send_response(304 if known == tag else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", "0" if known == tag else str(len(body)))
        self.end_headers()
        if known != tag:
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[InventoryServer]:
    with InventoryServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with contextlib.ExitStack() as stack:
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            yield server


def configure(node: Node, server: InventoryServer, *more: str) -> None:
    group = ["[inventory]", f"url = {server.url}/nodes/{{node}}", "token = tell-nobody-at-all", *more]
    node.configure("\n".join(group), collectors="inventory")


def once(node: Node, installed: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return node.command(*arguments or ["--once"], env={"PYTHONPATH": str(installed)})


def test_its_document_reaches_the_hooks(node: Node, server: InventoryServer, installed: pathlib.Path) -> None:
    configure(node, server)
    server.content = {"rack": 7}
    done = once(node, installed)
    assert done.returncode == 0, done.stderr
    assert seen(node) == '{"rack": 7}'
    assert server.asked == [(f"/nodes/{os.uname().nodename}", "Bearer tell-nobody-at-all", None)]
    assert once(node, installed).returncode == 0
    assert node.ran() == ["configure/10-a"]


def test_a_server_that_is_gone_costs_nothing(
    node: Node, server: InventoryServer, installed: pathlib.Path
) -> None:
    configure(node, server)
    server.content = {"rack": 7}
    once(node, installed)
    server.server_close()
    server.shutdown()
    done = once(node, installed, "--once", "--force")
    assert done.returncode == 0, done.stderr
    assert "the connection is refused" in done.stderr
    assert "its last good content stands in" in done.stderr
    assert "tell-nobody" not in done.stderr
    assert seen(node) == '{"rack": 7}' * 2


def test_the_daemon_polls_it_and_asks_only_for_what_is_new(
    node: Node, server: InventoryServer, installed: pathlib.Path
) -> None:
    node.configure(
        f"[inventory]\nurl = {server.url}",
        collectors="inventory",
        polling_interval="1",
        min_polling_interval="0.1",
    )
    server.content = {"rack": 7}
    with node.daemon(env={"PYTHONPATH": str(installed)}):
        node.wait_for_outcomes(["success"])
        server.content = {"rack": 8}
        node.wait_for_outcomes(["success"] * 2)
    assert seen(node) == '{"rack": 7}{"rack": 8}'
    assert all(known for _, _, known in server.asked[1:])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("urrl = x", "[inventory] urrl is not a known option; did you mean url?"),
        ("timeout = 0", "[inventory] timeout = 0: is not valid"),
    ],
)
def test_its_options_are_checked_as_our_own(
    node: Node, server: InventoryServer, installed: pathlib.Path, line: str, words: str
) -> None:
    configure(node, server, line)
    done = once(node, installed, "check-config")
    assert done.returncode == 2
    assert words in done.stderr
    assert "tell-nobody" not in done.stdout + done.stderr


def test_without_an_address_it_is_not_configured(node: Node, installed: pathlib.Path) -> None:
    node.configure(collectors="inventory")
    done = once(node, installed)
    assert done.returncode == 3
    assert "url is not set in [inventory]: not configured" in done.stderr


def test_where_it_is_not_installed_its_name_is_not_known(node: Node, server: InventoryServer) -> None:
    configure(node, server)
    done = node.command("check-config")
    assert done.returncode == 2
    assert "there is no collector 'inventory'" in done.stderr
