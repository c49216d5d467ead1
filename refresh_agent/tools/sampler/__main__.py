"""Load the package that this file lies in, under a name of its own, and let it answer one request.

The project may be this very one, in another version, or have a module called ``identity``: so this directory
leaves sys.path, and its modules get names that nobody else has.
"""

from __future__ import annotations

import importlib
import os
import sys
import types

PRIVATE_NAME = "_refresh_agent_sampler"


def start() -> None:
    here = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry or os.curdir) != here]
    package = types.ModuleType(PRIVATE_NAME)
    package.__path__ = [here]
    sys.modules[PRIVATE_NAME] = package
    importlib.import_module(PRIVATE_NAME + ".serve").main(sys.argv[1:])


if __name__ == "__main__":
    start()
