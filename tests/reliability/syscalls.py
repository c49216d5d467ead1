"""What a command asks of the file system, by strace, and a disk that may lose of it what was not synced.

The model is stricter than most file systems. Data and size of a file are durable by its own fsync, its name
by that of its directory. Before that, each sector may be as it was at any moment since, and so may the size;
of the names in one directory a first part may be there, in the order in which they were made, as a journal
of metadata keeps it. SQLite's ``-shm`` is never there. Modes are as they are.
"""

import os
import pathlib
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

SECTOR = 512

CALLS = (
    "openat,write,pwrite64,ftruncate,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,"
    "fsync,fdatasync,sync_file_range,copy_file_range,sendfile,chmod,fchmod,fchmodat,execve"
)
"""All that changes a file here, and what starts a program. A call that is not told apart is an error."""

LOST = "-shm"
"""The end of names that are memory rather than files."""


class StraceError(Exception):
    """The calls cannot be recorded; the message says what to do."""


class Kind(StrEnum):
    CREATE = "create"
    SIZE = "size"
    WRITE = "write"
    MODE = "chmod"
    SYNC = "fsync"
    RENAME = "rename"
    LINK = "link"
    UNLINK = "unlink"
    MKDIR = "mkdir"
    RMDIR = "rmdir"
    BEGIN = "begin"
    END = "end"
    EXEC = "exec"
    EXIT = "exit"


class Operation(NamedTuple):
    """``path`` is relative to the recorded folder, and so is ``other``: where it is renamed or linked to.

    ``number``: the offset of a write, a size, a mode, the status of a program, the number of a command.
    """

    kind: Kind
    path: str
    number: int = 0
    other: str = ""
    data: bytes = b""


# --- recording ---------------------------------------------------------------------------------------------


def record(command: Sequence[str], root: pathlib.Path, folders: Sequence[str]) -> list[Operation]:
    """Run it, and tell in order what it did to these folders of ``root``, and the programs it ran from there.

    The last operation is its END. Raises StraceError.
    """
    if shutil.which("strace") is None:
        raise StraceError("needs the command strace: install the system package strace")
    trace = root / "trace"
    options = ["-f", "--seccomp-bpf", "-y", "-xx", "-s", str(2**20), "-e", f"trace={CALLS}", "-o", str(trace)]
    done = subprocess.run(["strace", *options, *command], capture_output=True, text=True, timeout=120)
    text = trace.read_text() if trace.exists() else ""
    trace.unlink(missing_ok=True)
    if "execve(" not in text:
        why = (done.stderr or done.stdout).strip()
        raise StraceError(
            f"strace cannot record what a command does ({why}): this machine does not permit ptrace; in a"
            " container, allow it (--cap-add SYS_PTRACE, or a seccomp profile that has ptrace)"
        )
    operations = [*_Reader(root, folders).read(text.splitlines())]
    return [*operations, Operation(Kind.END, "", done.returncode)]


class _Call(NamedTuple):
    pid: int
    name: str
    arguments: list[str]
    value: int


_LINE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+|\?)(.*)")
_STARTED = re.compile(r"(\d+) +(\w+\(.*) <unfinished \.\.\.>")
_RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)")
_ENDED = re.compile(r"(\d+) +\+\+\+ exited with (\d+) \+\+\+")


