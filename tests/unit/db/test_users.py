"""How a worker is run as another user."""

import os
import pathlib
import subprocess
import tempfile

import pytest

from refresh_agent.db import users
from refresh_agent.db.users import Account, UserError

NOBODY = Account("nobody", 65534, 65534, "/nonexistent", (65534,))

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as another user")


def test_without_a_user_nothing_is_special() -> None:
    assert users.account("") is None
    assert users.command_line(None) == ()
    env = {"PATH": "/bin", "ANY": "thing"}
    assert users.environment(None, env) is env


def test_the_agents_own_user_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert users.account("nobody") is None


def test_nobody_but_root_can_be_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UserError, match=r"user: only root can migrate as nobody, .* runs as user 1000"):
        users.account("nobody")


def test_a_user_that_is_none_is_told() -> None:
    with pytest.raises(UserError, match="user: there is no user 'nobody-there' on this node"):
        users.account("nobody-there")


def test_without_setpriv_there_is_advice(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr(users, "SETPRIV_IN", (str(tmp_path),))
    with pytest.raises(UserError, match=r"user: nobody needs setpriv, .* install util-linux"):
        users.command_line(NOBODY)


def test_of_the_environment_little_is_kept() -> None:
    env = {"PATH": "/bin", "LANG": "C", "LC_ALL": "C", "TZ": "UTC", "HOME": "/root", "OS_PASSWORD": "geheim"}
    assert users.environment(NOBODY, env) == {
        "PATH": "/bin",
        "LANG": "C",
        "LC_ALL": "C",
        "TZ": "UTC",
        "HOME": "/nonexistent",
        "USER": "nobody",
        "LOGNAME": "nobody",
    }


@as_root
def test_what_is_started_is_that_user_with_its_groups_alone() -> None:
    account = users.account("nobody")
    assert account is not None
    ended = subprocess.run(
        [*users.command_line(account), "/usr/bin/id"], capture_output=True, text=True, check=True
    )
    assert ended.stdout.startswith(f"uid={account.uid}(nobody) gid={account.gid}(")
    assert "root" not in ended.stdout


@as_root
def test_what_is_closed_to_a_user_is_named() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        file = folder / "open" / "file"
        file.parent.mkdir(mode=0o755)
        file.write_text("")
        file.chmod(0o644)
        assert users.obstacle(NOBODY, str(file)) == ""
        file.chmod(0o600)
        assert users.obstacle(NOBODY, str(file)) == str(file)
        os.chown(file, NOBODY.uid, -1)
        assert users.obstacle(NOBODY, str(file)) == ""
        os.chown(file, 0, NOBODY.gid)
        file.chmod(0o640)
        assert users.obstacle(NOBODY, str(file)) == ""
        file.parent.chmod(0o700)
        (folder / "link").symlink_to(file)
        assert users.obstacle(NOBODY, str(folder / "link")) == str(file.parent)
        assert users.obstacle(NOBODY, str(folder / "missing")) == str(folder / "missing")
