"""None of os-collect-config's known defects: every test is run on both programs.

os-collect-config 14.1.0 is expected to fail, each time that these tests run: what it does not fail in is no
defect. It fails in an ``assert``; whatever has to work before is ``established`` and must not fail.
"""

import contextlib
import itertools
import pathlib
import signal
import socket
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.functional.node import replace_file
from tests.integration import stand_ins
from tests.integration.programs import OURS, THEIRS, Program
from tests.integration.stand_ins import StandIn


def on_both(reason: str) -> pytest.MarkDecorator:
    """``reason``: what os-collect-config does instead."""
    fails = pytest.mark.xfail(strict=True, raises=AssertionError, reason=reason)
    return pytest.mark.parametrize("name", [OURS, pytest.param(THEIRS, marks=fails)])


@pytest.fixture
def program(name: str, tmp_path: pathlib.Path) -> Program:
    return Program(name, tmp_path)


@pytest.fixture
def server() -> Iterator[StandIn]:
    with stand_ins.serving() as server:
        yield server


def request_group(server: StandIn) -> str:
    return f"[request]\nmetadata_url = {server.url}/metadata.json"


def cfn_group(server: StandIn, *paths: str) -> str:
    lines = [
        f"metadata_url = {server.url}/v1/",
        "stack_name = s",
        "access_key_id = k",
        "secret_access_key = shh",
    ]
    return "\n".join(["[cfn]", *lines, *(f"path = {path}" for path in paths)])


def keystone_group(server: StandIn, name: str, *more: str) -> str:
    lines = [f"auth_url = {server.url}/v3", "user_id = u", "password = a-password", "project_id = p"]
    return "\n".join([f"[{name}]", *lines, *more])


def deployments(*names: str) -> dict[str, Any]:
    """Metadata with deployments whose configurations are {"number": 0}, 1, …"""
    return {
        "deployments": [
            {"id": f"id-{number}", "name": name, "config": {"number": number}}
            for number, name in enumerate(names)
        ]
    }


def polls_again(program: Program, server: StandIn) -> None:
    """Wait until whole polls, of a HEAD and a GET at most, lie behind it."""
    polled = len(server.asked)
    program.established(lambda: len(server.asked) >= polled + 6)


# --- 1 -----------------------------------------------------------------------------------------------------


def ignores_hup(status: str) -> bool:
    """``status``: the text of a /proc/PID/status."""
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn"))
    return bool(int(mask, 16) >> (signal.SIGHUP - 1) & 1)


@on_both("the hooks and what they start ignore SIGHUP")
def test_defect_01_the_hooks_inherit_an_ignored_sighup(program: Program) -> None:
    """SIGHUP set to SIG_IGN before the first command and never restored unless re-exec; the hooks and daemons
    they start inherit ignored HUP.
    """
    program.configure("heat_local")
    status = program.root / "status"
    program.script(f"cat /proc/self/status > {status}.new; mv {status}.new {status}")
    program.metadata({"a": 1})
    with program.daemon():
        program.established(status.exists)
    assert not ignores_hup(status.read_text())


@on_both("HUP is lost after the first command")
def test_defect_01_a_sighup_after_the_first_run_is_heard(program: Program, server: StandIn) -> None:
    """SIGHUP set to SIG_IGN before the first command and never restored unless re-exec (SigIgn bit set, HUP
    lost).

    It re-execs by itself where its configuration changed before the end of the command: so it has to poll
    again before the change.
    """
    server.answer = stand_ins.document({"a": 1})
    program.configure("request", groups=request_group(server))
    program.metadata({"b": 2})
    with program.daemon() as process:
        program.established(program.runs)
        polls_again(program, server)
        program.configure("heat_local")
        process.send_signal(signal.SIGHUP)
        program.in_time(lambda: program.runs()[-1] == {"heat_local.json": {"b": 2}})


# --- 2 -----------------------------------------------------------------------------------------------------


def lose_a_source_while_another_changes(program: Program) -> None:
    """The source that changes comes first in the list: no poll sees its change and not the loss."""
    program.established(program.runs)
    program.heat_local.rename(program.root / "away")
    program.own("own", {"own": 2})
    program.established(lambda: len(program.runs()) == 2)


