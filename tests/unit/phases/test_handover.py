"""A hook that has systemd stop or restart the agent; os-collect-config, LP 1603144."""

import itertools
import math
import os
import pathlib
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator

import pytest

from refresh_agent.marks import HOOK_ID
from refresh_agent.model import Command, Ending, Exit, PhaseSettings
from refresh_agent.phases import execute, handover
from refresh_agent.phases.handover import Watch, ends, unit_in
from refresh_agent.phases.process import Grace, ProcessRunner
from refresh_agent.redact import Masker
from tests.processes import alive
from tests.unit.phases.shop import Shop, followers
from tests.unit.support import Recording, write_hook
from tests.waiting import eventually

UNIT = "refresh-agent.service"

# --- whose end is asked for --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cgroups", "unit"),
    [
        ("0::/system.slice/refresh-agent.service\n", UNIT),
        ("0::/system.slice/refresh-agent.service/hook-1\n", UNIT),
        ("5:cpu:/other.service\n1:name=systemd:/system.slice/refresh-agent.service\n0::/\n", UNIT),
        ("0::/system.slice/system-agent.slice/agent@1.service\n", "agent@1.service"),
        ("0::/user.slice/user-0.slice/session-3.scope\n", ""),
        ("5:cpu:/other.service\n0::/\n", ""),
        ("", ""),
    ],
)
def test_the_unit_is_known_by_its_cgroup(cgroups: str, unit: str) -> None:
    assert unit_in(cgroups) == unit


@pytest.mark.parametrize(
    "line",
    [
        "systemctl restart refresh-agent",
        "/usr/bin/systemctl restart refresh-agent.service",
        "systemctl --no-block stop refresh-agent",
        "systemctl --quiet --system try-restart crond refresh-agent",
        "systemctl -t service restart refresh-*",
        "systemctl reload-or-restart refresh-agent",
        "systemctl condrestart refresh-agent",
        "systemctl disable --now refresh-agent",
        "systemctl --now mask refresh-agent.service",
        "systemctl reload-or-restart --marked",
        "systemctl --marked --no-block reload-or-restart",
    ],
)
def test_these_ask_for_its_end(line: str) -> None:
    assert ends(UNIT, line.split())


@pytest.mark.parametrize(
    "line",
    [
        "",
        "systemctl",
        "systemctl restart",
        "systemctl restart crond",
        "systemctl restart refresh-agent.timer",
        "systemctl start refresh-agent",
        "systemctl reload refresh-agent",
        "systemctl disable refresh-agent",
        "systemctl enable --now refresh-agent",
        "systemctl status refresh-agent",
        "systemctl is-active refresh-agent restart",
        "systemctl --user restart refresh-agent",
        "systemctl -H other restart refresh-agent",
        "systemctl -Hremote restart refresh-agent",
        "systemctl -Mother reload-or-restart --marked",
        "systemctl --marked daemon-reload",
        "systemctl --machine=other restart refresh-agent",
        "service refresh-agent restart",  # what it becomes is seen
        "echo systemctl restart refresh-agent",
    ],
)
def test_these_do_not(line: str) -> None:
    assert not ends(UNIT, line.split())


def test_without_a_unit_nothing_is_looked_at(tmp_path: pathlib.Path) -> None:
    watch = Watch("", str(tmp_path))
    assert watch.fileno() == -1
    assert watch.look([os.getpid()]) is None


def test_without_the_program_nothing_is_waited_for() -> None:
    assert Watch(UNIT, "").fileno() == -1


# --- what becomes of the hook ------------------------------------------------------------------------------

WAITS = "until [ -e $ROOT/go ]; do sleep 0.01; done"
CALLS = f'"$ROOT/systemctl" -c "read -t 30 <> $ROOT/answer" restart {UNIT}'
CALLS_WITHOUT_WAITING = f'"$ROOT/systemctl" -c "read -t 0.03 <> $ROOT/answer" restart --no-block {UNIT}'
"""Bash under another name, which shows the arguments and waits: there is no systemd here."""


