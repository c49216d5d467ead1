r"""POSIX extended regular expressions, by asking ``grep -E``: dib-run-parts' RUN_PARTS_REGEX is one.

Asked, not translated to Python's ``re``. A translation would have to know the brackets (``[[:alpha:]]``,
``[]a]``, a backslash that is itself), what GNU adds (``\<``, ``\w``, ``a|*b``), what is taken literally
(``a{2``, ``\d``), and would still differ: ``re`` needs for ever for ``^(a|aa)+$`` where grep needs a
millisecond. The price is one process for a phase, and only for nodes that set the variable.

What root executes has to be trusted: grep has a fixed path in a directory of the system's, as bash has; PATH,
GREP_OPTIONS and whatever else is in the agent's environment do not reach it. In the C locale a character is a
byte, so every name can be matched, and the choice does not depend on who started the agent.
"""

import errno
import os
import subprocess
from collections.abc import Iterable

GREP = "/bin/grep"
"""There also where /bin is not a link to /usr/bin."""

PATIENCE = 10.0
"""Seconds. A back reference can cost more than a life has; a stop request would not be seen meanwhile."""


def matching(names: Iterable[str], regex: str) -> frozenset[str]:
    """Those of ``names``, none of which may hold a line break, in which ``regex`` is found.

    Raises OSError: EINVAL with grep's own words if it is no expression, EIO if grep cannot be asked.
    """
    lines = b"".join(os.fsencode(name) + b"\n" for name in names)
    # -e: an expression may begin with a hyphen. -a: a byte beyond ASCII does not make the list "binary".
    try:
        done = subprocess.run(
            (GREP, "-aE", "-e", regex),
            input=lines,
            env={"LC_ALL": "C"},
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except OSError as error:
        raise _unanswered(regex, f"{GREP} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise _unanswered(regex, f"{GREP} has found no answer in {PATIENCE:g} s") from error
    if done.returncode == 2:
        # "/bin/grep: Unmatched (", perhaps after warnings such as "stray \ before d".
        last = done.stderr.decode(errors="backslashreplace").strip().rpartition("\n")[2]
        reason = last.partition(": ")[2]
        message = f"RUN_PARTS_REGEX {regex!r} is not an extended regular expression: {reason}"
        raise OSError(errno.EINVAL, message)
    if done.returncode not in {0, 1}:
        raise _unanswered(regex, f"{GREP} ended with status {done.returncode}")
    return frozenset(os.fsdecode(name) for name in done.stdout.split(b"\n")[:-1])


def _unanswered(regex: str, reason: str) -> OSError:
    return OSError(errno.EIO, f"RUN_PARTS_REGEX {regex!r} cannot be applied: {reason}")