@on_both("the command runs without the file of the source that is down")
def test_defect_02_a_source_that_is_down_is_missing_for_the_hooks(program: Program) -> None:
    """Source down while another changes → command runs with that file missing from OS_CONFIG_FILES."""
    program.configure("local", "heat_local")
    program.metadata({"a": 1})
    program.own("own", {"own": 1})
    with program.daemon():
        lose_a_source_while_another_changes(program)
    assert program.runs()[1] == {"heat_local.json": {"a": 1}, "own.json": {"own": 2}}


@on_both("the list stays truncated after the source is back")
def test_defect_02_the_list_stays_truncated(program: Program) -> None:
    """os_config_files.json is truncated; on return content equals .last, so no re-run and the truncated list
    stays.
    """
    program.configure("local", "heat_local")
    program.metadata({"a": 1})
    program.own("own", {"own": 1})
    with program.daemon():
        lose_a_source_while_another_changes(program)
        (program.root / "away").rename(program.heat_local)
        program.in_time(lambda: program.listed() == ["own.json", "heat_local.json"])


# --- 3 -----------------------------------------------------------------------------------------------------


@on_both("runs at every poll")
def test_defect_03_two_deployments_of_one_name_run_for_ever(program: Program, server: StandIn) -> None:
    """Two deployments with the same name share a file → "changed" every poll, endless runs."""
    server.answer = stand_ins.document(deployments("web", "web"))
    program.configure("request", groups=request_group(server))
    with program.daemon():
        program.established(program.runs)
        polls_again(program, server)
    assert len(program.runs()) == 1
    assert {content.get("number") for content in program.runs()[0].values()} == {None, 0, 1}


# --- 4 -----------------------------------------------------------------------------------------------------


@on_both("writes outside the cache, to the list itself, or crashes")
@pytest.mark.parametrize("deployment", ["../evil", "os_config_files", "a/b"])
def test_defect_04_names_are_not_made_safe(program: Program, server: StandIn, deployment: str) -> None:
    """Names unsanitised: ../evil writes outside cachedir; os_config_files collides with the list; a/b crashes
    the daemon.
    """
    server.answer = stand_ins.document(deployments(deployment))
    program.configure("request", groups=request_group(server))
    done = program.once()
    assert done.returncode == 0, done.stderr
    assert {"number": 0} in program.runs()[0].values()
    assert not (program.root / "evil.json").exists()


# --- 5 -----------------------------------------------------------------------------------------------------


@on_both("dies of a TypeError")
def test_defect_05_a_list_in_place_of_an_object_ends_the_process(program: Program, server: StandIn) -> None:
    """Only SourceNotAvailable/NotConfigured are caught: JSON list → TypeError; exits the process."""
    server.answer = stand_ins.document([1, 2])
    program.configure("heat_local", "request", groups=request_group(server))
    goes_on_with_the_other_source(program)


@on_both("dies of an IndexError")
def test_defect_05_an_empty_ec2_listing_ends_the_process(program: Program, server: StandIn) -> None:
    """Empty ec2 listing → IndexError; exits the process."""
    server.answer = lambda _asked: stand_ins.Answer(200)
    program.configure("heat_local", "ec2", groups=f"[ec2]\nmetadata_url = {server.url}/latest/meta-data")
    goes_on_with_the_other_source(program)


@on_both("dies of an AttributeError")
def test_defect_05_a_path_that_cfn_has_not_ends_the_process(program: Program, server: StandIn) -> None:
    """logger.warnng typo in cfn.py → AttributeError; exits the process."""
    server.answer = stand_ins.cfn("shh", {"web": {"Metadata": {"a": 1}}})
    program.configure("heat_local", "cfn", groups=cfn_group(server, "web.Elsewhere"))
    goes_on_with_the_other_source(program)


def goes_on_with_the_other_source(program: Program) -> None:
    program.metadata({"a": 1})
    done = program.once()
    assert done.returncode == 0, done.stderr
    assert program.runs() == [{"heat_local.json": {"a": 1}}]


# --- 6, 7 --------------------------------------------------------------------------------------------------


@on_both("dies of locale.Error")
def test_defect_06_local_crashes_if_the_locale_does_not_round_trip(program: Program) -> None:
    """local (a default collector) crashes with locale.Error if the locale does not round-trip, even with no
    files (LANG=C.UTF-8 on 3.11).
    """
    program.env = {"LANG": "C.UTF-8"}
    program.configure("heat_local", "local")
    goes_on_with_the_other_source(program)


