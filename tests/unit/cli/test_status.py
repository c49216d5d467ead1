"""``status``: its text line by line, its JSON key by key."""

import json
import pathlib
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresh_agent import main
from refresh_agent.cli import status, status_text
from refresh_agent.cli.output import iso
from refresh_agent.cli.status_text import ago
from refresh_agent.health import Facts, SourceFacts
from refresh_agent.model import Quiesced
from refresh_agent.pause import Pause, moment
from refresh_agent.presence import Daemon
from refresh_agent.seen import Seen, SeenProblem
from refresh_agent.standing import RunSeen, Standing, TargetSeen

NOW = 1_700_000_000.0
GOOD = RunSeen(1, "a" * 32, "change", 1, NOW - 7210, NOW - 7200, "success", False, 0, False, "", "", None, "")
FAILED = RunSeen(
    2,
    "b" * 32,
    "retry",
    3,
    NOW - 200,
    NOW - 180,
    "hook failed",
    False,
    3,
    True,
    "configure",
    "20-b",
    42,
    "failed with status 42",
    ("before the end", "the end"),
)
STOPPED = GOOD._replace(row=3, run_id="c" * 32, outcome="interrupted", phase="configure", ended=NOW - 30)
DAEMON = Daemon(1234, NOW - 90_000, "waiting for a change; last: run aaaaaaaa: success in 0.50 s")


def text(facts: Facts) -> list[str]:
    return list(status_text.lines(facts))


def at(seconds: float) -> str:
    return moment(NOW - seconds)


def test_a_node_on_which_nothing_ever_happened() -> None:
    assert text(Facts(NOW, Standing(), sources=(SourceFacts("heat"),), targets=("nova",))) == [
        "health        stale: nothing was ever run here",
        "doing         no daemon",
        "last success  never",
        "last failure  never",
        "sources       heat  never asked",
        "targets       nova  never",
    ]


def test_a_healthy_node() -> None:
    sources = (
        SourceFacts("heat_local", 0.0, Seen(NOW - 7200, NOW - 7200)),
        SourceFacts("cfn", 10.0, Seen(NOW - 4, NOW - 4, 0.0)),
        SourceFacts(
            "ec2", 10.0, Seen(NOW - 4, None, 3600.0, (SeenProblem("no config drive", expected=True),))
        ),
    )
    target = TargetSeen("nova", "done", "migrate 2", "alembic 3fa1", "", "a" * 32, NOW - 7200)
    standing = Standing(newest=GOOD, last=GOOD, success=GOOD, targets=(target,))
    assert text(Facts(NOW, standing, DAEMON, sources=sources, targets=("nova", "glance"))) == [
        "health        healthy",
        "doing         waiting for a change; last: run aaaaaaaa: success in 0.50 s",
        f"daemon        pid 1234, since {at(90_000)} (1 d ago)",
        f"last success  {at(7200)} (2 h ago), run aaaaaaaa (change, attempt 1)",
        "last failure  never",
        "sources       heat_local  read 2 h ago",
        "              cfn         asked 4 s ago",
        "              ec2         asked 4 s ago, has never given anything good",
        "                          no config drive",
        "targets       nova    migrate 2 -> alembic 3fa1, done 2 h ago (run aaaaaaaa)",
        "              glance  never",
    ]


