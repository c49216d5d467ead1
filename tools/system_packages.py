#!/usr/bin/env python3
"""Make sure that the system packages of bindep.txt's profile are there.

As root on Debian and Ubuntu the missing ones are installed, which it says; otherwise it prints the line to
type and ends with 1. On other systems it only looks for the commands. Standard library only.
"""

import argparse
import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator

BINDEP = pathlib.Path(__file__).resolve().parent.parent / "bindep.txt"

# What to look for where dpkg cannot be asked. Python itself is known to be there: it runs this.
COMMANDS = {
    "test": (
        "bash", "make", "sleep", "cat", "date", "setpriv", "openssl", "mount", "mkfs.vfat",
        "redis-check-rdb", "initdb", "mariadbd", "strace", "unshare", "nsenter", "pivot_root", "systemctl",
        "systemd-analyze", "service",
    ),
    "bench": ("cc", "run-parts", "redis-check-rdb", "initdb", "mariadbd", "strace"),
}  # fmt: skip

# Where mariadbd, pivot_root and service may be, and not everybody's PATH goes.
ELSEWHERE = ("/usr/sbin", "/usr/libexec")

# Where postgresql-common looks, when the first server is installed, for whether to make a database cluster
# and start a server for it.
CREATE_CLUSTER = pathlib.Path("/etc/postgresql-common/createcluster.d/no-main-cluster.conf")

_LINE = re.compile(r"(?P<package>[a-z0-9][a-z0-9+.-]*)\s*(?:\[(?P<selectors>[^\]()<>=]*)\])?")


class BindepError(Exception):
    """A line of bindep.txt that this reader does not understand."""


def packages(text: str, platform: str, profile: str) -> list[str]:
    """The packages that bindep would want there: `name [platform:X profile !profile]`, no versions."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.partition("#")[0].strip()
        if entry:
            match = _LINE.fullmatch(entry)
            if match is None:
                raise BindepError(f"bindep.txt, line {number}: cannot read {entry!r}")
            if _selected((match["selectors"] or "").split(), f"platform:{platform}", profile):
                found.append(match["package"])
    return found


def _selected(selectors: Iterable[str], platform: str, profile: str) -> bool:
    """Bindep's rule: one of the platforms, and one of the profiles, and none that has a "!" before it."""
    barred = {name[1:] for name in selectors if name.startswith("!")}
    wanted = {name for name in selectors if not name.startswith("!")}
    platforms = {name for name in wanted if name.startswith("platform:")}
    profiles = (wanted - platforms) or {"default"}
    if barred & {platform, profile}:
        return False
    return (not platforms or platform in platforms) and profile in profiles


def missing(names: Iterable[str]) -> list[str]:
    """Those that dpkg does not know as installed."""
    query = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *names]
    # It exits with 1 when it has never heard of one of them; the others are listed all the same.
    listing = subprocess.run(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    installed = {line.split()[0] for line in listing.stdout.splitlines() if line.split()[1:] == ["installed"]}
    return [name for name in names if name not in installed]


def install(names: list[str]) -> bool:
    """Install by apt-get. The package lists are brought up to date only if it does not work without."""
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *names]
    print(f"system packages: installing {' '.join(names)}", flush=True)
    with no_cluster(CREATE_CLUSTER):
        if _apt_get(command, show=False):
            return True
        print("system packages: bringing the package lists up to date first", flush=True)
        return _apt_get(["apt-get", "update"], show=True) and _apt_get(command, show=True)


@contextlib.contextmanager
def no_cluster(setting: pathlib.Path) -> Iterator[None]:
    """Meanwhile a PostgreSQL that is installed starts nothing: who runs tests has not asked for a service.

    Afterwards the system is as before: the next who installs one gets what they expect.
    """
    if setting.exists():
        yield
        return
    made = [folder for folder in setting.parents if not folder.exists()]
    setting.parent.mkdir(parents=True, exist_ok=True)
    setting.write_text("create_main_cluster = false\n", encoding="ascii")
    try:
        yield
    finally:
        setting.unlink()
        for folder in made:
            with contextlib.suppress(OSError):  # a package has put something into it meanwhile
                folder.rmdir()


def _apt_get(command: list[str], *, show: bool) -> bool:
    done = subprocess.run(
        command,
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if show and done.returncode:
        sys.stderr.write(done.stdout.decode(errors="replace"))
    return done.returncode == 0


def _without_dpkg(profile: str) -> int:
    commands = COMMANDS[profile]
    path = os.pathsep.join((*os.get_exec_path(), *ELSEWHERE))
    absent = [name for name in commands if shutil.which(name, path=path) is None]
    print(f"system packages: no dpkg here, looked for the commands {', '.join(commands)}", flush=True)
    if absent:
        print(f"system packages: not found: {', '.join(absent)}", file=sys.stderr)
    return 1 if absent else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Install what bindep.txt lists and the system lacks.")
    parser.add_argument("--profile", default="test", choices=sorted(COMMANDS), help="default: test")
    profile = parser.parse_args().profile
    if shutil.which("dpkg-query") is None:
        return _without_dpkg(profile)
    try:
        absent = missing(packages(BINDEP.read_text(encoding="utf-8"), "dpkg", profile))
    except (BindepError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if not absent:
        return 0
    if os.geteuid() == 0 and shutil.which("apt-get"):
        return 0 if install(absent) else 1
    print(
        f"These system packages are missing; type:\n    sudo apt-get install {' '.join(absent)}",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
