"""Who may have written what the agent executes."""

import grp
import os
import pathlib

import pytest

from refresh_agent.model import Failure, TrustMode
from refresh_agent.phases import trust
from refresh_agent.phases.trust import Trust
from tests.unit.phases.node import Node

OURS = frozenset({0, os.geteuid()})


@pytest.fixture
def hook(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "hooks" / "configure.d" / "10-a"
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def objection(path: pathlib.Path, env: dict[str, str] | None = None) -> str:
    return Trust(OURS).hook_objection(str(path), env or {})


def test_what_only_we_and_root_can_write_is_trusted(hook: pathlib.Path) -> None:
    """The temporary folder above it is writable by everybody, but sticky and root's."""
    assert objection(hook) == ""


@pytest.mark.parametrize(("mode", "who"), [(0o775, f"group {os.getegid()}"), (0o757, "everybody")])
@pytest.mark.parametrize("part", ["hook", "directory", "base"])
def test_what_others_may_write_is_not(hook: pathlib.Path, part: str, mode: int, who: str) -> None:
    """os-refresh-config and dib-run-parts check nothing, and run hooks from a directory of mode 0777."""
    path = {"hook": hook, "directory": hook.parent, "base": hook.parents[1]}[part]
    path.chmod(mode)
    gid = path.stat().st_gid
    group = f"group {gid} ({grp.getgrgid(gid).gr_name})" if "group" in who else who
    assert objection(hook) == f"{path} is writable by {group}"


def test_a_sticky_directory_of_somebody_else_is_not(hook: pathlib.Path) -> None:
    hook.parent.chmod(0o1777)
    expected = "" if os.geteuid() == 0 else f"{hook.parent} is writable by everybody"
    assert objection(hook) == expected


def test_another_owner_is_not(hook: pathlib.Path) -> None:
    """Told from the other side, so that it needs no root: nobody's files are trusted, not even ours."""
    assert Trust(frozenset()).objection(str(hook)) == "/ is owned by user 0 (root)"
    if os.geteuid() == 0:
        os.chown(hook, 65534, 0)
        assert objection(hook) == f"{hook} is owned by user 65534 (nobody)"


def test_the_target_of_a_link_is_judged_and_every_directory_on_its_way(
    hook: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    target = elsewhere / "real"
    target.write_text("#!/bin/sh\n")
    hook.unlink()
    hook.symlink_to("../../elsewhere/real")
    assert objection(hook) == ""
    target.chmod(0o777)
    assert objection(hook) == f"{target} is writable by everybody"
    target.chmod(0o755)
    elsewhere.chmod(0o777)
    assert objection(hook) == f"{elsewhere} is writable by everybody"


def test_a_link_among_the_directories_is_followed(hook: pathlib.Path, tmp_path: pathlib.Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "hooks")
    assert objection(link / "configure.d" / "10-a") == ""
    hook.parents[1].chmod(0o777)
    assert objection(link / "configure.d" / "10-a") == f"{hook.parents[1]} is writable by everybody"


def test_links_in_a_circle_are_told(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "too many links" in objection(tmp_path / "a")


def test_what_is_not_there_is_left_to_who_tries_to_start_it(tmp_path: pathlib.Path) -> None:
    assert objection(tmp_path / "gone") == ""


@pytest.mark.parametrize(
    "first", ["#!{shell}", "#! {shell} -e", "#!/usr/bin/env shell", "#!/usr/bin/env -S A=1 shell"]
)
def test_the_interpreter_is_judged_too(hook: pathlib.Path, tmp_path: pathlib.Path, first: str) -> None:
    shell = tmp_path / "bin" / "shell"
    shell.parent.mkdir()
    shell.symlink_to("/bin/sh")
    hook.write_text(first.format(shell=shell) + "\n")
    env = {"PATH": f"{shell.parent}:/usr/bin"}
    assert objection(hook, env) == ""
    shell.parent.chmod(0o777)
    assert objection(hook, env) == f"its interpreter {shell.parent} is writable by everybody"


@pytest.mark.parametrize(
    "first",
    [
        "#!/usr/bin/env -S{evil}",
        "#!/usr/bin/env -S A=b {evil} -u",
        "#!{nested}",
        "#!\t{evil}\t-x",
        "#!{evil}\0 is not read",
    ],
)
def test_every_interpreter_that_the_kernel_or_env_would_start_is_judged(
    hook: pathlib.Path, tmp_path: pathlib.Path, first: str
) -> None:
    evil, nested = tmp_path / "evil", tmp_path / "nested"
    evil.write_text("#!/bin/sh\n")
    evil.chmod(0o777)
    nested.write_text(f"#!{evil}\n")
    nested.chmod(0o755)
    hook.write_text(first.format(evil=evil, nested=nested) + "\n")
    assert objection(hook, {"PATH": "/usr/bin"}) == f"its interpreter {evil} is writable by everybody"


@pytest.mark.parametrize(
    "argument",
    [
        "-S 'sh'",
        "-S -u FOO sh",
        "-S --chdir=/tmp ./x",
        "-i sh",
        "-S PATH=/tmp x",
        "-vS x",
        "-S ${X}",
    ],
)
def test_what_env_would_start_has_to_be_plain(hook: pathlib.Path, argument: str) -> None:
    hook.write_text(f"#!/usr/bin/env {argument}\n")
    assert "is too involved to tell what env starts" in objection(hook, {"PATH": "/usr/bin"})


@pytest.mark.parametrize("first", ["#!/bin/sh\0", "#!", "#! ", "#!\0", "#!sh", "#!./sh"])
def test_strange_first_lines_are_no_trouble(hook: pathlib.Path, first: str) -> None:
    hook.write_bytes(first.encode() + b"\n")
    Trust(OURS).hook_objection(str(hook), {})


def test_a_working_directory_that_is_gone_is_told(
    hook: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    hook.write_text("#!sh\n")
    assert objection(hook) == "its interpreter sh: No such file or directory"


def test_a_binary_has_no_interpreter_and_a_script_without_a_first_line_has_bash(hook: pathlib.Path) -> None:
    assert trust.interpreters("/bin/true", {}) == ()
    hook.write_text("echo\n")
    assert trust.interpreters(str(hook), {}) == ("/bin/bash",)


class TestInAPhase:
    def test_a_refused_hook_fails_its_phase_with_path_and_reason(self, node: Node) -> None:
        node.hook("configure/10-a")
        bad = node.hook("configure/20-b")
        bad.chmod(0o777)
        failure = node.run()
        reason = f"{bad} is not to be trusted: {bad} is writable by everybody ([phases] trust)"
        assert failure == Failure("configure", "20-b", 126, reason)
        assert node.ran() == ["configure/10-a"]

    def test_a_refused_file_of_environment_d_too(self, node: Node) -> None:
        node.hook("configure/10-a")
        (node.base / "environment.d").mkdir()
        bad = node.base / "environment.d" / "10-x"
        bad.write_text("export X=1")
        bad.chmod(0o666)
        failure = node.run()
        assert failure is not None
        assert (failure.phase, failure.hook) == ("configure", "")
        assert f"{bad} is writable by everybody" in failure.reason
        assert node.ran() == []

    def test_with_warn_it_runs_and_is_told(self, node: Node) -> None:
        node.settings["trust"] = TrustMode.WARN
        node.hook("configure/10-a").chmod(0o777)
        assert node.run() is None
        assert node.ran() == ["configure/10-a"]
        assert any(note.startswith("warning: configure: ") for note in node.told.notes)

    def test_with_off_nobody_looks(self, node: Node) -> None:
        node.settings["trust"] = TrustMode.OFF
        node.hook("configure/10-a").chmod(0o777)
        assert node.run() is None
        assert not any("is not to be trusted" in note for note in node.told.notes)
