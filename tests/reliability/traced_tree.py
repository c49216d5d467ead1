"""A tree of hooks that note what they do, and the judgement on what they have noted.

Every note is one write to a file outside the state, opened to append: their order is that in which things
happened, whichever process wrote them.
"""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tests.functional.node import Node

HOOKS = (
    "pre-configure/00-look",
    "pre-configure/10-quiesce",
    "configure/10-see",
    "configure/20-write",
    "configure/30-linger",
    "post-configure/10-activate",
    "post-configure/20-background",
    "migration/10-migrate",
)
"""In the order in which a run has to go through them."""

ERROR = "error/10-tell"

LINGERING = (*("no",) * 3, "plain", "stubborn", "child", "wiped", "broken-pipe")
"""What configure/30-linger may do. It is over at once; or stays for a while: as itself, deaf to TERM, with a
child without an environment, without one itself; or leaves such a child if nobody reads its output any more.
"""

LINES = 12
"""That configure/20-write writes; half a file is what it leaves if it is killed."""

WIPED = frozenset({"wiped", "broken-pipe"})

_LIBRARY = r"""
trace=$root/trace
me="$REFRESH_AGENT_RUN_ID $REFRESH_AGENT_PHASE/${0##*/}"
read -r linger pace 2>/dev/null < $root/dice || { linger=no; pace=0.01; }
note() { echo "$*" >> $trace; }
nap() { (exec -a "nap $root $me" sleep "$1"); }
wiped_nap() { exec env -i /bin/bash -c 'exec -a "$0" sleep "$1"' "nap $root $me" "$1"; }
note "begin $me $$"
"""

_LOOK = r"""
for process in /proc/[0-9]*; do
  [ ${process##*/} = $$ ] && continue
  { mapfile -d '' -t argv < $process/cmdline; } 2>/dev/null || continue
  case "${argv[*]}" in
    *refresh-agent\ --config-file*) ;;
    *"$root"/hooks/*|"nap $root"*|*" nap $root"*|*"$root/trace"*) note "alive $me :: ${argv[*]}" ;;
  esac
done
"""

_LINGER = r"""
case $linger in
  plain) nap 0.8 ;;
  stubborn) trap '' TERM; nap 0.8; nap 0.8 ;;
  child) (wiped_nap 0.8) ;;
  broken-pipe) note "wiped $me"; (wiped_nap 0.8) & sleep 0.1; echo still here ;;
  wiped)
    note "wiped $me"
    exec env -i /bin/bash -c '(exec -a "nap $2" sleep 0.8); echo "end $0" >> $1' "$me" $trace "$root $me" ;;
esac
"""

_BODIES = {
    "pre-configure/00-look": _LOOK,
    "pre-configure/10-quiesce": "touch $root/quiesced; nap $pace",
    "configure/10-see": 'note "saw $me $(tr -dc 0-9 < $OS_CONFIG_FILES)"',
    "configure/20-write": f"for i in {{1..{LINES}}}; do echo $i; sleep 0.001; done > $root/written",
    "configure/30-linger": _LINGER,
    "post-configure/10-activate": "nap $pace; rm -f $root/quiesced",
    "post-configure/20-background": "(wiped_nap 0.4) >/dev/null 2>&1 &",
    "migration/10-migrate": "nap $pace",
    ERROR: "nap 0.01",
}


class TracedTree(Node):
    """Its hooks take 0 to 50 ms, as ``dice`` says, and leave the marker ``quiesced`` in between."""

    def __init__(self, root: pathlib.Path) -> None:
        super().__init__(root)
        self.configure(
            "[debounce]\nquiet = 0.05\nmax_wait = 0.2\n[phases]\nkill_grace = 0.3\nstop_grace = 0.5\n"
            "[journal]\nkeep_runs = 1000000"
        )
        self.trace_file = root / "trace"
        self.marker = root / "quiesced"
        self.written_file = root / "written"
        self.trace_file.touch()
        (root / "library").write_text(f"root={root}{_LIBRARY}")
        for place, body in _BODIES.items():
            self.hook(place, f'. {root}/library\n{body}\nnote "end $me"')

    def roll(self, linger: str, pace: float) -> None:
        """How the hooks that begin from now on take their time."""
        (self.root / "dice.new").write_text(f"{linger} {pace:.3f}\n")
        (self.root / "dice.new").rename(self.root / "dice")

    def notes(self) -> list[str]:
        return self.trace_file.read_text().splitlines()

    def recorded(self) -> dict[tuple[str, str], str | None]:
        """What the journal says has become of each hook, by (run id, place)."""
        rows = self.rows("SELECT run_id, phase, hook, hooks.outcome FROM hooks JOIN runs ON runs.id = run")
        return {(run_id, f"{phase}/{hook}"): outcome for run_id, phase, hook, outcome in rows}

    def processes(self) -> dict[int, str]:
        """The pids of what runs of this tree, and how it was called."""
        found = {}
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue
            if f"{self.root}/" in words or f"nap {self.root} " in words:
                found[int(path.parent.name)] = words
        return found


