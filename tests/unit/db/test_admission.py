"""Which targets a worker is given at all: with real files, and an interpreter where one is asked."""

import os
import pathlib
import pwd
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from refresh_agent.db import admission, bridge
from refresh_agent.db.admission import RefusedError, admit
from refresh_agent.db.surroundings import Surroundings
from refresh_agent.db.worker.protocol import Order
from refresh_agent.lines import Listener
from refresh_agent.model import Command, Ending, Exit, MigrationOutcome, Stream, Target, TrustMode
from refresh_agent.phases.process import Grace, ProcessRunner
from refresh_agent.phases.trust import Trust
from refresh_agent.wakeup import Stop

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@dataclass
class Node:
    """A folder with an alembic tree; real processes, and the agent's real rule of trust."""

    root: pathlib.Path
    runner: ProcessRunner
    log: list[str] = field(default_factory=list)
    learnt: list[str] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.write("alembic.ini", "[alembic]\nscript_location = %(here)s/alembic\n")
        self.write("alembic/env.py")
        self.write("alembic/versions/1_first.py")
        self.target = Target(
            "shop", "sqlite:////shop.db", sys.executable, "", alembic_config=str(self.root / "alembic.ini")
        )

    def write(self, name: str, text: str = "", mode: int = 0o644) -> pathlib.Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def run(self, command: Command, listener: Listener) -> Exit:
        self.commands.append(command)
        return self.runner.run(command, listener.feed)

    def surroundings(self, **changes: Any) -> Surroundings:
        def rule(
            look: Callable[[Trust], Callable[..., str]], *more: Any
        ) -> Callable[[str, frozenset[int]], str]:
            return lambda path, owners: look(Trust(owners))(path, *more)

        plain = Surroundings(
            run=self.run,
            log=self.log.append,
            env=dict(os.environ),
            objection=rule(lambda trust: trust.objection),
            program_objection=rule(lambda trust: trust.hook_objection, os.environ),
            learn=self.learnt.extend,
        )
        return replace(plain, **changes)

    def refusal(self, **options: Any) -> str:
        with pytest.raises(RefusedError) as told:
            admit(replace(self.target, **options), self.surroundings())
        return str(told.value)


@pytest.fixture
def runner() -> Iterator[ProcessRunner]:
    stop = Stop()
    yield ProcessRunner(stop, Grace(kill=1, stop=0))
    stop.close()


@pytest.fixture
def node(tmp_path: pathlib.Path, runner: ProcessRunner) -> Node:
    return Node(tmp_path, runner)


def test_what_is_sound_is_admitted_without_a_process(node: Node) -> None:
    admitted = admit(node.target, node.surroundings())
    assert (admitted.target, admitted.user, node.commands, node.log) == (node.target, None, [], [])


class TestTheConnectionOfTheService:
    def test_it_is_read_now_and_its_secrets_are_learnt(self, node: Node) -> None:
        conf = node.write("shop.conf", "[database]\nconnection = mysql://shop:geh%40eim@db/shop\n")
        target = replace(node.target, connection="", connection_from=str(conf))
        assert admit(target, node.surroundings()).target.connection == "mysql://shop:geh%40eim@db/shop"
        assert set(node.learnt) == {"geh%40eim", "geh@eim"}

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (None, "connection_from: {conf}: cannot be read: No such file or directory"),
            ("[DEFAULT]\n", "connection_from: {conf}: has no [database] connection; set it there, or set"),
            (
                "[database]\nconnection = geheim\n",
                "connection_from: {conf}: [database] connection: not a data",
            ),
            (
                "[database]\nconnection = sqlite:///x\n",
                "connection_from: {conf}: [database] connection: an SQ",
            ),
        ],
    )
    def test_without_one_the_target_is_refused(self, node: Node, text: str | None, said: str) -> None:
        conf = node.root / "shop.conf"
        if text is not None:
            conf.write_text(text)
        refusal = node.refusal(connection="", connection_from=str(conf))
        assert refusal.startswith(said.format(conf=conf))
        assert "geheim" not in refusal

    def test_only_now_it_is_known_that_the_backup_does_not_suit_it(self, node: Node) -> None:
        conf = node.write("shop.conf", "[database]\nconnection = mysql://db/shop\n")
        refusal = node.refusal(connection="", connection_from=str(conf), backup="builtin")
        assert refusal.startswith("backup: builtin is for SQLite alone")

    def test_a_refused_target_does_not_keep_the_others_from_being_asked(self, node: Node) -> None:
        other = replace(node.target, name="other", connection="", connection_from="/nowhere/shop.conf")
        said = b'{"target": "shop", "event": "result", "result": "done"}\n'

        def run(command: Command, listener: Listener) -> Exit:
            listener.feed(Stream.STDOUT, said)
            return Exit(0, Ending.EXITED, 0)

        refused, done = bridge.ask(Order("upgrade"), (other, node.target), node.surroundings(run=run))
        assert (refused.outcome, done.outcome) == (MigrationOutcome.REFUSED, MigrationOutcome.DONE)
        assert refused.message == (
            "other: connection_from: /nowhere/shop.conf: cannot be read: No such file or directory"
        )


