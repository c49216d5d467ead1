"""A migration as the service's own user, its connection from the service's own configuration file."""

import os
import pathlib
import pwd
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.integration.conftest import HEAD, SHOP

NEEDED = ("sqlalchemy", "alembic", "mako", "markupsafe", "typing_extensions")
SERVICE = "nobody"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can work as another user")


@pytest.fixture
def public() -> Iterator[pathlib.Path]:
    """A directory that every user may look into, all the way down; pytest's own are closed."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        path = pathlib.Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
def python(public: pathlib.Path) -> pathlib.Path:
    """A service's environment that the service's user may use, with copies of what the tests' one has."""
    bare = next(path for path in (sys.executable, "/usr/bin/python3") if usable(os.path.realpath(path)))
    subprocess.run([os.path.realpath(bare), "-m", "venv", "--without-pip", public / "venv"], check=True)
    (packages,) = (public / "venv" / "lib").glob("python3*/site-packages")
    for name in NEEDED:
        spec = find_spec(name)
        assert spec is not None
        if spec.submodule_search_locations:
            shutil.copytree(spec.submodule_search_locations[0], packages / name)
        else:
            shutil.copy(str(spec.origin), packages)
    return public / "venv" / "bin" / "python"


def usable(path: str) -> bool:
    user = pwd.getpwnam(SERVICE)
    try:
        done = subprocess.run([path, "-c", ""], user=user.pw_uid, group=user.pw_gid, cwd="/")
    except PermissionError:
        return False
    return done.returncode == 0


def own(path: pathlib.Path) -> None:
    for file in (path, *path.rglob("*")):
        shutil.chown(file, SERVICE)


def refresh_agent(public: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """From a copy, since the checkout may be closed to other users."""
    if not (public / "agent").exists():
        import refresh_agent as package  # noqa: PLC0415 - its place

        shutil.copytree(pathlib.Path(package.__file__).parent, public / "agent" / "refresh_agent")
    command = [sys.executable, "-m", "refresh_agent", "--config-file", str(public / "agent.conf"), *arguments]
    env = {**os.environ, "PYTHONPATH": str(public / "agent")}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=public)


def configure(public: pathlib.Path, python: pathlib.Path, **more: str) -> None:
    names = ("state_dir", "lock_file", "cachedir", "backup_cachedir", "base_dir")
    options = {
        "connection_from": f"{public}/shop.conf",
        "alembic_config": f"{public}/shop/alembic.ini",
        "python": str(python),
        "user": SERVICE,
        **more,
    }
    (public / "agent.conf").write_text(
        "[DEFAULT]\n"
        + "".join(f"{name} = {public}/{name}\n" for name in names)
        + "[migrations]\ntargets = shop\n[migration:shop]\n"
        + "".join(f"{name} = {value}\n" for name, value in options.items())
    )


def test_all_that_is_made_belongs_to_the_user(public: pathlib.Path, python: pathlib.Path) -> None:
    """The configuration is root's alone, the tree and the database are the service's."""
    shutil.copytree(SHOP, public / "shop")
    data = public / "data"
    data.mkdir()
    (data / "shop.db").touch()
    own(public / "shop")
    own(data)
    settings = public / "shop.conf"
    settings.touch(0o600)
    settings.write_text(f"[DEFAULT]\ndata = {data}\n[database]\nconnection = sqlite:///{data}/shop.db\n")
    configure(public, python, backup="builtin")
    done = refresh_agent(public, "db", "upgrade")
    assert done.returncode == 0, done.stderr
    made = [path for path in data.iterdir() if path.name != "shop.db"]
    assert len(made) == 2, made
    assert {path.owner() for path in made} == {SERVICE}
    with sqlite3.connect(data / "shop.db") as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]
    again = refresh_agent(public, "run-phases")
    assert again.returncode == 0, again.stderr
    assert "unchanged" in again.stderr


def test_what_the_user_may_not_do_is_not_done(public: pathlib.Path, python: pathlib.Path) -> None:
    """env.py is the user's, so it has the user's rights, not root's."""
    shutil.copytree(SHOP, public / "shop")
    (public / "shop.db").touch()
    env = public / "shop" / "alembic" / "env.py"
    env.write_text(f"open({str(public / 'stolen')!r}, 'w').write('root was here')\n" + env.read_text())
    own(public / "shop")
    (public / "shop.conf").write_text(f"[database]\nconnection = sqlite:///{public}/shop.db\n")
    configure(public, python)
    done = refresh_agent(public, "db", "upgrade")
    assert done.returncode == 4
    assert "PermissionError" in done.stderr
    assert not (public / "stolen").exists()


def test_without_user_the_tree_of_another_is_refused(public: pathlib.Path, python: pathlib.Path) -> None:
    shutil.copytree(SHOP, public / "shop")
    (public / "shop.db").touch()
    own(public / "shop")
    (public / "shop.conf").write_text(f"[database]\nconnection = sqlite:///{public}/shop.db\n")
    configure(public, python, user="root")
    done = refresh_agent(public, "db", "upgrade")
    assert done.returncode == 4
    assert f"{public}/shop" in done.stderr
    assert "is owned by user" in done.stderr
    assert (public / "shop.db").stat().st_size == 0
