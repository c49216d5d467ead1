"""The files that os-collect-config would keep: what hooks read, and os-apply-config when run by hand.

``NAME.json`` for every document, ``.orig`` beside it as it first was and ``.last`` as it last was committed,
and the list of them in the order in which they are merged. Every file is whole at every moment, also after a
power loss. Contents are handed over as (name, path of the stored copy): a document is never in memory here.
"""

import contextlib
import io
import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from refresh_agent import files, metadata
from refresh_agent.errors import StateError
from refresh_agent.model import Fingerprints, MetadataLimits

Contents = Sequence[tuple[str, str]]
"""(name, path of the file that holds its content), in the order in which hooks merge them."""

LIST_NAME = "os_config_files"
LIST_LIMIT = 4 * 2**20
MODE = 0o600
CHUNK = 256 * 1024
ORIG = ".orig"
LAST = ".last"


def write(cachedir: str, contents: Contents) -> tuple[str, ...]:
    """Write ``NAME.json`` for each content, then the list of them; the paths in order.

    What is not among them any more goes, with its ``.orig`` and ``.last``. A file that holds its content
    already is left alone. Raises StateError.
    """
    paths = tuple(path_of(cachedir, name) for name, _ in contents)
    with _told(cachedir, "cachedir"):
        files.make_directory(cachedir, 0o755)
        before = _names(cachedir, cachedir)
        changed = [
            _put(stored, target)
            for path, (_, stored) in zip(paths, contents, strict=True)
            for target in (path + ORIG, path)
            if target == path or not _is_file(target)
        ]
        _put_list(cachedir, json.dumps(paths).encode(), after=any(changed))
        _remove(cachedir, before, {name for name, _ in contents})
    return paths


def commit(cachedir: str, contents: Contents) -> None:
    """``.last`` holds what a run has brought onto the node. Raises StateError.

    From the stored copies, as the journal knows them: a hook may have written to ``NAME.json`` meanwhile.
    """
    with _told(cachedir, "cachedir"):
        files.make_directory(cachedir, 0o755)
        paths = [path_of(cachedir, name) for name, _ in contents]
        changed = [_put(stored, path + LAST, path) for path, (_, stored) in zip(paths, contents, strict=True)]
        if any(changed):
            files.sync_directory(cachedir)


def repair(cachedir: str, contents: Contents) -> None:
    """Make the cache hold what the journal has committed, if a crash or somebody has kept it from that.

    Only while nothing newer is to be tried again. Raises StateError.
    """
    write(cachedir, contents)
    commit(cachedir, contents)


def back_up(cachedir: str, backup_cachedir: str) -> None:
    """The same files in another directory, each replaced as a whole; the list names those of ``cachedir``.

    os-collect-config removes that directory first, and with it the list that os-apply-config reads. Raises
    StateError.
    """
    if not backup_cachedir or _listed(cachedir) is None:
        return
    with _told(backup_cachedir, "backup_cachedir"):
        files.make_directory(backup_cachedir, 0o755)
        if os.path.samefile(cachedir, backup_cachedir):
            return
        before = _names(backup_cachedir, cachedir)
        names = _names(cachedir, cachedir)
        changed = [
            _mirror(path_of(cachedir, name), path_of(backup_cachedir, name), suffix)
            for name in names
            for suffix in (ORIG, "", LAST)
        ]
        data = files.read_regular(path_of(cachedir, LIST_NAME), LIST_LIMIT)
        _put_list(backup_cachedir, data, after=any(changed))
        _remove(backup_cachedir, before, set(names))


def committed(cachedir: str, limits: MetadataLimits, documents: Fingerprints = ()) -> Fingerprints | None:
    """What os-collect-config last ran its command for with success, in the order of its list.

    None if that cannot be told for sure: no list, or a bad one, or one that names files elsewhere or one
    twice; or a ``.last`` that is missing or torn, since os-collect-config writes it without fsync. The names
    are os-collect-config's, which does not make them safe; but if the contents are those of ``documents``,
    in that order, nothing has changed, and ``documents`` is what comes back.
    """
    names = _names(cachedir, cachedir)
    if not names or len(names) != len(_listed(cachedir) or ()) or len(set(names)) != len(names):
        return None
    found = []
    for name in names:
        try:
            raw = files.read_regular(path_of(cachedir, name) + LAST, limits.bytes)
            found.append((name, metadata.fingerprint(metadata.parse(raw, limits))))
        except (OSError, metadata.MetadataError):
            return None
    same = [fingerprint for _, fingerprint in found] == [fingerprint for _, fingerprint in documents]
    return documents if same else tuple(found)