class _Reader:
    """From strace's lines to operations. ``-xx`` writes all text as hex, so that no quote can mislead."""

    def __init__(self, root: pathlib.Path, folders: Sequence[str]) -> None:
        self._root = os.path.realpath(root)
        self._folders = folders
        self._started: dict[str, str] = {}
        self._programs: dict[int, str] = {}
        self._positions: dict[tuple[int, str], int] = {}

    def read(self, lines: Sequence[str]) -> Iterator[Operation]:
        for line in lines:
            if ended := _ENDED.fullmatch(line):
                if program := self._programs.pop(int(ended[1]), None):
                    yield Operation(Kind.EXIT, program, int(ended[2]))
                continue
            match = _LINE.fullmatch(self._joined(line))
            if match and match[4].isdigit():
                yield from self._operations(
                    _Call(int(match[1]), match[2], match[3].split(", "), int(match[4]))
                )

    def _joined(self, line: str) -> str:
        """A call beside which another process had one counts when it returns."""
        if started := _STARTED.fullmatch(line):
            self._started[started[1]] = started[2]
            return ""
        if resumed := _RESUMED.fullmatch(line):
            return f"{resumed[1]} {self._started.pop(resumed[1])}{resumed[2]}"
        return line

    def _operations(self, call: _Call) -> Iterator[Operation]:
        match call.name:
            case "execve":
                yield from self._executed(call)
            case "openat":
                yield from self._opened(call)
            case "copy_file_range" | "sendfile":
                yield from self._copied(call)
            case "write" | "pwrite64" | "ftruncate" | "fsync" | "fdatasync" | "fchmod":
                if (path := self._of(call.arguments[0])) is not None:
                    yield self._on_descriptor(call, path)
            case _:
                yield from self._on_names(call)

    def _executed(self, call: _Call) -> Iterator[Operation]:
        path = self._relative(_text(call.arguments[0]))
        if path is not None:
            self._programs[call.pid] = path
            yield Operation(Kind.EXEC, path)

    def _opened(self, call: _Call) -> Iterator[Operation]:
        path = self._relative(_text(call.arguments[1]))
        if path is None:
            return
        self._positions[call.pid, str(call.value)] = 0
        if "O_CREAT" in call.arguments[2]:
            yield Operation(Kind.CREATE, path, int(call.arguments[3], 8))
        if "O_TRUNC" in call.arguments[2]:
            yield Operation(Kind.SIZE, path)

    def _copied(self, call: _Call) -> Iterator[Operation]:
        """Both calls go on where the descriptors stand."""
        reading, writing = call.arguments[0], call.arguments[2]
        if call.name == "sendfile":
            writing, reading = call.arguments[:2]
        path, source = self._of(writing), self._of(reading)
        if path is not None and source is not None and call.value:
            offset, start = self._advance(call, writing), self._advance(call, reading)
            yield Operation(Kind.WRITE, path, offset, source, b"%d:%d" % (start, call.value))

    def _on_descriptor(self, call: _Call, path: str) -> Operation:
        arguments = call.arguments
        match call.name:
            case "write":
                data = _bytes(arguments[1])[: call.value]
                return Operation(Kind.WRITE, path, self._advance(call, arguments[0]), data=data)
            case "pwrite64":
                return Operation(Kind.WRITE, path, int(arguments[3]), data=_bytes(arguments[1])[: call.value])
            case "ftruncate":
                return Operation(Kind.SIZE, path, int(arguments[1]))
            case "fchmod":
                return Operation(Kind.MODE, path, int(arguments[1], 8))
        return Operation(Kind.SYNC, path)

    def _on_names(self, call: _Call) -> Iterator[Operation]:
        """``rename``, ``renameat``, ``renameat2`` and so on: their paths are absolute here."""
        kind = Kind(call.name.rstrip("2").removesuffix("at").replace("fchmod", "chmod"))
        where = [number for number, text in enumerate(call.arguments) if text.startswith('"')]
        path = self._relative(_text(call.arguments[where[0]]))
        if path is None:
            return
        if kind in {Kind.RENAME, Kind.LINK}:
            yield Operation(kind, path, other=self._relative(_text(call.arguments[where[1]])) or "")
        elif kind in {Kind.MKDIR, Kind.MODE}:
            yield Operation(kind, path, int(call.arguments[where[0] + 1], 8))
        else:
            yield Operation(kind, path)

    def _of(self, descriptor: str) -> str | None:
        """The file that strace names behind a descriptor."""
        return self._relative(_text(descriptor.partition("<")[2].removesuffix(">")))

    def _advance(self, call: _Call, descriptor: str) -> int:
        key = call.pid, descriptor.partition("<")[0]
        position = self._positions[key]
        self._positions[key] += call.value
        return position

    def _relative(self, path: str) -> str | None:
        """Below the recorded folders, or the one that holds them; None elsewhere."""
        relative = os.path.relpath(path, self._root)
        known = relative == "." or relative.split("/")[0] in self._folders
        return relative if known else None


def _text(argument: str) -> str:
    return os.fsdecode(_bytes(argument))


def _bytes(argument: str) -> bytes:
    return bytes.fromhex(argument.strip('"').replace("\\x", ""))


# --- the disk ----------------------------------------------------------------------------------------------


class File:
    """``versions``: the content at the last sync, then after each change since."""

    def __init__(self, mode: int) -> None:
        self.mode = mode
        self.versions = [b""]

    @property
    def content(self) -> bytes:
        return self.versions[-1]

    def write(self, offset: int, data: bytes) -> None:
        old = self.content.ljust(offset, b"\0")
        self.versions.append(old[:offset] + data + old[offset + len(data) :])

    def resize(self, size: int) -> None:
        self.versions.append(self.content[:size].ljust(size, b"\0"))

    def sync(self) -> None:
        del self.versions[:-1]

    def after_power_loss(self, chance: random.Random) -> bytes:
        """All as it was at one moment, or each sector, and the size, at a moment of its own."""
        if len(self.versions) == 1 or chance.random() < 0.5:
            return chance.choice((self.versions[0], self.versions[-1], chance.choice(self.versions)))
        size = len(chance.choice(self.versions))
        sectors = (
            chance.choice(self.versions)[start : start + SECTOR].ljust(SECTOR, b"\0")
            for start in range(0, size, SECTOR)
        )
        return b"".join(sectors)[:size]


