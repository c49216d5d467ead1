"""Keeping out what libraries import at their top and this project never uses."""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from importlib.machinery import ModuleSpec, PathFinder


@contextlib.contextmanager
def lightly(unexecuted: AbstractSet[str], absent: AbstractSet[str] = frozenset()) -> Iterator[None]:
    """Inside, the modules named ``unexecuted`` are imported but executed only when something of them is used;
    those named ``absent`` cannot be imported at all, for libraries that can do without.
    """

    class Finder:
        @staticmethod
        def find_spec(name: str, path: Sequence[str] | None, _target: object = None) -> ModuleSpec | None:
            if name in absent:
                raise ModuleNotFoundError(name)
            spec = PathFinder.find_spec(name, path) if name in unexecuted else None
            if spec is not None and spec.loader is not None:
                spec.loader = importlib.util.LazyLoader(spec.loader)
            return spec

    sys.meta_path.insert(0, Finder)
    try:
        yield
    finally:
        sys.meta_path.remove(Finder)
