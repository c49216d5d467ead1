"""How the commands that run hooks in the foreground are stopped."""

import signal

from refresh_agent.wakeup import Stop

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def stop_on_signals() -> Stop:
    """From now on these signals let the running hook finish, within its grace, and start no other."""
    stop = Stop()
    for number in STOPPING:
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            continue  # nohup
        signal.signal(number, lambda number, _frame: stop.request(number))
    return stop