class Folder:
    """``versions``: the names at the last sync, then after each change since."""

    def __init__(self, mode: int) -> None:
        self.mode = mode
        self.versions: list[Names] = [{}]

    @property
    def names(self) -> "Names":
        return self.versions[-1]

    def change(self, *gone: str, **come: "File | Folder") -> None:
        self.versions.append({k: v for k, v in self.names.items() if k not in gone} | come)

    def sync(self) -> None:
        del self.versions[:-1]


Names = dict[str, File | Folder]


class Entry(NamedTuple):
    """What an image has at a path: ``content`` None for a folder."""

    mode: int
    content: bytes | None


Image = Mapping[str, Entry]
"""By relative path, folders before what is in them."""


class Disk:
    """Empty at first; ``apply`` operations, and look what a power loss at that moment may leave."""

    def __init__(self) -> None:
        self._root = Folder(0o755)

    def apply(self, operation: Operation) -> None:
        kind, path, number = operation.kind, operation.path, operation.number
        folder, name = self._find_folder(path)
        match kind:
            case Kind.CREATE if name not in folder.names:
                folder.change(**{name: File(number)})
            case Kind.MKDIR:
                folder.change(**{name: Folder(number)})
            case Kind.WRITE:
                self._file(path).write(number, self._written(operation))
            case Kind.SIZE:
                self._file(path).resize(number)
            case Kind.MODE:
                self._find(path).mode = number
            case Kind.SYNC:
                self._find(path).sync()
            case Kind.UNLINK | Kind.RMDIR:
                folder.change(name)
            case Kind.RENAME | Kind.LINK:
                target = os.path.split(operation.other)
                assert target[0] == os.path.dirname(path), f"{path} leaves its directory"
                gone = (name,) if kind is Kind.RENAME else ()
                folder.change(*gone, **{target[1]: folder.names[name]})
            case _:
                pass  # programs change nothing here

    def _written(self, operation: Operation) -> bytes:
        if not operation.other:
            return operation.data
        start, count = map(int, operation.data.split(b":"))
        return self._file(operation.other).content[start : start + count]

    def _find(self, path: str) -> File | Folder:
        node: File | Folder = self._root
        for name in path.split("/") if path != "." else ():
            assert isinstance(node, Folder)
            node = node.names[name]
        return node

    def _file(self, path: str) -> File:
        node = self._find(path)
        assert isinstance(node, File), f"{path} is no file"
        return node

    def _find_folder(self, path: str) -> tuple[Folder, str]:
        above, name = os.path.split(path)
        if path in {".", ""} or not above:
            return self._root, name
        try:
            node = self._find(above)
        except KeyError:
            node = self._root  # the place of a program
        assert isinstance(node, Folder)
        return node, name

    def as_written(self) -> Image:
        """Everything so far has reached the disk."""
        return dict(_entries(self._root, "", lambda versions: versions[-1], lambda file: file.content))

    def after_power_loss(self, chance: random.Random) -> Image:
        """What was not synced may be there, or not, or in part."""
        found: dict[int, bytes] = {}  # a file may have two names

        def content(file: File) -> bytes:
            if id(file) not in found:
                found[id(file)] = file.after_power_loss(chance)
            return found[id(file)]

        return dict(_entries(self._root, "", chance.choice, content))


def _entries(
    folder: Folder, above: str, names: Callable[[list[Names]], Names], content: Callable[[File], bytes]
) -> Iterator[tuple[str, Entry]]:
    for name, node in sorted(names(folder.versions).items()):
        if isinstance(node, Folder):
            yield above + name, Entry(node.mode, None)
            yield from _entries(node, f"{above}{name}/", names, content)
        elif not name.endswith(LOST):
            yield above + name, Entry(node.mode, content(node))


def lay_out(image: Image, root: pathlib.Path, folders: Sequence[str]) -> None:
    """Make these folders of ``root`` what the image says."""
    for folder in folders:
        shutil.rmtree(root / folder, ignore_errors=True)
    for path, (mode, content) in image.items():
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)
        (root / path).chmod(mode)
