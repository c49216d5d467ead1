"""Runs of the installed command to take the power away from, and what is true at each moment of them."""

import contextlib
import http.server
import json
import pathlib
import shutil
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from refresh_agent import opts
from refresh_agent.journal import Journal
from refresh_agent.journal_file import Edge
from refresh_agent.model import Fingerprints, Settings
from tests.functional.node import COMMAND, Node
from tests.reliability.syscalls import Kind, Operation, record

FOLDERS = ("state", "cache", "backup")
HOOKS = (
    "pre-configure/10-quiesce", "pre-configure/20-more", "configure/10-a", "configure/20-b",
    "post-configure/10-activate", "migration/10-a", "migration/20-b",
)  # fmt: skip
LAST_OF_POST_CONFIGURE = "post-configure/10-activate"


# --- the stories -------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """A command, and the metadata when it is called. ``ends``: its exit code; 1 also makes a hook fail."""

    arguments: tuple[str, ...]
    metadata: Mapping[str, Any]
    ends: int = 0

    @property
    def runs(self) -> bool:
        return self.arguments == ("--once",)


ONCE = ("--once",)
A, B = {"name": "a"}, {"name": "b", "more": ["x"] * 300}


def _deployments(*names: str) -> Mapping[str, Any]:
    return {"deployments": [{"name": name, "config": {name: "x" * 700}} for name in names]}


STORIES: Mapping[str, tuple[Step, ...]] = {
    "changes": (Step(ONCE, A), Step(ONCE, B)),
    "trouble": (
        Step(ONCE, A),
        Step(ONCE, B, ends=1),
        Step(("pause", "the power goes"), B),
        Step(("resume",), B),
    ),
    "deployments": (Step(ONCE, _deployments("one", "two", "three")), Step(ONCE, _deployments("two", "four"))),
    "a pause first": (Step(("pause", "before anything"), A),),
}


AFTERWARDS = Edge(boot_id=lambda: "the boot after the power loss", agent="the agent after it")


class Ran(NamedTuple):
    """What the journal told after a step: its newest run, if it has one, and for which documents."""

    run_id: str
    documents: Fingerprints


class Record(NamedTuple):
    """What a story did below ``root``, by operation, and told, by step."""

    root: str
    story: str
    operations: tuple[Operation, ...]
    ran: tuple[Ran, ...]


class Place:
    """A node whose metadata a server gives or a file, by story; it is always at the same path in a record."""

    def __init__(self, root: pathlib.Path, story: str, port: int) -> None:
        self._polled = story == "deployments"
        self.steps = STORIES[story]
        self.node = Node(root)
        text = f"[request]\nmetadata_url = http://127.0.0.1:{port}/metadata/polled\n"
        collectors = "request" if self._polled else "heat_local"
        # A run would make good what a start has to without one.
        self.node.configure(text, collectors=collectors, run_at_boot="changed")
        for hook in HOOKS:
            body = f"test ! -e {root}/fails" if hook == "configure/20-b" else "echo some output of it"
            self.node.hook(hook, body)
        self.node.hook("error/10-tell")

    def stand_at(self, step: int) -> None:
        (self.node.root / "metadata" / "polled").write_text(json.dumps(self.steps[step].metadata))
        if not self._polled:
            self.node.metadata(self.steps[step].metadata)

    @property
    def settings(self) -> Settings:
        return opts.load(opts.Location((str(self.node.config_file),), ()), {})