class TestTrust:
    @pytest.mark.parametrize(
        "name",
        ["alembic.ini", "alembic/env.py", "alembic/versions/1_first.py", "alembic", "alembic/versions"],
    )
    def test_what_everybody_may_write_is_not_executed(self, node: Node, name: str) -> None:
        path = node.root / name
        path.chmod(0o777)
        assert node.refusal() == (
            f"what it would execute is not to be trusted: {path} is writable by everybody ([phases] trust);"
            " give it to root, and take others' right to write (chown, chmod go-w)"
        )

    @as_root
    def test_nor_what_belongs_to_a_stranger(self, node: Node) -> None:
        path = node.write("alembic/versions/2_second.py")
        os.chown(path, 1, -1)
        assert f"{path} is owned by user 1 ({pwd.getpwuid(1).pw_name}) (" in node.refusal()
        assert "; give it to root or to nobody, and take" in node.refusal(user="nobody")

    @as_root
    def test_what_belongs_to_the_targets_own_user_is(self, node: Node) -> None:
        path = node.write("alembic/versions/2_second.py")
        os.chown(path, 65534, -1)
        assert f"{path} is owned by user 65534 (nobody) (" in node.refusal()
        assert admit(replace(node.target, user="nobody"), node.surroundings()).user is not None

    @pytest.mark.parametrize("option", ["python", "backup"])
    def test_programs_count_with_their_interpreters(self, node: Node, option: str) -> None:
        inner = node.write("inner", "#!/bin/sh\n", 0o777)
        outer = node.write("outer", f"#!{inner}\n", 0o755)
        assert f"its interpreter {inner} is writable by everybody" in node.refusal(**{option: str(outer)})

    def test_the_legacy_interpreter_counts_only_with_a_repository(self, node: Node) -> None:
        loose = node.write("python", "#!/bin/sh\n", 0o777)
        repository = node.write("legacy/migrate.cfg").parent
        admit(replace(node.target, legacy_python=str(loose)), node.surroundings())
        options = {"legacy_python": str(loose), "migrate_repository": str(repository)}
        assert f"{loose} is writable by everybody" in node.refusal(**options)

    def test_a_warning_names_each_and_off_looks_at_none(self, node: Node) -> None:
        one = node.write("alembic/env.py", mode=0o666)
        two = node.write("alembic/versions/1_first.py", mode=0o666)
        admit(node.target, node.surroundings(trust=TrustMode.OFF))
        assert node.log == []
        admit(node.target, node.surroundings(trust=TrustMode.WARN))
        assert [line.partition(";")[0] for line in node.log] == [
            f"shop: what it executes is not to be trusted: {path} is writable by everybody ([phases] trust)"
            for path in (one, two)
        ]

    def test_of_a_tree_that_is_wrong_as_a_whole_not_every_file_is_told(self, node: Node) -> None:
        for number in range(100):
            node.write(f"alembic/versions/{number}_x.py", mode=0o666)
        admit(node.target, node.surroundings(trust=TrustMode.WARN))
        assert len(node.log) == admission.MOST_WARNINGS + 1
        assert node.log[-1] == "shop: and there is more of that"

    def test_a_tree_without_end_is_refused(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("refresh_agent.db.trees.MOST", 1)
        assert "is no tree of migrations" in node.refusal()


class TestATreeInAPackage:
    def test_it_is_found_by_the_targets_interpreter_and_not_imported(self, node: Node) -> None:
        node.write("lib/depot/__init__.py", "raise SystemExit('imported')")
        loose = node.write("lib/depot/db/alembic/versions/1.py", mode=0o666)
        options = {
            "alembic_config": "",
            "alembic_location": "depot.db:alembic",
            "python_path": (str(node.root / "lib"),),
        }
        assert f"{loose} is writable by everybody" in node.refusal(**options)
        (command,) = node.commands
        assert (command.path, command.argv[1]) == (sys.executable, "-c")

    def test_a_module_in_the_working_directory_is_not_found(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(node.root)
        node.write("json.py", "raise SystemExit('executed')")
        node.write("depot/db/alembic/env.py", mode=0o666)
        target = replace(node.target, alembic_config="", alembic_location="depot.db:alembic")
        admit(target, node.surroundings())
        assert len(node.commands) == 1

    @pytest.mark.parametrize("answer", ["", "no JSON", "{}", "[1]"])
    def test_what_the_interpreter_says_otherwise_is_for_the_worker_to_tell(
        self, node: Node, answer: str
    ) -> None:
        python = node.write("python", f"#!/bin/sh\necho '{answer}'\n", 0o755)
        target = replace(node.target, python=str(python), alembic_config="", alembic_location="depot:alembic")
        assert admit(target, node.surroundings()).target == target


@as_root
class TestAnotherUser:
    @pytest.fixture
    def node(self, runner: ProcessRunner) -> Iterator[Node]:
        """pytest's own folders are closed to others."""
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            yield Node(pathlib.Path(folder), runner)

    def test_the_worker_is_started_as_that_one_with_little_of_our_environment(self, node: Node) -> None:
        python = node.write("python", "#!/bin/sh\nid -un >&2; env | sort >&2\n", 0o755)
        env = {"PATH": os.environ["PATH"], "OS_PASSWORD": "geheim"}
        target = replace(node.target, user="nobody", python=str(python))
        (result,) = bridge.ask(Order("upgrade"), (target,), node.surroundings(env=env))
        assert result.outcome is MigrationOutcome.FAILED
        assert "shop: nobody" in node.log
        assert "shop: HOME=/nonexistent" in node.log
        assert not any("OS_PASSWORD" in line for line in node.log)

    def test_a_package_that_is_closed_to_that_user_is_named(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        worker = node.write("closed/worker.py")
        worker.parent.chmod(0o700)
        monkeypatch.setattr(bridge, "WORKER", str(worker))
        target = replace(node.target, user="nobody", python="/usr/bin/python3")
        (result,) = bridge.ask(Order("upgrade"), (target,), node.surroundings())
        assert result.message.startswith(
            f"shop: user nobody cannot read refresh-agent's own {worker}: {worker.parent} is closed to it;"
            " install refresh-agent where everybody may read it; it said last: "
        )

    def test_so_is_an_interpreter_and_one_that_is_missing(self, node: Node) -> None:
        python = node.write("closed/python", "#!/bin/sh\n", 0o755)
        python.parent.chmod(0o700)
        target = replace(node.target, user="nobody", python=str(python))
        (result,) = bridge.ask(Order("upgrade"), (target,), node.surroundings())
        assert result.message.startswith(f"shop: user nobody cannot use python {python}: {python.parent} is")
        missing = replace(target, python="/nowhere/python")
        (result,) = bridge.ask(Order("upgrade"), (missing,), node.surroundings())
        assert result.message.startswith("shop: python /nowhere/python: does not exist; correct the option")

    def test_a_worker_that_is_killed_is_no_matter_of_rights(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        worker = node.write("closed/worker.py")
        worker.parent.chmod(0o700)
        monkeypatch.setattr(bridge, "WORKER", str(worker))
        python = node.write("python", "#!/bin/sh\necho out of memory >&2\nkill -9 $$\n", 0o755)
        target = replace(node.target, user="nobody", python=str(python))
        (result,) = bridge.ask(Order("upgrade"), (target,), node.surroundings())
        assert result.message == (
            f"shop: its worker ({python}) was killed by signal 9 without a result; it said last: out of"
            " memory"
        )

    def test_a_user_that_is_none_is_refused(self, node: Node) -> None:
        assert node.refusal(user="nobody-there").startswith("user: there is no user 'nobody-there'")

    def test_targets_of_two_users_do_not_share_a_worker(self, node: Node) -> None:
        asked = []

        def run(command: Command, listener: Listener) -> Exit:
            asked.append(command.argv[:-1])
            return Exit(0, Ending.EXITED, 0)

        other = replace(node.target, name="other", user="nobody")
        third = replace(node.target, name="third", user="root")
        bridge.ask(Order("upgrade"), (node.target, other, third), node.surroundings(run=run))
        own, others = asked
        assert own == (sys.executable,)
        assert others[-1] == sys.executable
        assert others[0].endswith("/setpriv")


def test_the_secrets_of_a_connection_are_known_as_they_stand_there_and_as_a_driver_has_them() -> None:
    assert set(admission.secrets("mysql://shop:a%2Bb+c@db/shop")) == {"a%2Bb+c", "a+b+c", "a+b c"}