@pytest.fixture
def agents_shop(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """Its runner is a service's, and ``systemctl`` a program that can be told how long it takes."""
    systemctl = shop.root / "systemctl"
    shutil.copy("/bin/bash", systemctl)
    os.mkfifo(shop.root / "answer")
    watch = Watch(UNIT, str(systemctl))
    monkeypatch.setattr(handover, "watch", lambda: watch)
    shop.runner = ProcessRunner(shop.stop, Grace(kill=0.3, stop=0.3))
    yield shop
    os.close(watch.fileno())


def run(shop: Shop, body: str, *, outlives: bool = True) -> Exit:
    path = str(shop.script(body))
    env = {"PATH": os.environ["PATH"], "ROOT": str(shop.root), HOOK_ID: "the-hook"}
    return shop.listen(Command(path, (path,), env, outlives=outlives))


@pytest.fixture
def stops_at_a_term(shop: Shop) -> Iterator[None]:
    """This process is the agent, which its hook sends the signal of a stop."""
    before = signal.signal(signal.SIGTERM, lambda number, _: shop.stop.request(number))
    yield
    signal.signal(signal.SIGTERM, before)


TERM = "kill -TERM $PPID"


@pytest.mark.usefixtures("stops_at_a_term")
def test_a_hook_that_waits_for_the_agents_end_is_left_to_the_next(agents_shop: Shop) -> None:
    """Both would wait for each other; the grace of 0.3 s would end the hook."""
    body = f"{CALLS} & caller=$!; sleep 0.1; {TERM}; {WAITS}; echo finished > $ROOT/finished; kill $caller"
    ended = run(agents_shop, body)
    assert ended.ending is Ending.HANDED_OVER
    assert ended.stopped
    assert not ended.ok
    assert f"it has called '{agents_shop.root}/systemctl -c " in ended.detail
    (agents_shop.root / "go").touch()
    eventually((agents_shop.root / "finished").exists)


@pytest.mark.usefixtures("stops_at_a_term")
def test_a_call_that_did_not_wait_is_remembered(agents_shop: Shop) -> None:
    """systemctl --no-block has ended before the agent is stopped."""
    ended = run(agents_shop, f"{CALLS_WITHOUT_WAITING}; {TERM}; {WAITS}; touch $ROOT/finished")
    assert ended.ending is Ending.HANDED_OVER
    (agents_shop.root / "go").touch()
    eventually((agents_shop.root / "finished").exists)


@pytest.mark.usefixtures("stops_at_a_term")
def test_but_not_for_long(agents_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour later it is an operator who stops the agent."""
    monkeypatch.setattr("refresh_agent.phases.process.RECENT", 0.0)
    assert run(agents_shop, f"{CALLS_WITHOUT_WAITING}; {TERM}; {WAITS}").ending is Ending.STOPPED


@pytest.mark.usefixtures("stops_at_a_term")
def test_nor_one_that_has_waited_and_is_over(agents_shop: Shop) -> None:
    """It was refused, or was about a reload: whoever stops the agent now is somebody else."""
    call = CALLS_WITHOUT_WAITING.replace("--no-block", "--quiet")
    assert run(agents_shop, f"{call}; {TERM}; {WAITS}").ending is Ending.STOPPED


@pytest.mark.usefixtures("stops_at_a_term")
def test_a_call_that_comes_after_the_stop_counts_too(agents_shop: Shop) -> None:
    """An operator has stopped the agent while the hook was still unpacking."""
    ended = run(agents_shop, f"{TERM}; sleep 0.1; {CALLS} & {WAITS}; touch $ROOT/finished; kill $!")
    assert ended.ending is Ending.HANDED_OVER
    assert ended.left == math.inf  # and not what was left of the grace
    (agents_shop.root / "go").touch()
    eventually((agents_shop.root / "finished").exists)


@pytest.mark.usefixtures("stops_at_a_term")
def test_one_that_was_missed_then_is_found_before_the_hook_would_be_ended(
    agents_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine it may take longer to become systemctl than the agent looks for it."""
    monkeypatch.setattr(handover, "LOOKS", 0)
    ended = run(agents_shop, f"{TERM}; sleep 0.1; {CALLS} & {WAITS}; touch $ROOT/finished; kill $!")
    assert ended.ending is Ending.HANDED_OVER
    (agents_shop.root / "go").touch()
    eventually((agents_shop.root / "finished").exists)


@pytest.mark.usefixtures("stops_at_a_term")
def test_a_hook_that_talks_all_the_time_is_handed_over_as_well(agents_shop: Shop) -> None:
    """Its output is readable in the very moment of the stop."""
    body = f"( sleep 0.2; {CALLS} & sleep 0.1; {TERM} ) & until [ -e $ROOT/go ]; do echo progress; done"
    assert run(agents_shop, body).ending is Ending.HANDED_OVER
    (agents_shop.root / "go").touch()


@pytest.mark.usefixtures("stops_at_a_term")
def test_a_secret_in_its_call_is_not_told(agents_shop: Shop) -> None:
    root = agents_shop.root
    call = f"{CALLS} hunter2-hunter2 & sleep 0.1; {TERM}; {WAITS}"
    write_hook(root / "configure.d/10-a", f"{call}; kill $!; touch $ROOT/finished")
    settings, told, mask = PhaseSettings(str(root)), Recording(), Masker(["hunter2-hunter2"])
    env = {"PATH": os.environ["PATH"], "ROOT": str(root)}
    ids = itertools.repeat("the-hook")
    job = execute.Job(settings, env, {}, agents_shop.runner, told, agents_shop.stop, mask, ids)
    failure = execute.run_phases(job, ["configure"])
    (root / "go").touch()
    eventually((root / "finished").exists)
    assert told.results[0].exit.ending is Ending.HANDED_OVER
    for text in (told.results[0].exit.detail, str(failure)):
        assert f"restart {UNIT} ***'" in text


def test_another_program_in_the_place_of_the_first_is_seen(tmp_path: pathlib.Path) -> None:
    """An upgrade of systemd."""
    program = tmp_path / "systemctl"
    shutil.copy("/bin/true", program)
    watch = Watch(UNIT, str(program))
    shutil.copy("/bin/true", tmp_path / "new")
    (tmp_path / "new").rename(program)
    watch.forget()
    assert select.select([watch.fileno()], (), (), 0) == ([], [], [])
    subprocess.run([program], check=True)
    assert select.select([watch.fileno()], (), (), 0)[0] == [watch.fileno()]
    os.close(watch.fileno())


@pytest.mark.usefixtures("stops_at_a_term")
def test_in_every_other_stop_a_hook_has_its_grace_and_then_ends(agents_shop: Shop) -> None:
    ended = run(agents_shop, f"echo $$ > $ROOT/pid; {TERM}; {WAITS}")
    assert ended.ending is Ending.STOPPED
    assert not alive(agents_shop.pid())


@pytest.mark.usefixtures("stops_at_a_term")
def test_somebody_elses_call_is_no_hooks(agents_shop: Shop) -> None:
    """The operator's systemctl, while a hook runs."""
    program = str(agents_shop.root / "systemctl")
    read = f"read -t 30 <> {agents_shop.root}/answer"
    with subprocess.Popen([program, "-c", read, "restart", UNIT]) as operators:
        ended = run(agents_shop, f"{TERM}; {WAITS}")
        operators.kill()
    assert ended.ending is Ending.STOPPED


@pytest.mark.usefixtures("stops_at_a_term")
def test_what_is_no_hook_is_not_handed_over(agents_shop: Shop) -> None:
    """A worker that migrates a database, say."""
    body = f"{CALLS} & sleep 0.1; {TERM}; {WAITS}"
    assert run(agents_shop, body, outlives=False).ending is Ending.STOPPED


@pytest.mark.usefixtures("stops_at_a_term")
def test_what_it_says_goes_on_to_be_heard(agents_shop: Shop) -> None:
    body = f"{CALLS} & caller=$!; sleep 0.1; {TERM}; {WAITS}; echo still here; kill $caller"
    run(agents_shop, body)
    assert followers() > 0
    (agents_shop.root / "go").touch()
    eventually(lambda: "still here" in [text for _, text in agents_shop.lines])
    eventually(lambda: followers() == 0)