def names(cachedir: str) -> tuple[str, ...]:
    """Those of the documents that its list names, in their order: what was collected last."""
    return tuple(_names(cachedir, cachedir))


# --- the list ----------------------------------------------------------------------------------------------


def path_of(directory: str, name: str) -> str:
    """Where the document of that name is."""
    return os.path.join(directory, f"{name}.json")


def _listed(directory: str) -> list[str] | None:
    """The paths in the list of this directory; None if there is none, or it is not what it should be."""
    try:
        listed = json.loads(files.read_regular(path_of(directory, LIST_NAME), LIST_LIMIT))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(listed, list) or not all(isinstance(path, str) and _usable(path) for path in listed):
        return None
    return listed


def _usable(path: str) -> bool:
    """JSON can hold what no file is called: half a surrogate pair, a zero byte."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def _names(directory: str, cachedir: str) -> list[str]:
    """Whose files in ``cachedir`` itself the list of ``directory`` names; what lies elsewhere is not ours."""
    here = os.path.realpath(cachedir)
    names = []
    for path in _listed(directory) or ():
        parent, base = os.path.split(path)
        name, suffix = os.path.splitext(base)
        if suffix == ".json" and name != LIST_NAME and os.path.realpath(parent) == here:
            names.append(name)
    return names


def _put_list(directory: str, data: bytes, *, after: bool) -> None:
    """``after``: files have been replaced, and the list must not be durable before they are."""
    if after:
        files.sync_directory(directory)
    path = path_of(directory, LIST_NAME)
    if not _holds(path, io.BytesIO(data)):
        files.write_durably(path, data, MODE)


# --- files -------------------------------------------------------------------------------------------------


def _put(source: str, path: str, twin: str = "") -> bool:
    """Make ``path`` a copy of ``source`` unless it is; whether it was not. Raises OSError, StateError.

    ``twin``: a file beside it that may hold the same, and then is linked: no second wait for the disk.
    os-collect-config replaces ``NAME.json`` before it writes into ``.last``, so it can do no harm to these;
    ``.orig`` it would write into through a link.
    """
    try:
        wanted = files.open_regular(source)
    except OSError as error:
        raise StateError(f"{source}: cannot be read: {files.reason(error)}") from error
    with wanted:
        if _holds(path, wanted):
            return False
        linked = bool(twin) and _holds(twin, wanted) and files.link(twin, path)
    if not linked:
        files.copy(source, path, MODE)
    return True


def _mirror(source: str, path: str, suffix: str) -> bool:
    """As ``_put`` for the file with that suffix; what there is not, shall not be there either."""
    if _is_file(source + suffix):
        return _put(source + suffix, path + suffix, path if suffix == LAST else "")
    return _unlink(path + suffix)


def _holds(path: str, wanted: BinaryIO) -> bool:
    """Whether this is a file of our own, for us alone, with that content."""
    wanted.seek(0)
    try:
        with files.open_regular(path, os.O_NOFOLLOW) as kept:
            status = os.fstat(kept.fileno())
            if stat.S_IMODE(status.st_mode) != MODE or status.st_uid != os.geteuid():
                return False
            while (chunk := wanted.read(CHUNK)) == kept.read(CHUNK):
                if not chunk:
                    return True
    except OSError:
        pass  # not there, a link, not readable: it is written anew, and that says what is wrong
    return False


def _remove(directory: str, before: Iterable[str], kept: set[str]) -> None:
    """The files of documents that are gone: those listed before, or committed once.

    The latter are looked for because an agent that is killed between the list and this would forget them;
    ``.last`` is removed at the end for the same reason. So is what an agent that was killed had half written.
    What os-collect-config's crashes left (tmp*) stays: by their names those files could be anybody's.
    """
    names = set(before)
    for entry in os.listdir(directory):
        if files.TEMPORARY.fullmatch(entry):
            _unlink(os.path.join(directory, entry))
        elif entry.endswith(f".json{LAST}"):
            names.add(entry.removesuffix(f".json{LAST}"))
    for name in names - kept - {LIST_NAME}:
        for suffix in ("", ORIG, LAST):
            _unlink(path_of(directory, name) + suffix)


def _unlink(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def _is_file(path: str) -> bool:
    return os.path.isfile(path) and not os.path.islink(path)


@contextlib.contextmanager
def _told(directory: str, option: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or directory
        message = f"{where}: the cache cannot be written: {files.reason(error)}; see [DEFAULT] {option}"
        raise StateError(message) from error