@on_both("dies of the splay")
def test_defect_07_a_splay_crashes(program: Program) -> None:
    """splay > 0 → random.randrange(0, float) → TypeError on Python ≥3.12.

    Before 3.12 the same call takes 2.0 and raises ValueError for 0.5.
    """
    program.configure("heat_local", splay=0.5)
    program.metadata({"a": 1})
    with program.daemon():
        program.in_time(program.runs)


# --- 8, 9 --------------------------------------------------------------------------------------------------


@on_both("the second signature is wrong")
def test_defect_08_cfn_signs_the_second_path_wrongly(program: Program, server: StandIn) -> None:
    """cfn: signer reused between paths; the second signature differs from a fresh signer's."""
    server.answer = stand_ins.cfn("shh", {"web": {"Metadata": {"a": 1}}, "db": {"Metadata": {"b": 2}}})
    program.configure("cfn", groups=cfn_group(server, "web.Metadata", "db.Metadata"))
    program.once()
    program.established(lambda: server.asked[0][1].status == 200)
    assert program.runs() == [{"cfn.json": {"a": 1, "b": 2}}]


@on_both("only cfn.deployment_key counts")
def test_defect_09_cfn_ignores_the_global_deployment_key(program: Program, server: StandIn) -> None:
    """cfn ignores the global deployment-key (uses cfn.deployment_key)."""
    metadata = {"mine": deployments("web")["deployments"]}
    server.answer = stand_ins.cfn("shh", {"web": {"Metadata": metadata}})
    program.configure("cfn", groups=cfn_group(server, "web.Metadata"), deployment_key="mine")
    program.once()
    program.established(program.runs)
    assert program.runs() == [{"cfn.json": metadata, "web.json": {"number": 0}}]


# --- 10, 11 ------------------------------------------------------------------------------------------------


@on_both("authenticates for every poll")
def test_defect_10_keystone_is_asked_for_a_token_at_every_poll(program: Program, server: StandIn) -> None:
    """Keystone cache never filled: collectors use .client; only .auth_ref (tests only) writes it → full
    re-auth per poll.
    """
    server.answer = stand_ins.heat(server, {"a": 1})
    group = keystone_group(server, "heat", "stack_id = s/1", "resource_name = web")
    program.configure("heat", groups=f"{group}\n[keystone]\ncache_dir = {program.root}/tokens")
    with program.daemon():
        program.established(program.runs)
        program.established(lambda: server.count("GET", "/metadata", 200) >= 3)
    assert program.runs() == [{"heat.json": {"a": 1}}]
    assert server.count("POST", "/v3/auth/tokens") == 1


@on_both("fetches the whole document at every poll")
def test_defect_11_an_unchanged_document_is_fetched_at_every_poll(program: Program, server: StandIn) -> None:
    """request: Last-Modified state lost each poll → HEAD+GET always."""
    server.answer = stand_ins.document({"a": 1})
    program.configure("request", groups=request_group(server))
    with program.daemon():
        program.established(lambda: len(server.asked) >= 6)
    assert program.runs() == [{"request.json": {"a": 1}}]
    assert server.count("GET", status=200) == 1


# --- 12 ----------------------------------------------------------------------------------------------------


@on_both("the message is gone, and the command is not run again")
def test_defect_12_a_message_is_lost_when_the_command_fails(program: Program, server: StandIn) -> None:
    """zaqar: message is popped before the command succeeds; after failure the queue is empty, nothing
    "changed", so no retry.
    """
    messages = [{"a": 1}]
    server.answer = stand_ins.zaqar(server, messages)
    program.configure("zaqar", groups=keystone_group(server, "zaqar", "queue_id = q"))
    program.script("[ $(ls $runs | wc -l) -gt 1 ]  # fails the first time")
    with program.daemon():
        program.established(program.runs)
        program.in_time(lambda: len(program.runs()) == 2)
        program.in_time(lambda: not messages)
    assert program.runs() == [{"zaqar.json": {"a": 1}}] * 2


# --- 13 ----------------------------------------------------------------------------------------------------


