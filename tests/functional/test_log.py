"""Who reads the log gets what is of use there: systemd's journal fields, programs JSON, people lines.

journald is a stand-in here, which can stand still (tests/fields.py); the real one is in tests/e2e/systemd.
"""

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fields import StandIn
from tests.functional.node import Node
from tests.functional.test_db_command import Shop
from tests.waiting import eventually

ODD = r"""
printf 'caf\xc3\xa9 \xff\xfe \x00 \x1b[31mred\x1b[0m\x85\xe2\x80\xa8next\n'
printf '{"level": "forged", "message": "x"}\n'
printf '"}\n\\ud800 \\n\n' >&2
head -c 20000 /dev/urandom
printf '\nno end of the line'
"""


class Service:
    """A node whose agent runs with a standard error that systemd has given to the journal."""

    def __init__(self, node: Node, root: pathlib.Path) -> None:
        self.journald = StandIn(root / "socket")
        self._node = node
        self._stderr = node.root / "stderr"

    def once(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = (
            f"from refresh_agent import journald; journald.SOCKET = {self.journald.path!r}\n"
            "import sys; from refresh_agent import main; sys.exit(main.command())"
        )
        config = ("--config-file", str(self._node.config_file))
        with self._stderr.open("w") as file:
            status = os.fstat(file.fileno())
            return subprocess.run(
                [sys.executable, "-c", program, *config, "--once", *arguments],
                stdout=subprocess.PIPE,
                stderr=file,
                env={**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
                text=True,
                timeout=60,
            )

    def plain(self) -> str:
        """What has come on standard error after all."""
        return self._stderr.read_text()


@pytest.fixture
def service(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    # A short path: the name of a socket has 107 bytes at most.
    service = Service(node, tmp_path_factory.mktemp("log"))
    yield service
    service.journald.close()


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def run_ids(node: Node) -> list[str]:
    return [run_id for (run_id,) in node.rows("SELECT run_id FROM runs ORDER BY id")]


class TestJson:
    def test_a_daemon_writes_nothing_but_json_whatever_happens(self, node: Node) -> None:
        node.configure(log_format="json")
        node.hook("configure/10-odd", ODD)
        node.hook("configure/20-leaves", "(sleep 0.3; echo late >&2) &")
        node.hook("configure/30-fails", "exit 3")
        node.metadata({"a": 1})
        with node.daemon() as daemon:
            daemon.wait_for_log("the next attempt is in")
            daemon.wait_for_log("| late")
            node.configure("[nonsense]", log_format="json")
            daemon.wait_for_log("the configuration is not reloaded")
            node.configure(log_format="json")
            node.hook("configure/30-fails")
            eventually(lambda: node.outcomes()[-1:] == ["success"], 20)
            daemon.wait_for_log(": success in")
        told = objects(daemon.log())
        assert all({"time", "level", "message", "stream"} <= line.keys() for line in told)
        assert not any("forged" in line["level"] for line in told)
        late = [line for line in told if line["message"] == "configure/20-leaves| late"]
        assert late[0]["run_id"] == run_ids(node)[0]  # though another thread has heard it

    def test_a_daemon_that_cannot_start_says_so_in_json(self, node: Node) -> None:
        node.configure(log_format="json", state_dir="/proc/refresh-agent")
        ended = node.command()
        (line,) = objects(ended.stderr)
        assert (ended.returncode, line["level"]) == (5, "error")
        assert line["message"].startswith("error: /proc/refresh-agent: ")

    def test_a_hooks_streams_are_told_apart(self, node: Node) -> None:
        node.configure(log_format="json")
        node.hook("configure/10-a", "echo out; echo err >&2")
        node.metadata({"a": 1})
        said = {
            line["stream"]: (line["message"], line["level"], line["phase"], line["hook"])
            for line in objects(node.once().stderr)
            if "| " in line["message"]
        }
        assert said == {
            "stdout": ("configure/10-a| out", "info", "configure", "10-a"),
            "stderr": ("configure/10-a| err", "error", "configure", "10-a"),
        }

    def test_every_line_of_a_run_names_it_and_no_other_does(self, node: Node) -> None:
        node.configure(log_format="json")
        node.hook("configure/10-a", "echo out")
        node.metadata({"a": 1})
        with node.daemon() as daemon:
            node.wait_for_outcomes(["success"])
            daemon.wait_for_log(": success in")
        (run_id,) = run_ids(node)
        told = objects(daemon.log())
        of_run = [line["message"] for line in told if line.get("run_id") == run_id]
        assert of_run[0].startswith(f"run {run_id[:8]} begins (start, attempt 1)")
        assert "configure/10-a| out" in of_run
        assert of_run[-1].startswith(f"run {run_id[:8]}: success in ")
        assert [line["message"] for line in told if "run_id" not in line] == [
            "refresh-agent starts: collectors heat_local",
            "refresh-agent ends (signal 15)",
        ]

    def test_the_form_changes_with_the_configuration(self, node: Node) -> None:
        node.metadata({"a": 1})
        with node.daemon() as daemon:
            daemon.wait_for_log(": success in")
            before = len(daemon.log().splitlines())
            node.configure(log_format="json")
            daemon.wait_for_log("configuration reloaded")
        lines = daemon.log().splitlines()
        assert [line[0] for line in lines] == ["2"] * before + ["{"] * (len(lines) - before)

    def test_lines_about_a_database_name_it(self, tmp_path: pathlib.Path) -> None:
        shop = Shop(tmp_path)
        shop.configure(log_format="json")
        shop.metadata({"a": 1})
        told = [line for line in objects(shop.once().stderr) if line.get("phase") == "migration"]
        about_shop = [line for line in told if line["message"].startswith("migration: shop: ")]
        assert len(about_shop) > 2
        assert {line["target"] for line in about_shop} == {"shop"}
        by_hand = objects(shop.db("downgrade", "base").stderr)
        assert {line["target"] for line in by_hand} == {"shop"}


class TestTheJournal:
    def test_has_the_run_the_phase_the_hook_and_the_priority_of_each_line(
        self, node: Node, service: Service
    ) -> None:
        node.hook("configure/10-a", "echo out; echo err >&2; exit 3")
        node.metadata({"a": 1})
        assert service.once().returncode == 1
        (run_id,) = run_ids(node)
        entries = [entry for entry in service.journald.entries() if entry.get("RUN_ID") == run_id]
        hooks = {entry["STREAM"]: entry for entry in entries if "| " in entry["MESSAGE"]}
        of_hook = {"SYSLOG_IDENTIFIER": "refresh-agent", "RUN_ID": run_id, "PHASE": "configure"}
        assert hooks == {
            stream: {
                **of_hook,
                "HOOK": "10-a",
                "MESSAGE": f"configure/10-a| {text}",
                "PRIORITY": priority,
                "STREAM": stream,
            }
            for stream, text, priority in (("stdout", "out", "6"), ("stderr", "err", "3"))
        }
        errors = [
            entry["MESSAGE"] for entry in entries if (entry["PRIORITY"], entry["STREAM"]) == ("3", "agent")
        ]
        assert len(errors) == 1
        assert errors[0].startswith("configure/10-a: failed with status 3 after ")
        assert service.plain() == ""

    def test_has_the_reason_why_the_agent_ends(self, node: Node, service: Service) -> None:
        node.configure("[debounce]\nquite = 1\n")
        assert service.once().returncode == 2
        (entry,) = service.journald.entries()
        assert entry["PRIORITY"] == "3"
        assert "quite is not a known option" in entry["MESSAGE"]

    def test_that_is_not_ours_gets_nothing(self, node: Node, service: Service) -> None:
        """Whoever calls the agent may have inherited the variable from a service."""
        node.metadata({"a": 1})
        ended = node.once(env={"JOURNAL_STREAM": "1:2"})
        assert " INFO    run " in ended.stderr.splitlines()[0]
        assert service.journald.entries() == []

    def test_that_stands_still_does_not_hold_a_run_up(self, node: Node, service: Service) -> None:
        node.hook("configure/10-talks", "seq 3000")
        node.hook("post-configure/10-a")
        node.metadata({"a": 1})
        began = time.monotonic()
        ended = service.once()
        assert time.monotonic() - began < 20  # 3000 lines that wait would take 50 minutes
        assert (ended.returncode, node.outcomes()) == (0, ["success"])
        assert len(service.journald.entries()) < 3000
        assert service.plain() == ""

    def test_that_is_gone_leaves_plain_lines_with_their_priority(self, node: Node, service: Service) -> None:
        service.journald.close()
        node.hook("configure/10-a", "echo err >&2")
        node.metadata({"a": 1})
        assert service.once().returncode == 0
        lines = service.plain().splitlines()
        assert "<3>configure/10-a| err" in lines
        assert all(line[:3] in {"<3>", "<6>"} for line in lines)


def test_nothing_is_imported_for_a_journal_that_does_not_listen(node: Node) -> None:
    node.hook("configure/10-a", "echo out")
    node.metadata({"a": 1})
    program = (
        "import sys; from refresh_agent.main import main; code = main(sys.argv[1:]);"
        "print('found:', *{'socket', 'refresh_agent.journald'} & set(sys.modules)); sys.exit(code)"
    )
    command = [sys.executable, "-c", program, "--config-file", str(node.config_file), "--once"]
    # What measures the tests imports one of them itself.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout.splitlines()[-1]) == (0, "found:"), ended.stderr
