"""The files that os-collect-config would keep: what hooks read, and os-apply-config when run by hand."""

import json
import os
from collections.abc import Iterable

from refresh_agent import files
from refresh_agent.errors import StateError

LIST_NAME = "os_config_files"


def write(cachedir: str, contents: Iterable[tuple[str, bytes]]) -> tuple[str, ...]:
    """Write ``NAME.json`` for each content, then the list of them; the paths in order.

    A file that already holds its content is left alone. Raises StateError.
    """
    paths = []
    try:
        files.make_directory(cachedir, 0o755)
        for name, raw in contents:
            path = os.path.join(cachedir, f"{name}.json")
            _replace(path, raw)
            paths.append(path)
        _replace(os.path.join(cachedir, f"{LIST_NAME}.json"), json.dumps(paths).encode())
    except OSError as error:
        where = error.filename or cachedir
        raise StateError(f"{where}: the cache cannot be written: {files.reason(error)}") from error
    return tuple(paths)


def _replace(path: str, data: bytes) -> None:
    try:
        if files.read_regular(path, len(data)) == data:
            return
    except OSError:
        pass  # not there, or not readable: it is written anew, and that says what is wrong
    files.write_durably(path, data)