@on_both("dies of a ValueError")
def test_defect_13_md5_is_needed(program: Program) -> None:
    """hashlib.md5 (FIPS risk). In such a Python it raises ValueError, as it is made to here."""
    (program.root / "python").mkdir()
    (program.root / "python" / "sitecustomize.py").write_text(
        "import hashlib\n"
        "def md5(*arguments, usedforsecurity=True):\n"
        "    if usedforsecurity:\n"
        "        raise ValueError('[digital envelope routines] disabled for FIPS')\n"
        "    return hashlib.new('md5', *arguments, usedforsecurity=False)\n"
        "hashlib.md5 = md5\n"
    )
    program.env |= {"PYTHONPATH": str(program.root / "python")}
    program.configure("heat_local")
    goes_on_with_the_other_source(program)


@on_both("the files stay for ever")
def test_defect_13_the_files_of_removed_deployments_stay(program: Program, server: StandIn) -> None:
    """Removed deployments' files stay for ever."""
    program.configure("request", groups=request_group(server))
    for names in (["web", "db"], ["web"]):
        server.answer = stand_ins.document(deployments(*names))
        program.once()
    program.established(lambda: len(program.runs()) == 2)
    for directory in (program.cache, program.backup):
        left = {path.name.partition(".")[0] for path in directory.iterdir()}
        assert left == {"request", "web", "os_config_files"}


@on_both("goes on with the old files of --config-dir")
def test_defect_13_a_change_below_config_dir_is_not_seen(program: Program) -> None:
    """--config-dir files not hashed: the hook that rewrites one of them changes nothing."""
    directory = program.root / "os-collect-config.conf.d"
    directory.mkdir()
    other = program.root / "other"
    replace_file(other, '{"b": 2}')
    program.configure("heat_local")
    (directory / "a.conf").write_text(f"[heat_local]\npath = {program.heat_local}\n")
    program.script(f'printf "[heat_local]\\npath = {other}\\n" > {directory}/a.conf')
    program.metadata({"a": 1})
    with program.daemon("--config-dir", str(directory)):
        program.established(program.runs)
        program.in_time(lambda: program.runs()[-1]["heat_local.json"].get("b") == 2)


# --- 14 ----------------------------------------------------------------------------------------------------


@on_both("runs for every single one")
def test_defect_14_changes_that_follow_each_other_are_not_put_together(program: Program) -> None:
    """No debounce."""
    program.configure("heat_local", polling_interval=1, min_polling_interval=0.1)
    with (program.root / "refresh-agent.conf").open("a") as own:
        own.write("[debounce]\nquiet = 1\n")
    program.metadata({"v": 0})
    with program.daemon():
        program.established(program.runs)
        for version in range(1, 9):
            program.metadata({"v": version})
            time.sleep(0.5)  # the pace of the writer
        program.established(lambda: program.runs()[-1] == {"heat_local.json": {"v": 8}})
    assert len(program.runs()) == 2


@on_both("the nodes of a fleet that started together ask together for ever")
def test_defect_14_polls_line_up(program: Program, server: StandIn) -> None:
    """No jitter after start. Half of the waits then differ by less than the machine's own unrest."""
    server.answer = stand_ins.document({"a": 1})
    program.configure("request", groups=request_group(server), polling_interval=1, min_polling_interval=1)
    with program.daemon():
        moments = program.established(lambda: poll_moments(server, 20), 60)
    waits = [later - earlier for earlier, later in itertools.pairwise(moments)]
    quarter, _, three_quarters = statistics.quantiles(waits, n=4)
    assert three_quarters - quarter > 0.03


def poll_moments(server: StandIn, number: int) -> list[float]:
    """When polls began; a HEAD and its GET are one. Empty while there are fewer than ``number``."""
    moments: list[float] = []
    for asked, _ in server.asked:
        if not moments or asked.when - moments[-1] > 0.3:
            moments.append(asked.when)
    return moments if len(moments) >= number else []


@on_both("says nothing")
def test_defect_14_nobody_is_told_what_it_does(program: Program) -> None:
    """No metrics/state output: here to systemd, whose status command shows it."""
    program.configure("heat_local")
    program.metadata({"a": 1})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(program.root / "notify"))
        notified.settimeout(2)
        program.env |= {"NOTIFY_SOCKET": str(program.root / "notify")}
        with program.daemon():
            program.established(program.runs)
            told = received(notified)
    assert "READY=1" in told
    assert "STATUS=" in told


def received(notified: socket.socket) -> str:
    """All that comes until nothing came for a while, or the state was told."""
    told = ""
    with contextlib.suppress(TimeoutError):
        while "READY=1" not in told or "STATUS=" not in told:
            told += notified.recv(4096).decode() + "\n"
    return told
