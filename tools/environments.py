#!/usr/bin/env python3
"""The virtual environments that tests, demo and benchmarks run in, built on demand under .venvs.

    python3 tools/environments.py dev legacy peers heat-agents

Standard library only: this is what runs before anything is installed. Each environment has a stamp that
holds a hash of all that defines it, written last; a missing or different stamp means: build it again.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - the reader may not know which Python they have
    raise SystemExit(
        f"refresh-agent needs Python 3.11 or later; {sys.executable} is {sys.version.split()[0]}"
    )

import argparse
import concurrent.futures
import configparser
import contextlib
import fcntl
import hashlib
import importlib.util
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator

TOP = pathlib.Path(__file__).resolve().parent.parent
VENVS = TOP / ".venvs"

# What `agent` is built from. A fixed list, so that an unpacked release without git works the same way.
SOURCES = (
    "setup.py",
    "setup.cfg",
    "pyproject.toml",
    "MANIFEST.in",
    "README.rst",
    "CHANGELOG.rst",
    "LICENSE",
    "etc",
    "refresh_agent",
    "systemd",
)

# Builds the other ones' packages without build isolation, which would fetch its own tools every time.
BUILD = ("setuptools>=77", "pbr", "wheel")

# The programs that refresh-agent replaces or drives, and what heat-agents' hooks import.
PEERS = (
    "os-collect-config==14.1.0",
    "os-refresh-config==14.1.0",
    "os-apply-config==14.1.0",
    "dib-utils==0.0.11",
    "PyYAML",
    "requests",
)
HEAT_AGENTS = "heat-agents==13.0.0"

# The cloud of tests/e2e. These two exactly, since tests/e2e/parts reaches into them: it runs Heat's engine
# and APIs in one process, and changes Heat's tables so that SQLite is good enough. waitress serves both: it
# takes a socket that is open already, and has no forks, so that to end one process is to end a server.
HEAT = ("openstack-heat==27.0.1", "keystone==30.0.0", "waitress")

# Beside it, so that oslo-config-generator there can write rst too, which the samples of these packages are
# compared with. Not as oslo.config[rst-generator]: that brings rst2txt, with which its ini is another one.
SPHINX = "Sphinx"

# The last Heat whose tables sqlalchemy-migrate makes, and what its repository imports; Heat itself goes in
# without its requirements, which would bring an oslo.db that knows SQLAlchemy 2 alone.
HEAT_LEGACY = "openstack-heat==20.0.1"
HEAT_LEGACY_IMPORTS = (
    "oslo.db==12.3.3",
    "oslo.serialization",
    "oslo.i18n",
    "oslo.utils",
    "oslo.config",
    "oslo.log",
    "netaddr",
)

# PostgreSQL's and MariaDB's, of the kinds that both worlds of SQLAlchemy know.
DRIVERS = ("psycopg2-binary", "PyMySQL")

# Apart from Heat: half as much to install, and neither's requirements bind the other's. Exactly this one,
# since its transports are put together from its parts there. redis is for its stores: the tables of the other
# kind cannot be made in SQLite. What its websockets need (autobahn) it brings along.
ZAQAR = ("zaqar==23.0.1", "redis", "waitress")


# The other driver of PostgreSQL that people have, and what `postgresql://` means from SQLAlchemy 2.1 on. Only
# for `dev`: SQLAlchemy 1.4 does not know it.
NEWER_DRIVER = "psycopg[binary]"


class BuildError(Exception):
    """An environment cannot be built; the message is for the person who typed the command."""


# --- what defines an environment -------------------------------------------------------------------------


def _setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser(interpolation=None)
    config.read(TOP / "setup.cfg", encoding="utf-8")
    return config


def _required() -> list[str]:
    """What refresh-agent needs always."""
    return _listed(_setup_cfg()["options"]["install_requires"])


def _extra(name: str) -> list[str]:
    """The requirements of one of setup.cfg's extras, the one place where they are written down."""
    return _listed(_setup_cfg()["options.extras_require"][name])


def _listed(text: str) -> list[str]:
    requirements = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in requirements if line]


