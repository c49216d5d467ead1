"""Load the package that this file lies in, under a name of its own, and let it answer one request.

The project may be this very one, in another version, or have a module called ``identity``: so this directory
leaves sys.path, and its modules get names that nobody else has.

This file alone is for every Python there is, so that one that is too old can be told of.
"""

import importlib
import json
import os
import sys
import types

PRIVATE_NAME = "_refresh_agent_sampler"


def start():
    # type: () -> None
    here = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry or os.curdir) != here]
    package = types.ModuleType(PRIVATE_NAME)
    package.__path__ = [here]
    sys.modules[PRIVATE_NAME] = package
    importlib.import_module(PRIVATE_NAME + ".serve").main(sys.argv[1:])


if __name__ == "__main__":
    if sys.version_info < (3, 9):  # noqa: UP036
        version = ".".join(str(part) for part in sys.version_info[:3])
        print(
            json.dumps({"fatal": sys.executable + " is Python " + version + ": --python takes 3.9 or later"})
        )
    else:
        start()