@contextlib.contextmanager
def server(root: pathlib.Path) -> Iterator[int]:
    """Gives the files below ``root``; its port."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    def handler(*arguments: Any) -> Quiet:
        return Quiet(*arguments, directory=str(root))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield serving.server_address[1]
        finally:
            serving.shutdown()
            thread.join()


def recorded(place: Place, story: str) -> Record:
    """Run its commands, one after the other. Raises StraceError."""
    operations: list[Operation] = []
    ran: list[Ran] = []
    root = place.node.root
    for number, step in enumerate(place.steps):
        place.stand_at(number)
        fails = root / "fails"
        if step.ends:
            fails.touch()
        command = [COMMAND, "--config-file", str(place.node.config_file), *step.arguments]
        operations.append(Operation(Kind.BEGIN, "", number))
        operations += record(command, root, (*FOLDERS, "hooks"))
        assert operations[-1].number == step.ends, f"{story}: {step.arguments} ended with {operations[-1]}"
        fails.unlink(missing_ok=True)
        ran.append(_newest(root) if step.runs else Ran("", ran[-1].documents if ran else ()))
    return Record(str(root), story, tuple(operations), tuple(ran))


def _newest(root: pathlib.Path) -> Ran:
    with opened_copy(root) as journal:
        query = "SELECT run_id, documents FROM runs ORDER BY id DESC LIMIT 1"
        run_id, documents = journal._db.execute(query).fetchone()
    return Ran(run_id, tuple((name, fingerprint) for name, fingerprint in json.loads(documents)))


@contextlib.contextmanager
def opened_copy(root: pathlib.Path) -> Iterator[Journal]:
    """Opening the journal itself would change what is to be looked at."""
    copies = root / "copy"
    shutil.rmtree(copies, ignore_errors=True)
    copies.mkdir(mode=0o700)
    for path in (root / "state").glob("journal.sqlite*"):
        shutil.copy(path, copies)
    with contextlib.closing(Journal(str(copies), AFTERWARDS)) as journal:
        yield journal


# --- what is true at a moment ------------------------------------------------------------------------------


class Truth:
    """What the node went through up to a moment of the record, and so what its disk has to know.

    ``quiesced``, ``paused``: None while either is right.
    """

    def __init__(self, record: Record) -> None:
        self.step = 0
        self.quiesced: bool | None = False
        self.paused: bool | None = False
        self.committed: set[Fingerprints | None] = {None}
        self.begun: list[str] = []
        self._record = record
        self._steps = STORIES[record.story]
        self._ended: list[str] = []

    @property
    def newest(self) -> Fingerprints:
        """What is to be committed in the end; empty where no run is recorded that tells."""
        return self._record.ran[self.step].documents

    @property
    def is_interrupted(self) -> bool:
        """Whether hooks of the first run for the newest documents have begun."""
        return any(ran.run_id in self.begun and ran.documents == self.newest for ran in self._record.ran)

    def see(self, operation: Operation) -> None:
        """Follow the record by one operation."""
        match operation.kind:
            case Kind.BEGIN:
                self.step = operation.number
                self._step_begins(self._steps[self.step])
            case Kind.END:
                self._step_ended(self._steps[self.step])
            case Kind.EXEC:
                self._hook_began(hook_named(operation.path))
            case Kind.EXIT if operation.number == 0:
                self._hook_succeeded(hook_named(operation.path))
            case _:
                pass

    def _step_begins(self, step: Step) -> None:
        self._ended = []
        if step.runs:
            self.quiesced = self.quiesced or None  # it is told before the first hook
        else:
            self.paused = None

    def _step_ended(self, step: Step) -> None:
        if not step.runs:
            self.paused = step.arguments[0] == "pause"
        elif not step.ends:
            self.committed = {self.newest}

    def _hook_began(self, hook: str) -> None:
        run_id = self._record.ran[self.step].run_id
        if run_id not in self.begun:
            self.begun.append(run_id)
        if hook.startswith("pre-configure"):
            self.quiesced = True
        elif hook.startswith("migration"):
            self.quiesced = False

    def _hook_succeeded(self, hook: str) -> None:
        self._ended.append(hook)
        if hook == LAST_OF_POST_CONFIGURE:
            self.quiesced = None
        if tuple(self._ended) == HOOKS:
            self.committed = {*self.committed, self.newest}


def hook_named(path: str) -> str:
    """``hooks/configure.d/10-a`` as hooks are named here."""
    return path.removeprefix("hooks/").replace(".d/", "/")
