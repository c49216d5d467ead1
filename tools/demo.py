#!/usr/bin/env python3
"""Watch refresh-agent do its job: `make demo`.

In a scratch tree, without root: os-collect-config writes a node's metadata, the hooks of heat-agents run
under refresh-agent's phases, and a small shop's database moves from sqlalchemy-migrate to alembic. Exits
with 0 only if all of what it claims was checked.
"""

import contextlib
import functools
import itertools
import json
import os
import pathlib
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import environments
from demo_parts import history, shop
from demo_parts import tree as layout
from demo_parts.conditions import DemoError, check, holds_for, read, wait_for
from demo_parts.programs import Program, run

STORM = 200
STORM_ATTEMPTS = 3

# Seconds between os-collect-config's looks. It writes its files at every look, changed or not.
CALM = 1.0
BUSY = 0.01

# What every refresh of this node has to go through, in this order.
STEPS = (
    ("pre-configure", "10-quiesce"),
    ("configure", "20-os-apply-config"),
    ("configure", "55-heat-config"),
    ("post-configure", "90-activate"),
    ("migration", "10-announce"),
    ("databases", "shop"),
)


@dataclass(frozen=True)
class Stage:
    """The tree and the programs that run in it so far."""

    tree: layout.Tree
    programs: tuple[Program, ...]

    def must_run(self) -> None:
        for program in self.programs:
            program.must_run()


def step(text: str) -> None:
    print(f"==> {text}", flush=True)


def main() -> int:
    os.umask(0o022)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        names = ("agent", "legacy", "peers", "heat-agents")
        built = layout.Environments(*(environments.ensure(name) for name in names))
        with tempfile.TemporaryDirectory(prefix="refresh-agent-demo-") as scratch:
            return perform(layout.Tree(pathlib.Path(scratch), built))
    except environments.BuildError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was started has been ended", file=sys.stderr)
        return 130


