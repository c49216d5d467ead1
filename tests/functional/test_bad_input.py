"""Bad input: a clear message that names the thing, the right exit code, nothing lost, never a traceback."""

import os
import pathlib
import subprocess

import pytest

from tests.functional.node import COMMAND, Node


def in_small_file_system(
    node: Node, mount_point: pathlib.Path, options: str, command: str = "--once"
) -> subprocess.CompletedProcess[str]:
    """The command with a tmpfs mounted there, in a mount namespace of its own; needs no root."""
    script = 'mount -t tmpfs -o "$1" tmpfs "$2" && shift 2 && exec "$@"'
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    unshare = ["unshare", "--mount", *user, "sh", "-c", script, "sh", options, str(mount_point)]
    return subprocess.run(
        [*unshare, COMMAND, "--config-file", str(node.config_file), command],
        capture_output=True,
        text=True,
        timeout=60,
    )


class TestConfiguration:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("[debounce]\nquite = 1", ["[debounce] quite", "did you mean quiet?"]),
            ("[debounc]\nquiet = 1", ["[debounc] is not a known group", "did you mean debounce?"]),
            ("[debounce]\nquiet = soon", ["refresh-agent.conf: [debounce] quiet = soon: is not valid"]),
            (
                "[debounce]\nquiet = -1",
                ["refresh-agent.conf: [debounce] quiet = -1: is not valid: Should be greater"],
            ),
            ("[debounce]\nquiet = 20", ["[debounce] max_wait is shorter than quiet"]),
            ("[phases]\noutput_limit = 1.5", ["[phases] output_limit = 1.5: is not valid"]),
            ("[migrations]\ntargets = shop", ["[migration:shop]", "connection"]),
            ("[migration:shop]\nconnection = sqlite://", ["migration:shop", "[migrations] targets"]),
            ("no section's line", ["refresh-agent.conf: line", "no section's line"]),
        ],
    )
    def test_it_is_refused_with_2_by_name_before_anything_is_touched(
        self, node: Node, text: str, words: list[str]
    ) -> None:
        node.configure(text)
        for arguments in (["--once"], ["check-config"], []):
            ended = node.command(*arguments)
            assert ended.returncode == 2, ended
            assert all(word in ended.stderr for word in words), ended.stderr
            assert "Traceback" not in ended.stderr
        assert not node.state.exists()

    def test_all_errors_are_told_at_once(self, node: Node) -> None:
        node.configure("[debounce]\nquite = 1\n[retry]\ninitial = x\n[phases]\nhook_timeot = 2")
        stderr = node.command("check-config").stderr
        assert all(word in stderr for word in ("quite", "initial", "hook_timeot"))
        assert len(stderr.splitlines()) == 3

    def test_an_unknown_collector_is_named(self, node: Node) -> None:
        node.configure(collectors="heat_lokal")
        ended = node.once()
        assert ended.returncode == 2
        assert "'heat_lokal'" in ended.stderr
        assert "heat_local" in ended.stderr

    def test_a_missing_file_is_named(self, node: Node) -> None:
        node.config_file.unlink()
        ended = node.once()
        assert (ended.returncode, "refresh-agent.conf" in ended.stderr) == (2, True)

    def test_a_pipe_is_refused_since_it_can_be_read_only_once(self, node: Node) -> None:
        command = f"{COMMAND} check-config --config-file <(cat {node.config_file})"
        ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
        assert (ended.returncode, "it is a pipe" in ended.stderr) == (2, True)

    def test_a_password_is_not_told(self, node: Node) -> None:
        node.configure("[migrations]\ntargets = shop\n[migration:shop]\nconnection = geheim$nowhere")
        ended = node.command("check-config")
        assert ended.returncode == 2
        assert "[migration:shop] connection" in ended.stderr
        assert "$$" in ended.stderr
        assert "geheim" not in ended.stderr + ended.stdout

    def test_wrong_arguments_are_exit_code_2(self, node: Node) -> None:
        assert node.command("--twice").returncode == 2
        assert node.command("no-such-command").returncode == 2
        assert node.command("--force").returncode == 2
        assert node.command("--once", "check-config").returncode == 2


class TestHooks:
    def test_a_missing_base_directory_is_a_success_said_aloud(self, node: Node) -> None:
        node.base.rmdir()
        node.metadata({"a": 1})
        ended = node.once()
        assert ended.returncode == 0
        assert f"{node.base} does not exist" in ended.stderr

    def test_no_phase_directory_is_a_success_said_aloud(self, node: Node) -> None:
        node.metadata({"a": 1})
        ended = node.once()
        assert ended.returncode == 0
        assert f"{node.base} has no phase directory" in ended.stderr

    def test_a_phase_directory_that_is_a_file_fails_the_run(self, node: Node) -> None:
        (node.base / "configure.d").write_text("oops")
        node.hook("post-configure/10-never")
        node.metadata({"a": 1})
        ended = node.once()
        assert (ended.returncode, node.ran()) == (1, [])
        assert f"{node.base}/configure.d: Not a directory" in ended.stdout

    def test_a_hook_without_a_shebang_runs_under_bash(self, node: Node) -> None:
        node.hook("configure/10-a", 'echo "$BASH_VERSION" > "$0.bash"', shebang="")
        node.metadata({"a": 1})
        assert node.once().returncode == 0
        assert (node.base / "configure.d" / "10-a.bash").read_text().strip()

    def test_a_missing_interpreter_is_named_and_is_status_127(self, node: Node) -> None:
        node.hook("configure/10-a", shebang="#!/no/such/shell")
        node.metadata({"a": 1})
        ended = node.once()
        assert ended.returncode == 1
        assert "configure/10-a" in ended.stdout
        assert "/no/such/shell does not exist" in ended.stdout
        assert node.rows("SELECT status FROM hooks") == [(127,)]

    def test_a_windows_line_end_is_seen_in_the_message(self, node: Node) -> None:
        node.hook("configure/10-a", shebang="#!/bin/sh\r")
        node.metadata({"a": 1})
        assert r"/bin/sh\r does not exist" in node.once().stdout

    def test_what_is_not_run_is_told_with_the_reason(self, node: Node) -> None:
        node.hook("configure/10-not-executable", mode=0o644)
        node.hook("configure/20-name.sh")
        (node.base / "configure.d" / "30-dangling").symlink_to("nowhere")
        node.hook("configure/40-runs")
        node.metadata({"a": 1})
        ended = node.once()
        assert (ended.returncode, node.ran()) == (0, ["configure/40-runs"])
        assert "10-not-executable is not run: it is not executable" in ended.stderr
        assert "20-name.sh is not run: its name does not match" in ended.stderr
        assert "30-dangling is not run: it is a link that leads nowhere" in ended.stderr