def test_a_node_on_which_much_is_wrong() -> None:
    standing = Standing(
        newest=FAILED,
        last=STOPPED,
        success=GOOD,
        failure=FAILED,
        quiesced=Quiesced(NOW - 180, "b" * 32, 3, False, "configure", "20-b"),
    )
    source = SourceFacts("cfn", 10.0, Seen(NOW - 300, NOW - 3600, 0.0, (SeenProblem("HTTP 503\x1b[2J"),)))
    facts = Facts(NOW, standing, DAEMON, Pause("an\nupgrade", NOW - 60), (source,))
    assert text(facts) == [
        f"health        quiesced: no run has got through post-configure since {at(180)}",
        "              not tried again by itself after 3 attempts that failed",
        "              no run starts until refresh-agent resume",
        "              source cfn: HTTP 503\\x1b[2J",
        "              source cfn: it was asked 300 s ago for the last time",
        "doing         paused",
        f"daemon        pid 1234, since {at(90_000)} (1 d ago)",
        f"quiesced      since {at(180)} (3 min ago): run bbbbbbbb failed in configure/20-b",
        (
            f"held          since {at(180)} (3 min ago): run bbbbbbbb (retry, attempt 3) is not tried again"
            " until the metadata changes, or at SIGHUP or --once"
        ),
        f"paused        since {at(60)} (1 min ago): an\\nupgrade",
        f"last success  {at(7200)} (2 h ago), run aaaaaaaa (change, attempt 1)",
        f"last failure  {at(180)} (3 min ago), run bbbbbbbb (retry, attempt 3)",
        "              configure/20-b: failed with status 42",
        "              | before the end",
        "              | the end",
        f"last run      interrupted in configure, {at(30)} (30 s ago), run cccccccc (change, attempt 1)",
        "sources       cfn  asked 5 min ago, the last good answer 1 h ago",
        "                   it does not answer",
        "                   HTTP 503\\x1b[2J",
    ]


def test_a_source_that_never_answered_a_daemon_is_told() -> None:
    facts = Facts(NOW, Standing(newest=GOOD), DAEMON, sources=(SourceFacts("cfn", 10.0),))
    assert text(facts)[-2:] == ["sources       cfn  never asked", "                   it does not answer"]
    assert text(facts)[0] == "health        stale: source cfn: it never answered"
    assert as_json(facts)["sources"][0]["stale"] is True