def interrupt(_number: int, _frame: object) -> None:
    """Once: a second one shall not keep the first from cleaning up."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def perform(tree: layout.Tree) -> int:
    """The play, and how it ended: the table in any case."""
    try:
        ending, failed = play(tree), False
    except DemoError as error:
        ending, failed = f"NOT AS IT SHOULD BE: {error}", True
    print(f"\n{history.table(history.runs(tree.journal))}\n\n{ending}", flush=True)
    return 1 if failed else 0


def play(tree: layout.Tree) -> str:
    layout.build(tree)
    before = shop.build(tree)
    step(f"the shop's database is at {before.version}, with {len(before.rows)} rows")
    layout.write_metadata(tree, "first", "good morning")
    step("os-collect-config collects the node's first metadata")
    run("os-collect-config", (*collector(tree), "--one-time"), layout.collector_environment())
    with refreshing(tree) as stage:
        first_run(stage, before)
        single_change(stage)
        storm(stage)
    after = shop.read(tree.database)
    check("the shop's rows at the end", expected=before.rows, seen=after.rows)
    return f"the shop's database: {before.version} before, {after.version} after, all rows intact"


def collector(tree: layout.Tree) -> tuple[str, ...]:
    program = tree.environments.peers / "bin" / "os-collect-config"
    return (str(program), "--config-file", str(tree.collector_config))


@contextlib.contextmanager
def collecting(stage: Stage, interval: float) -> Iterator[Stage]:
    """os-collect-config looks for new metadata all the time."""
    options = ("--polling-interval", str(interval), "--min-polling-interval", str(interval))
    command = (*collector(stage.tree), *options)
    program = Program("os-collect-config", command, layout.collector_environment(), quiet=True)
    try:
        yield replace(stage, programs=(*stage.programs, program))
    finally:
        program.stop()


@contextlib.contextmanager
def refreshing(tree: layout.Tree) -> Iterator[Stage]:
    """The daemon runs; it has to end well when it is told to."""
    step("refresh-agent starts")
    command = (tree.environments.agent / "bin" / "refresh-agent", "--config-file", tree.agent_config)
    program = Program("refresh-agent", command, layout.agent_environment(tree))
    try:
        yield Stage(tree, (program,))
        step("refresh-agent is told to stop")
    finally:
        status = program.stop()
    check("refresh-agent's exit code after SIGTERM", expected=0, seen=status)


# --- the three acts --------------------------------------------------------------------------------------


def first_run(stage: Stage, before: shop.Shop) -> None:
    refreshed(stage, 1, "start")
    deployed(stage.tree, "first", "good morning")
    after = shop.read(stage.tree.database)
    check("the database's version", expected=f"alembic {shop.head(stage.tree)}", seen=after.version)
    check("the shop's rows", expected=before.rows, seen=after.rows)
    step(f"the shop's database is at {after.version} now, and its {len(after.rows)} rows are intact")


def single_change(stage: Stage) -> None:
    step("os-collect-config runs, and the metadata changes once")
    with collecting(stage, CALM) as collected:
        layout.write_metadata(stage.tree, "second", "good afternoon")
        refreshed(collected, 2, "change")
    deployed(stage.tree, "second", "good afternoon")
    step("one refresh followed, and the deployment's script ran with the new input")


def storm(stage: Stage) -> None:
    """A busy machine may tear a storm apart, and then two refreshes are right: that one does not count."""
    for attempt in range(1, STORM_ATTEMPTS + 1):
        done = history.begun(stage.tree.journal)
        step(f"the metadata changes {STORM} times in a row")
        with collecting(stage, BUSY) as collected:
            seconds, longest = rewrite(collected, attempt)
        step(f"os-collect-config passed on {STORM} changes in {seconds:.1f} s")
        if longest < layout.QUIET / 2:
            break
        step(f"but this machine paused for {longest:.1f} s meanwhile: once more")
        settled(stage, f"storm {attempt}, change {STORM}")
    else:
        raise DemoError(f"no storm without a pause in {STORM_ATTEMPTS} attempts: this machine is too busy")
    refreshed(stage, done + 1, "change")
    last = f"storm-{attempt}-{STORM}"
    deployed(stage.tree, last, f"storm {attempt}, change {STORM}")
    run_ids = sorted(path.name for path in stage.tree.deployed.glob(f"storm-{attempt}-???.json"))
    check("deployments of the storm that ran", expected=[f"{last}.json"], seen=run_ids)
    holds_for(3 * layout.QUIET, lambda: no_more_than(stage, done + 1))
    step("exactly one refresh followed, with the last change")


def rewrite(stage: Stage, attempt: int) -> tuple[float, float]:
    """Rewrite the metadata, each time waiting until os-collect-config has passed it on.

    How long it took, and the longest time between two changes.
    """
    passed = []
    for number in range(1, STORM + 1):
        name = f"storm-{attempt}-{number:03}"
        layout.write_metadata(stage.tree, name, f"storm {attempt}, change {number}")
        wait_for(f"os-collect-config passes on {name}", functools.partial(_passed_on, stage, name))
        passed.append(time.monotonic())
    return passed[-1] - passed[0], max(after - before for before, after in itertools.pairwise(passed))


def _passed_on(stage: Stage, deployment: str) -> bool | None:
    stage.must_run()
    return True if f'"{deployment}"' in read(stage.tree.collected) else None


# --- what is checked -------------------------------------------------------------------------------------


def refreshed(stage: Stage, number: int, trigger: str) -> None:
    """That many refreshes have begun and ended, and the last one did all that it should."""

    def ended() -> history.Run | None:
        stage.must_run()
        done = history.runs(stage.tree.journal)
        return done[-1] if len(done) >= number else None

    last = wait_for(f"refresh {number} ends", ended)
    check("refreshes so far", expected=number, seen=history.begun(stage.tree.journal))
    check(f"trigger of refresh {number}", expected=trigger, seen=last.trigger)
    check(f"outcome of refresh {number}", expected="success", seen=last.outcome)
    seen = tuple((done.phase, done.hook) for done in last.steps)
    check(f"steps of refresh {number}", expected=STEPS, seen=seen)


def no_more_than(stage: Stage, number: int) -> None:
    stage.must_run()
    check("refreshes after the storm", expected=number, seen=history.begun(stage.tree.journal))


def settled(stage: Stage, greeting: str) -> None:
    """The change with that greeting is in place and no refresh is under way."""

    def done() -> bool | None:
        stage.must_run()
        journal = stage.tree.journal
        idle = len(history.runs(journal)) == history.begun(journal)
        return True if idle and read(stage.tree.report) == f"{greeting}\n" else None

    wait_for("the agent comes to rest", done)


def deployed(tree: layout.Tree, deployment: str, greeting: str) -> None:
    """The real hooks did their work: script run, its result recorded, template rendered."""
    check("what the script wrote", expected=f"{greeting}\n", seen=read(tree.report))
    result = json.loads(read(tree.deployed / f"{deployment}.notify.json"))
    check("the script's exit code", expected=0, seen=result.get("deploy_status_code"))
    check("the deployment's output", expected=f"{greeting}\n", seen=result.get("said"))
    rendered = read(tree.rendered).splitlines()
    check("what os-apply-config rendered", expected=f"greeting = {greeting}", seen=rendered[-1])


if __name__ == "__main__":
    sys.exit(main())
