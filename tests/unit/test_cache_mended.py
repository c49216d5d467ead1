"""The files that os-collect-config would keep, after something has gone wrong with them."""

import json
import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from refresh_agent import cache
from tests.unit.caches import Cache, held, inodes

MOMENTS = 90
"""More than the changes that one run makes to the cache and its backup."""


class TestKilledAtAnyMoment:
    """The process ends, without cleaning up, at the n-th change that it makes to the file system."""

    @pytest.mark.parametrize("number", range(1, MOMENTS + 1))
    def test_the_list_is_whole_and_the_next_run_mends_the_rest(self, kept: Cache, number: int) -> None:
        old = {"heat": '{"v": 1}', "web": '{"w": 1}', "gone": "{}"}
        new = {"heat": '{"v": 2}', "web": '{"w": 1}', "late": '{"l": 1}'}
        kept.run(**old)
        finished = killed_at(number, lambda: kept.run(**new))
        for directory in (kept.path, kept.backup):
            named = json.loads((directory / "os_config_files.json").read_text())
            contents = [(directory / os.path.basename(path)).read_text() for path in named]
            assert set(contents) <= {*old.values(), *new.values()}
            assert [os.path.basename(path).removesuffix(".json") for path in named] in ([*old], [*new])
        kept.run(**new)
        clean = {f"{name}.json{suffix}": text for name, text in new.items() for suffix in ("", ".last")}
        clean |= {f"{name}.json.orig": text for name, text in new.items()} | {"heat.json.orig": '{"v": 1}'}
        for directory in (kept.path, kept.backup):
            found = held(directory)
            assert json.loads(found.pop("os_config_files.json")) == [
                f"{kept.path}/{name}.json" for name in new
            ]
            assert found == clean
        if number == MOMENTS:
            assert finished, "there are more moments than this test looks at"


def killed_at(number: int, work: Callable[[], object]) -> bool:
    """Whether ``work`` came to its end before it made ``number`` changes."""
    pid = os.fork()
    if pid == 0:
        left = number

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def either(*arguments: Any, **options: Any) -> Any:
                nonlocal left
                left -= 1
                if not left:
                    os._exit(9)
                return call(*arguments, **options)

            return either

        for name in ("rename", "link", "unlink", "fsync", "sendfile", "copy_file_range"):
            setattr(os, name, counted(getattr(os, name)))
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in {0, 9}
    return status == 0


class TestRepairing:
    def test_last_is_what_the_journal_has_committed(self, kept: Cache) -> None:
        kept.run(a='{"v": 1}', b="{}")
        kept.write(a='{"v": 2}', b="{}")
        (kept.path / "b.json.last").unlink()
        cache.repair(str(kept.path), kept.contents(a='{"v": 2}', b="{}"))
        found = held(kept.path)
        assert (found["a.json.last"], found["b.json.last"]) == ('{"v": 2}', "{}")

    def test_what_a_hook_has_emptied_is_there_again(self, kept: Cache) -> None:
        kept.run(a='{"v": 1}')
        (kept.path / "a.json").write_text("")
        cache.repair(str(kept.path), kept.contents(a='{"v": 1}'))
        found = held(kept.path)
        assert (found["a.json"], found["a.json.last"]) == ('{"v": 1}', '{"v": 1}')

    @pytest.mark.parametrize("lost", ["everything", "the list", "a file"])
    def test_what_somebody_removed_is_there_again(self, kept: Cache, lost: str) -> None:
        kept.run(a="{}", b="{}")
        before = held(kept.path)
        if lost == "everything":
            shutil.rmtree(kept.path)
        elif lost == "the list":
            (kept.path / "os_config_files.json").unlink()
        else:
            (kept.path / "b.json").unlink()
        cache.repair(str(kept.path), kept.contents(a="{}", b="{}"))
        assert held(kept.path) == before

    def test_nothing_is_written_where_nothing_is_wrong(self, kept: Cache) -> None:
        kept.run(a="{}", b="{}")
        before = inodes(kept.path)
        cache.repair(str(kept.path), kept.contents(a="{}", b="{}"))
        assert inodes(kept.path) == before