def test_it_is_written_in_one_go(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that stops after some lines, such as head, is told of once, if at all."""
    (tmp_path / "conf").write_text(f"[DEFAULT]\nstate_dir = {tmp_path}/state\nlock_file = {tmp_path}/lock\n")
    written: list[str] = []
    monkeypatch.setattr(sys.stdout, "write", written.append)
    assert main.main(["--config-file", str(tmp_path / "conf"), "status"]) == 3
    assert len(written) == 1
    assert written[0].startswith("health        stale: nothing was ever run here\ndoing ")


WALLS = st.none() | st.floats()


@given(WALLS, WALLS, WALLS, st.floats())
def test_no_time_whatever_is_too_odd_to_be_told(
    began: float | None, until: float | None, answered: float | None, asked: float
) -> None:
    source = SourceFacts("cfn", 10.0, Seen(asked, answered, until))
    facts = Facts(NOW, Standing(newest=GOOD), Daemon(1, began, "", until), Pause("x", began), (source,))
    assert text(facts)
    assert as_json(facts)


@pytest.mark.parametrize(
    ("changes", "doing"),
    [
        (
            {"running": FAILED},
            f"running configure/20-b of run bbbbbbbb (retry, attempt 3), since {at(200)} (3 min ago)",
        ),
        (
            {"running": GOOD._replace(by_hand=True)},
            f"running run aaaaaaaa (by hand, attempt 1), since {at(7210)} (2 h ago)",
        ),
        ({"until": NOW + 12}, f"backing off until {at(-12)} (in 12 s)"),
        ({"doing": ""}, "waiting"),
    ],
)
def test_what_it_does(changes: dict[str, Any], doing: str) -> None:
    running = changes.pop("running", None)
    facts = Facts(NOW, Standing(newest=GOOD, running=running), DAEMON._replace(**changes))
    assert f"doing         {doing}" in text(facts)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "now"),
        (0.9, "now"),
        (1, "1 s ago"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (3599, "59 min ago"),
        (3600, "1 h ago"),
        (86399, "23 h ago"),
        (200_000, "2 d ago"),
        (-90, "in 1 min"),
    ],
)
def test_how_long_ago_that_is(seconds: float, words: str) -> None:
    assert ago(seconds) == words


def test_a_clock_that_is_far_off_fails_nothing() -> None:
    facts = Facts(NOW, Standing(newest=GOOD), Daemon(1, 1e300, "", None), Pause("x", float("nan")))
    assert "daemon        pid 1, since an unknown time" in text(facts)[2]
    assert status.as_json(facts)["paused"] == {"reason": "x", "since": None}


# --- JSON -------------------------------------------------------------------------------------------------


def as_json(facts: Facts) -> Any:
    return json.loads(json.dumps(status.as_json(facts)))


def test_json_of_a_node_on_which_nothing_ever_happened() -> None:
    facts = Facts(NOW, Standing(), sources=(SourceFacts("heat"),), targets=("nova",))
    assert as_json(facts) == {
        "health": "stale",
        "exit_code": 3,
        "reasons": ["nothing was ever run here"],
        "doing": "no daemon",
        "daemon": None,
        "retry_at": None,
        "run": None,
        "last_run": None,
        "last_success": None,
        "last_failure": None,
        "quiesced": None,
        "held": None,
        "paused": None,
        "sources": [
            {
                "source": "heat",
                "polled": None,
                "asked_at": None,
                "answered_at": None,
                "stale": None,
                "problems": [],
            }
        ],
        "targets": [
            {
                "target": "nova",
                "outcome": None,
                "before": None,
                "after": None,
                "message": None,
                "at": None,
                "run": None,
            }
        ],
    }


def test_json_of_a_node_on_which_much_is_wrong() -> None:
    standing = Standing(
        newest=FAILED,
        last=FAILED,
        success=GOOD,
        failure=FAILED,
        quiesced=Quiesced(NOW - 180, "b" * 32, 3, True, "configure", ""),
        targets=(TargetSeen("nova", "failed", "migrate 2", "", "no disk", "b" * 32, NOW - 180),),
    )
    source = SourceFacts("cfn", 10.0, Seen(NOW - 3, NOW - 3600, 0.0, (SeenProblem("HTTP 503"),)))
    daemon = DAEMON._replace(until=NOW + 60)
    told = as_json(Facts(NOW, standing, daemon, sources=(source,), max_attempts=3, targets=("nova",)))
    assert told["health"] == "quiesced"
    assert told["exit_code"] == 1
    assert told["doing"] == "backing off"
    assert told["retry_at"] == iso(NOW + 60)
    assert told["daemon"] == {"pid": 1234, "started_at": iso(NOW - 90_000), "doing": DAEMON.doing}
    assert told["last_run"] == told["last_failure"]
    assert told["last_failure"] == {
        "run": "b" * 32,
        "trigger": "retry",
        "attempt": 3,
        "by_hand": False,
        "started_at": iso(NOW - 200),
        "ended_at": iso(NOW - 180),
        "outcome": "hook failed",
        "phase": "configure",
        "hook": "20-b",
        "status": 42,
        "reason": "failed with status 42",
        "output": ["before the end", "the end"],
    }
    assert told["quiesced"] == {
        "since": iso(NOW - 180),
        "run": "b" * 32,
        "interrupted": True,
        "phase": "configure",
        "hook": None,
    }
    assert told["held"] == {"since": iso(NOW - 180), "run": "b" * 32, "attempts": 3}
    assert told["sources"] == [
        {
            "source": "cfn",
            "polled": True,
            "asked_at": iso(NOW - 3),
            "answered_at": iso(NOW - 3600),
            "stale": True,
            "problems": [{"text": "HTTP 503", "expected": False}],
        }
    ]
    assert told["targets"] == [
        {
            "target": "nova",
            "outcome": "failed",
            "before": "migrate 2",
            "after": None,
            "message": "no disk",
            "at": iso(NOW - 180),
            "run": "b" * 32,
        }
    ]