class Note(NamedTuple):
    """One line: what happened, in which run, in which hook, and what else it says."""

    what: str
    run: str
    place: str
    more: str


def read_note(line: str) -> Note:
    what, run, place, *more = line.split(" ", 3)
    return Note(what, run, place, more[0] if more else "")


class Judgement(NamedTuple):
    """What must never be, in words; and how often a hook was out of reach: killed together with the agent's
    knowledge of it, within 2 ms of its start, and without an environment that tells whose it is.
    """

    violations: tuple[str, ...]
    out_of_reach: int


def judge(lines: Iterable[str], recorded: Mapping[tuple[str, str], str | None]) -> Judgement:
    """Whether one hook ran at a time, each run's from the first in their order, after all that was left."""
    notes = [read_note(line) for line in lines]
    wiped = {(note.run, note.place) for note in notes if note.what == "wiped"}
    out_of_reach = wiped - recorded.keys()
    considered = [note for note in notes if note.what != "wiped" and not _excused(note, out_of_reach)]
    runs = _by_run(considered)
    problems = [*_overlaps(considered), *_still_alive(considered, recorded)]
    for run, of_run in runs.items():
        problems += _out_of_order(run, of_run)
    return Judgement(tuple(problems), len(out_of_reach))


def succeeded(lines: Iterable[str], run: str) -> bool:
    """Whether every hook of the run came to its end."""
    notes = [read_note(line) for line in lines if run in line]
    ended = [note.place for note in notes if note.what == "end" and note.run == run]
    return ended == list(HOOKS)


def _excused(note: Note, out_of_reach: set[tuple[str, str]]) -> bool:
    if note.what == "alive":
        return any(run in note.more and place in note.more for run, place in out_of_reach)
    return note.what == "end" and (note.run, note.place) in out_of_reach


def _by_run(notes: Sequence[Note]) -> dict[str, list[Note]]:
    runs: dict[str, list[Note]] = {}
    for note in notes:
        runs.setdefault(note.run, []).append(note)
    return runs


def _overlaps(notes: Sequence[Note]) -> list[str]:
    """A run that says something after another has begun."""
    problems, over, current = [], set(), ""
    for note in notes:
        if note.run in over:
            problems.append(f"run {note.run[:8]} goes on ({note.what} {note.place}) beside {current[:8]}")
        elif note.run != current:
            over.add(current)
            current = note.run
    return problems


def _still_alive(notes: Sequence[Note], recorded: Mapping[tuple[str, str], str | None]) -> list[str]:
    """What ran when a run began, and was not left behind by a hook that had come to its end."""
    ended: set[tuple[str, str]] = set()
    problems = []
    for note in notes:
        if note.what == "end":
            ended.add((note.run, note.place))
        if note.what != "alive":
            continue
        owners = [key for key in recorded.keys() | ended if key[0] in note.more and key[1] in note.more]
        if not any(key in ended or recorded.get(key) not in {None, "interrupted"} for key in owners):
            problems.append(f"run {note.run[:8]} began beside{note.more.removeprefix('::')}")
    return problems


def _out_of_order(run: str, notes: Sequence[Note]) -> list[str]:
    """Each hook after the end of the one before; only error.d after one that did not come to its end."""
    moves = [f"{note.what} {note.place}" for note in notes if note.what in {"begin", "end"}]
    wanted = [f"{what} {place}" for place in HOOKS for what in ("begin", "end")]
    errors = [f"begin {ERROR}", f"end {ERROR}"]
    regular = [move for move in moves if move not in errors]
    tail = moves[len(regular) :]
    if regular == wanted[: len(regular)] and tail == errors[: len(tail)]:
        return []
    return [f"run {run[:8]} went {', '.join(moves)}"]
