"""Load the package that this file lies in, under a name of its own, and let it answer one request.

Python put this directory first on sys.path; there a migration tree's ``import transition`` would find our
module instead of its own. So the entry goes, and the package is loaded from its place on disk.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys

PRIVATE_NAME = "_refresh_agent_worker"


def start() -> int:
    here = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry or os.curdir) != here]
    spec = importlib.util.spec_from_file_location(
        PRIVATE_NAME, os.path.join(here, "__init__.py"), submodule_search_locations=[here]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {here}")
    package = importlib.util.module_from_spec(spec)
    sys.modules[PRIVATE_NAME] = package
    spec.loader.exec_module(package)
    status: int = importlib.import_module(PRIVATE_NAME + ".serve").main()
    return status


if __name__ == "__main__":
    sys.exit(start())