BAD_JSON = {
    "a list": (b'["a"]', "is a JSON list"),
    "empty": (b"", "is empty"),
    "cut off": (b'{"a": {"b"', "is not JSON"),
    "with a byte order mark": (b'\xef\xbb\xbf{"a": 1}', "byte order mark"),
    "not UTF-8": (b'{"a": "\xff"}', "is not UTF-8"),
    "10,000 lists deep": (b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "nests deeper"),
    "10,000 objects deep": (b'{"a": ' * 10_000 + b"1" + b"}" * 10_000, "nests deeper"),
}


class TestMetadata:
    @pytest.mark.parametrize("case", BAD_JSON)
    def test_it_is_told_by_name_and_the_last_good_content_stands_in(self, node: Node, case: str) -> None:
        raw, words = BAD_JSON[case]
        node.hook("configure/10-a", 'cat "$OS_CONFIG_FILES" > "$0.seen"')
        node.metadata_file.write_bytes(raw)
        without = node.once()
        assert (without.returncode, node.ran()) == (3, [])
        assert f"{node.metadata_file}: " in without.stdout
        assert words in without.stdout
        node.metadata({"good": 1})
        assert node.once().returncode == 0
        node.metadata_file.write_bytes(raw)
        standing_in = node.once("--force")
        assert standing_in.returncode == 0
        assert words in standing_in.stderr
        assert "last good content stands in" in standing_in.stderr
        assert '"good": 1' in (node.base / "configure.d" / "10-a.seen").read_text()


class TestState:
    def test_a_state_directory_that_cannot_be_made_is_exit_code_5(self, node: Node) -> None:
        (node.root / "file").write_text("")
        node.configure(state_dir=f"{node.root}/file/state")
        node.hook("configure/10-a")
        node.metadata({"a": 1})
        for arguments in (["--once"], []):
            ended = node.command(*arguments)
            assert (ended.returncode, node.ran()) == (5, [])
            assert f"{node.root}/file/state" in ended.stderr
            assert "Traceback" not in ended.stderr

    def test_a_read_only_state_directory_is_exit_code_5(self, node: Node) -> None:
        node.state.mkdir(mode=0o700)
        node.hook("configure/10-a")
        node.metadata({"a": 1})
        ended = in_small_file_system(node, node.state, "ro")
        assert (ended.returncode, node.ran()) == (5, [])
        assert str(node.state) in ended.stderr
        assert "Traceback" not in ended.stderr

    @pytest.mark.parametrize("kilobytes", [4, 8, 16, 32, 48, 64, 80])
    def test_a_full_disk_runs_nothing_or_everything(self, node: Node, kilobytes: int) -> None:
        """Wherever the space runs out: before the first hook it is exit code 5 and nothing has run."""
        node.state.mkdir(mode=0o700)
        node.hook("configure/10-a")
        node.hook("configure/20-b")
        node.metadata({"a": "x" * 4000})
        ended = in_small_file_system(node, node.state, f"size={kilobytes}k")
        assert "Traceback" not in ended.stderr
        if node.ran():
            assert node.ran() == ["configure/10-a", "configure/20-b"]
        else:
            assert ended.returncode == 5, ended
            assert "No space left" in ended.stderr or "full" in ended.stderr
        # With room again, the change is made as if nothing had been.
        assert node.once().returncode == 0
        assert node.outcomes() == ["success"]

    def test_a_full_cache_directory_is_exit_code_5_and_the_run_is_made_later(self, node: Node) -> None:
        node.cache.mkdir()
        node.hook("configure/10-a")
        node.metadata({"a": "x" * 20_000})
        ended = in_small_file_system(node, node.cache, "size=8k")
        assert (ended.returncode, node.ran()) == (5, [])
        assert str(node.cache) in ended.stderr
        assert node.once().returncode == 0
        assert node.ran() == ["configure/10-a"]

    def test_a_lock_file_that_cannot_be_opened_is_exit_code_5(self, node: Node) -> None:
        node.configure(lock_file=f"{node.root}/no/such/lock")
        node.metadata({"a": 1})
        ended = node.once()
        assert ended.returncode == 5
        assert f"{node.root}/no/such/lock" in ended.stderr
        assert "lock_file" in ended.stderr

    def test_files_are_for_the_agents_user_alone(self, node: Node) -> None:
        node.hook("configure/10-a")
        node.metadata({"a": 1})
        os.umask(0o000)
        try:
            node.once()
        finally:
            os.umask(0o022)
        assert (node.state.stat().st_mode & 0o777) == 0o700
        kept = [path for path in node.state.rglob("*") if path.is_file()]
        assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
        assert (node.cache / "heat_local.json").stat().st_mode & 0o777 == 0o600
