"""Who listens when the agent has ended: a process that reads what hooks have left running goes on to say.

Else it would die of the next line that it writes (SIGPIPE): a daemon that a hook has started, and a hook that
has had the agent stopped. It ends when all of these have. If that was an upgrade of the agent, this program
is of the new version, and what it is told of the old one.
"""

import json
import logging
import os
import select
import sys
from collections.abc import Sequence
from typing import Any

from refresh_agent import log
from refresh_agent.model import LogFormat, Stream
from refresh_agent.phases.output import Output, line_by_line
from refresh_agent.phases.pipes import CHUNK, Pipe, stop_following
from refresh_agent.redact import Masker
from refresh_agent.systemd import ALWAYS_OURS

LOG = logging.getLogger("refresh_agent")

PROGRAM = ("-P", "-m", "refresh_agent.keeper")
"""Not from the working directory (-P): it is run as root."""


def leave_behind(mask: Masker, log_format: LogFormat) -> int:
    """Start one for what is still listened to, the agent's secrets on its standard input; its pid, 0 if there
    is no need, or if it cannot be started.
    """
    pipes = stop_following()
    if not pipes:
        return 0
    told = {"log_format": log_format, "secrets": mask.known(), "pipes": [_told(pipe) for pipe in pipes]}
    try:
        with open(os.memfd_create("keeper", os.MFD_CLOEXEC), "wb") as stdin:
            stdin.write(json.dumps(told).encode())
            stdin.seek(0)
            return _start(stdin.fileno(), [pipe.descriptor for pipe in pipes])
    except OSError as error:
        LOG.warning("nobody listens any more to what hooks have left running: %s", error.strerror)
        return 0


def _told(pipe: Pipe) -> dict[str, Any]:
    env = pipe.command.env
    return {
        "descriptor": pipe.descriptor,
        # latin-1: it need not be a text.
        "held": pipe.held().decode("latin-1"),
        "stream": pipe.stream,
        "run_id": env.get("REFRESH_AGENT_RUN_ID", ""),
        "phase": env.get("REFRESH_AGENT_PHASE", ""),
        "hook": os.path.basename(pipe.command.path),
    }


def _start(stdin: int, descriptors: Sequence[int]) -> int:
    # systemd's channel to the agent is not for it; whether the journal listens it has to know.
    kept = {name: value for name, value in os.environ.items() if name not in ALWAYS_OURS}
    if "JOURNAL_STREAM" in os.environ:
        kept["JOURNAL_STREAM"] = os.environ["JOURNAL_STREAM"]
    actions = [
        (os.POSIX_SPAWN_DUP2, stdin, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        # To itself: that makes it one that the program inherits.
        *((os.POSIX_SPAWN_DUP2, descriptor, descriptor) for descriptor in descriptors),
    ]
    command = (sys.executable, *PROGRAM)
    # Without the worker's mask, which leaves signals to the main thread: it would be deaf to a TERM.
    return os.posix_spawn(sys.executable, command, kept, file_actions=actions, setsid=True, setsigmask=[])


def main() -> int:
    """The program: what it is to do is on its standard input, as ``leave_behind`` has written it there."""
    told = json.load(sys.stdin.buffer)
    log.set_up("INFO")
    log.use(LogFormat(told["log_format"]))
    mask = Masker()
    mask.recall(told["secrets"])
    outputs = {
        pipe["descriptor"]: (
            Stream(pipe["stream"]),
            Output(mask, 0, line_by_line(pipe["run_id"], pipe["phase"], pipe["hook"])),
        )
        for pipe in told["pipes"]
    }
    poll = select.poll()
    for pipe in told["pipes"]:
        stream, output = outputs[pipe["descriptor"]]
        output(stream, pipe["held"].encode("latin-1"))
        os.set_blocking(pipe["descriptor"], True)
        poll.register(pipe["descriptor"], select.POLLIN)
    while outputs:
        for descriptor, _ in poll.poll():
            stream, output = outputs[descriptor]
            if data := os.read(descriptor, CHUNK):
                output(stream, data)
                continue
            output.flush()
            poll.unregister(descriptor)
            os.close(descriptor)
            del outputs[descriptor]
    return 0


if __name__ == "__main__":
    sys.exit(main())