def _legacy_requirements() -> list[str]:
    # The extra alone, with alembic beside it as whoever installs it has. The same coverage as in `dev`: it
    # measures the migration workers that run in here. The same drivers too, for what they migrate.
    alembic = [line for line in _required() if re.match(r"alembic\b", line)]
    shared = [line for line in _extra("test") if re.match(r"(coverage|psycopg2-binary|PyMySQL)\b", line)]
    return [*_extra("migrate"), *alembic, *shared]


def _digest(*parts: str) -> str:
    """A hash over parts, this Python, and the place: a virtual environment cannot be moved."""
    text = "\0".join((*parts, sys.version, sys.base_prefix, str(VENVS)))
    return hashlib.sha256(text.encode()).hexdigest()


def _metadata() -> str:
    """All of setup.cfg that a resolver would look at, and nothing that only a linter reads."""
    config = _setup_cfg()
    wanted = [name for name in config.sections() if name == "metadata" or name.startswith("options")]
    return repr([(name, sorted(config[name].items())) for name in wanted])


def _source_files() -> Iterator[pathlib.Path]:
    for name in SOURCES:
        path = TOP / name
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in found:
            if file.is_file() and "__pycache__" not in file.parts:
                yield file.relative_to(TOP)


def _source_digest() -> str:
    content = hashlib.sha256()
    for file in _source_files():
        content.update(f"{file}\0".encode() + hashlib.sha256((TOP / file).read_bytes()).digest())
    return content.hexdigest()


# --- running pip -----------------------------------------------------------------------------------------


def say(text: str) -> None:
    """One write per line: several environments are built at a time."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _run(what: str, *command: str | pathlib.Path) -> None:
    """Run it silently; when it fails, its output is the explanation."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        output = done.stdout.decode(errors="replace").rstrip()
        raise BuildError(f"{output}\n{what}: failed with exit code {done.returncode}")


def _pip(name: str, *arguments: str | pathlib.Path) -> None:
    _run(f"environment {name}: pip {arguments[0]}", _python(name), "-m", "pip", *arguments)


def _python(name: str) -> pathlib.Path:
    return VENVS / name / "bin" / "python"


def _create(name: str) -> None:
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            raise BuildError(
                f"{sys.executable} has no module {module}, so it cannot make virtual environments"
                " (on Debian and Ubuntu: apt-get install python3-venv)"
            )
    _run(f"environment {name}: making it", sys.executable, "-m", "venv", "--clear", VENVS / name)


# --- stamps and locks ------------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    """Whoever comes second waits here, and then finds the environment built."""
    VENVS.mkdir(exist_ok=True)
    with (VENVS / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _current(stamp: pathlib.Path, digest: str) -> bool:
    return stamp.is_file() and stamp.read_text(encoding="ascii") == digest


def _environment(
    name: str, requirements: list[str], digest: str, install: Callable[[], None]
) -> pathlib.Path:
    stamp = VENVS / name / "stamp"
    with _locked(name):
        if not _current(stamp, digest):
            # A half-built one has no stamp either: it goes the same way.
            verb = "building again" if stamp.exists() else "creating"
            say(f"environment {name}: {verb} ({', '.join(requirements)})")
            stamp.unlink(missing_ok=True)
            _create(name)
            install()
            stamp.write_text(digest, encoding="ascii")
    return VENVS / name


def _simple(name: str, requirements: list[str]) -> pathlib.Path:
    return _environment(
        name, requirements, _digest(*requirements), lambda: _pip(name, "install", *requirements)
    )


# --- the environments ------------------------------------------------------------------------------------


def _dev() -> pathlib.Path:
    return _environment(
        "dev",
        ["refresh-agent[test], editable", NEWER_DRIVER],
        _digest(_metadata(), NEWER_DRIVER),
        lambda: _pip("dev", "install", "--editable", f"{TOP}[test]", NEWER_DRIVER),
    )


def _agent() -> pathlib.Path:
    """As a user would install it. When only the sources changed, the dependencies are left alone."""
    ensure("build")
    digest = _source_digest()
    stamp = VENVS / "agent" / "stamp-sources"

    def install(*options: str) -> None:
        _install_wheel(*options)
        stamp.write_text(digest, encoding="ascii")

    path = _environment("agent", ["refresh-agent"], _digest(_metadata()), install)
    with _locked("agent"):
        if not _current(stamp, digest):
            say("environment agent: installing the changed sources")
            install("--no-deps", "--force-reinstall")
    return path


def _install_wheel(*options: str) -> None:
    """Install the package from a copy: a build in the tree leaves files that later builds pick up."""
    with tempfile.TemporaryDirectory(prefix="refresh-agent-build-") as scratch:
        source, wheels = pathlib.Path(scratch, "source"), pathlib.Path(scratch, "wheels")
        for file in _source_files():
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / file, source / file)
        _pip("build", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, source)
        _pip("agent", "install", *options, *wheels.glob("*.whl"))


