"""A node whose daemon is an object of the test's: it is also where the settings come from."""

import pathlib
from typing import Any

from refresh_agent.errors import ConfigError
from refresh_agent.model import Settings
from refresh_agent.service import Agent
from refresh_agent.wakeup import Stop
from tests.unit.support import Tree, write_json


class Node(Tree):
    def __init__(self, root: pathlib.Path) -> None:
        super().__init__(root)
        self.stop = Stop()
        self.changes: dict[str, Any] = {}
        self.bad_configuration = ""
        write_json(self.metadata, {"a": 1})
        self.hook("configure/10-a", f"test ! -e {self.root}/broken")
        self.agent = Agent(self, self.stop)

    def watch(self) -> tuple[str, ...]:
        return (str(self.root / "conf"),)

    def digest(self) -> str:
        path = self.root / "conf"
        return path.read_text() if path.exists() else ""

    def load(self) -> Settings:
        if self.bad_configuration:
            raise ConfigError(self.bad_configuration)
        return self.settings(**self.changes)

    def runs(self) -> int:
        return len(self.ran())
