"""Polls one source as often as it is told, as refresh-agent or as os-collect-config does it; run by polls.py.

    PYTHON poller.py ours|theirs heat|cfn

``PYTHON`` has the one or the other installed. On standard input first the options of the source as a JSON
object; when it is ready it says so. Then, as often as is wanted, how long to poll: ``[polls, seconds]``,
whichever is over first; the answer is ``{"polls": ..., "failed": ..., "cpu": ...}``, the last in seconds.
"""

import json
import sys
import time
from collections.abc import Callable

Options = dict[str, object]


def main() -> None:
    who, source = sys.argv[1:]
    poll = {"ours": ours, "theirs": theirs}[who](source, json.loads(sys.stdin.readline()))
    poll()  # logs in, connects, and loads what is loaded late
    print("ready", flush=True)
    for line in sys.stdin:
        most, seconds = json.loads(line)
        print(json.dumps(polled(poll, most, seconds)), flush=True)


def polled(poll: Callable[[], bool], most: int, seconds: float) -> dict[str, float]:
    polls = failed = 0
    cpu = time.process_time()
    until = time.monotonic() + seconds
    while polls < most and time.monotonic() < until:
        polls += 1
        failed += not poll()
    return {"polls": polls, "failed": failed, "cpu": time.process_time() - cpu}


def ours(source: str, options: Options) -> Callable[[], bool]:
    """One collector, as long as the agent runs."""
    from refresh_agent import collectors  # noqa: PLC0415 - only one of the two is installed
    from refresh_agent.model import CollectorSettings, MetadataLimits  # noqa: PLC0415

    settings = CollectorSettings(source, {"deployment_key": ("deployments",), **options})
    collector = collectors.build(settings, MetadataLimits(2**26, 64))

    def poll() -> bool:
        snapshot = collector.collect()
        good = not snapshot.error and all(not document.error for document in snapshot.documents)
        collector.stored()
        return good

    return poll


def theirs(source: str, options: Options) -> Callable[[], bool]:
    """A new collector for every poll, as in its collect_all."""
    from os_collect_config import collect, exc  # noqa: PLC0415
    from oslo_config import cfg  # noqa: PLC0415

    collect.setup_conf()
    cfg.CONF(args=[], prog="os-collect-config", default_config_files=[], default_config_dirs=[])
    for name, value in options.items():
        cfg.CONF.set_override(name, value, group=source)
    module = collect.COLLECTORS[source]

    def poll() -> bool:
        try:
            return bool(module.Collector().collect())
        except exc.SourceNotAvailable:
            return False

    return poll


if __name__ == "__main__":
    main()