def _heat_legacy() -> pathlib.Path:
    """Heat's tree of sqlalchemy-migrate, beside what runs it."""
    requirements = [*_extra("migrate"), *DRIVERS, *HEAT_LEGACY_IMPORTS]

    def install() -> None:
        _pip("heat-legacy", "install", *requirements)
        _pip("heat-legacy", "install", "--no-deps", HEAT_LEGACY)

    named = [HEAT_LEGACY, *requirements]
    return _environment("heat-legacy", named, _digest(*named), install)


def heat_agents() -> pathlib.Path:
    """The unpacked source distribution of heat-agents: its hooks are not in any wheel."""
    path = VENVS / "heat-agents"
    stamp = path / "stamp"
    digest = _digest(HEAT_AGENTS)
    with _locked("heat-agents"):
        if not _current(stamp, digest):
            say(f"{HEAT_AGENTS}: fetching and unpacking its source distribution")
            if path.exists():
                shutil.rmtree(path)
            ensure("build")
            with tempfile.TemporaryDirectory(prefix="refresh-agent-heat-agents-") as scratch:
                _pip(
                    "build", "download", "--no-deps", "--no-build-isolation",
                    "--no-binary", ":all:", "--dest", scratch, HEAT_AGENTS,
                )  # fmt: skip
                (archive,) = pathlib.Path(scratch).glob("*.tar.gz")
                _unpack(archive, path)
            stamp.write_text(digest, encoding="ascii")
    return path


def _unpack(archive: pathlib.Path, destination: pathlib.Path) -> None:
    """Unpack without the leading directory: only plain files, only inside, writable by the owner only."""
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = pathlib.PurePosixPath(member.name).parts
            if member.name.startswith("/") or ".." in parts or not (member.isfile() or member.isdir()):
                raise BuildError(f"{archive.name}: will not unpack {member.name}")
            content = tar.extractfile(member)
            if content is not None:
                target = destination.joinpath(*parts[1:])
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.read())
                target.chmod(0o755 if member.mode & 0o100 else 0o644)


ENVIRONMENTS: dict[str, Callable[[], pathlib.Path]] = {
    "build": lambda: _simple("build", list(BUILD)),
    "dev": _dev,
    "agent": _agent,
    "legacy": lambda: _simple("legacy", _legacy_requirements()),
    "peers": lambda: _simple("peers", list(PEERS)),
    "heat-agents": heat_agents,
    "heat": lambda: _simple("heat", [*HEAT, *DRIVERS, SPHINX]),
    "heat-legacy": _heat_legacy,
    "zaqar": lambda: _simple("zaqar", list(ZAQAR)),
}


def ensure(name: str) -> pathlib.Path:
    """The directory of that environment, built or brought up to date if need be."""
    return ENVIRONMENTS[name]()


def ensure_all(names: list[str]) -> None:
    """Several at a time: pip is busy with one processor, and the network makes it wait."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=4) as pool:
        for _ in pool.map(ensure, names):
            pass


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the virtual environments that are named.")
    parser.add_argument("names", nargs="+", choices=sorted(ENVIRONMENTS), metavar="NAME",
                        help=", ".join(sorted(ENVIRONMENTS)))  # fmt: skip
    try:
        ensure_all(parser.parse_args().names)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
