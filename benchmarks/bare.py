"""The least that Python needs to run hooks as the agent does: a pipe, a session, a deadline that can be kept.

It looks at nothing, keeps nothing and tells nothing. Prints the seconds for all hooks in its arguments.
"""

import os
import select
import signal
import sys
import time

RESET = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
ENVIRONMENT = dict(os.environ)


def run(path: str) -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, writer, 1),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    pid = os.posix_spawn(
        path, (path,), ENVIRONMENT, file_actions=actions, setsid=True, setsigdef=RESET, setsigmask=[]
    )
    os.close(writer)
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    waiting = {reader, pidfd}
    for descriptor in waiting:
        poll.register(descriptor, select.POLLIN)
    while waiting:
        for descriptor, _ in poll.poll():
            if descriptor == reader and os.read(reader, 65536):
                continue
            poll.unregister(descriptor)
            waiting.remove(descriptor)
            os.close(descriptor)
    if os.waitpid(pid, 0)[1]:
        raise SystemExit(f"{path} failed")


if __name__ == "__main__":
    began = time.perf_counter()
    for hook in sys.argv[1:]:
        run(hook)
    print(time.perf_counter() - began)
