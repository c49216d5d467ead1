"""What the sampler changes in its own process is put back here, where others have to go on."""

import pathlib
import sys
from collections.abc import Iterator

import pytest
from oslo_config import cfg

from refresh_agent.tools.sampler.registered import Registrations


@pytest.fixture
def registrations(monkeypatch: pytest.MonkeyPatch) -> Registrations:
    """They listen until the test has ended. What is called library_… is somebody else's."""
    for name in ("register_opt", "register_group"):
        monkeypatch.setattr(cfg.ConfigOpts, name, getattr(cfg.ConfigOpts, name))
    registrations = Registrations(lambda module: not module.startswith("library_"), {"library_declared"})
    registrations.listen()
    return registrations


@pytest.fixture
def shop(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """Where modules can be imported from, which are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        top = tmp_path / name.partition(".")[0]
        if top.exists() or top.with_suffix(".py").exists():
            del sys.modules[name]
