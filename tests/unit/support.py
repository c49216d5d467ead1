"""Small things that tests build from: settings, hooks, lists of output lines, open descriptors."""

import contextlib
import json
import os
import pathlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from refresh_agent.lines import Lines
from refresh_agent.model import (
    CollectorSettings,
    Failure,
    HookEvent,
    HookResult,
    MetadataLimits,
    PhaseSettings,
    PollingSettings,
    RetrySettings,
    Settings,
    StartedHook,
)

LIMITS = MetadataLimits(bytes=2**20, depth=64)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
)
NUMBERS = st.floats() | st.integers() | st.sampled_from([10**400, -(10**400)])
"""As JSON may hold them: infinite, not a number, and beyond what a float can be."""

KEYS = st.text(st.characters(exclude_characters=".", exclude_categories=["Cs"]), max_size=3)


def json_values(keys: st.SearchStrategy[str] = KEYS) -> st.SearchStrategy[Any]:
    return st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=8,
    )


def json_objects(keys: st.SearchStrategy[str] = KEYS) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(keys, json_values(keys), max_size=4)


def one_of_few() -> st.SearchStrategy[dict[str, Any]]:
    """Objects that often share their keys, so that merging and comparing them has something to do."""
    return json_objects(st.sampled_from(["a", "b", "c"]))


# --- input that is not good metadata: name, bytes, what the message says -----------------------------------

BAD_METADATA = [
    ("a list", b"[1, 2]", "is a JSON list, not an object"),
    ("a string", b'"x"', "is a JSON string, not an object"),
    ("null", b"null", "is a JSON null, not an object"),
    ("a number", b"17", "is a JSON number, not an object"),
    ("true", b"true", "is a JSON true or false, not an object"),
    ("empty", b"", "is empty"),
    ("blank", b" \n\t\n", "is empty"),
    ("truncated", b'{"a": {"b": 1', "is not JSON"),
    ("two objects", b"{}{}", "is not JSON"),
    ("byte order mark", b'\xef\xbb\xbf{"a": 1}', "byte order mark"),
    ("not UTF-8", b'{"a": "\xff"}', "is not UTF-8 (at byte 7)"),
    ("UTF-16", '{"a": 1}'.encode("utf-16"), "is not UTF-8"),
    ("lists 10,000 deep", b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "nests deeper than"),
    ("objects 10,000 deep", b'{"a": ' * 10_000 + b"1" + b"}" * 10_000, "nests deeper than"),
    ("65 deep", b'{"a": ' * 65 + b"1" + b"}" * 65, "nests deeper than [limits] metadata_depth (64)"),
    ("endless integer", b'{"a": ' + b"9" * 5000 + b"}", "a number is too long"),
    (
        "too large",
        b'{"a": "' + b"x" * 2**20 + b'"}',
        "is larger than [limits] metadata_bytes (1048576 bytes)",
    ),
]
BAD_METADATA_IDS = [name for name, _, _ in BAD_METADATA]


# --- files -------------------------------------------------------------------------------------------------


def write_json(path: pathlib.Path, content: Any) -> pathlib.Path:
    """By rename, as the writers of metadata do it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(content))
    temporary.rename(path)
    return path


def write_hook(path: pathlib.Path, body: str = "", *, shebang: str = "#!/bin/bash\n") -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{shebang}{body}\n")
    path.chmod(0o755)
    return path


def looping_link(path: pathlib.Path) -> pathlib.Path:
    """Cannot be opened by anybody, root included: it leads to itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(path.name)
    return path


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- settings ----------------------------------------------------------------------------------------------


@dataclass
class Tree:
    """A node's files in a folder, and the settings that name them."""

    root: pathlib.Path

    @property
    def base(self) -> pathlib.Path:
        return self.root / "hooks"

    @property
    def state(self) -> pathlib.Path:
        return self.root / "state"

    @property
    def cache(self) -> pathlib.Path:
        return self.root / "cache"

    @property
    def metadata(self) -> pathlib.Path:
        return self.root / "metadata" / "cfn-init-data"

    @property
    def lock(self) -> pathlib.Path:
        return self.root / "run.lock"

    def settings(self, **changes: Any) -> Settings:
        phases = PhaseSettings(str(self.base), kill_grace=2, stop_grace=2, **changes.pop("phases", {}))
        values: dict[str, Any] = {
            "state_dir": str(self.state),
            "lock_file": str(self.lock),
            "cachedir": str(self.cache),
            "polling": PollingSettings(),
            "collectors": (CollectorSettings("heat_local", {"path": [str(self.metadata)]}),),
            "limits": LIMITS,
            "quiet": 0.05,
            "max_wait": 1.0,
            "phases": phases,
            "retry": RetrySettings(0.1, 0.2, 0),
            **changes,
        }
        return Settings(**values)

    def hook(self, place: str, body: str = "") -> pathlib.Path:
        """``place`` is like "configure/10-a"; every hook notes that it ran, then does ``body``."""
        phase, name = place.split("/")
        return write_hook(self.base / f"{phase}.d" / name, f"echo {place} >> {self.root}/ran\n{body}")

    def ran(self) -> list[str]:
        path = self.root / "ran"
        return path.read_text().split() if path.exists() else []


@dataclass
class Recording:
    """A Recorder that keeps what it is told."""

    events: list[str] = field(default_factory=list)
    results: list[HookResult] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    thread: int = field(default_factory=threading.get_ident)
    sourced: list[str] = field(default_factory=list)

    def phase_began(self, phase: str, hooks: int) -> None:
        self.events.append(f"{phase} begins with {hooks}")

    def phase_ended(self, phase: str, failure: Failure | None) -> None:
        self.events.append(f"{phase} ends{' badly' if failure else ''}")

    def hooks_changed(self, events: Sequence[HookEvent]) -> None:
        assert threading.get_ident() == self.thread  # a journal belongs to one thread
        for event in events:
            if isinstance(event, StartedHook):
                assert event.hook_id
                without = "" if event.pid else " without a process"
                self.events.append(f"{event.phase}/{event.hook}{without}")
            else:
                self.results.append(event)

    def listener(self, phase: str, hook: str) -> Lines:
        return Lines(lambda stream, text: self.lines.append(f"{phase}/{hook}/{stream}: {text}"))

    def sourcing(self, phase: str, path: str) -> None:
        self.sourced.append(f"{phase}: {path}")

    def note(self, phase: str, text: str) -> None:
        self.notes.append(f"{phase}: {text}")

    def warn(self, phase: str, text: str) -> None:
        self.notes.append(f"warning: {phase}: {text}")


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
