"""The files that os-collect-config would keep."""

import contextlib
import json
import os
import pathlib
import resource
import tracemalloc
from collections.abc import Iterator

import pytest

from refresh_agent import cache, files, metadata
from refresh_agent.errors import ExitCode, StateError
from tests.unit.caches import Cache, held, inodes
from tests.unit.support import BAD_METADATA, BAD_METADATA_IDS, LIMITS, looping_link, open_descriptors


class TestWriting:
    def test_the_contents_and_then_the_list_in_order(self, kept: Cache) -> None:
        paths = kept.write(heat='{"a": 1}', cfn="{}")
        assert paths == (str(kept.path / "heat.json"), str(kept.path / "cfn.json"))
        assert (kept.path / "heat.json").read_text() == '{"a": 1}'
        assert json.loads((kept.path / "os_config_files.json").read_text()) == list(paths)

    def test_only_the_agents_user_can_read_them(self, kept: Cache) -> None:
        os.umask(0)
        kept.run(heat="{}")
        modes = {path.name: path.stat().st_mode & 0o777 for path in kept.path.iterdir()}
        names = ("heat.json", "heat.json.orig", "heat.json.last", "os_config_files.json")
        assert modes == dict.fromkeys(names, 0o600)

    @pytest.mark.parametrize("umask", [0, 0o077])
    def test_the_directory_is_made_with_its_parents_and_can_be_looked_at(
        self, tmp_path: pathlib.Path, kept: Cache, umask: int
    ) -> None:
        os.umask(umask)
        kept.path = tmp_path / "x" / "y"
        kept.backup = tmp_path / "x" / "run" / "backup"
        kept.run(heat="{}")
        for path in (kept.path.parent, kept.path, kept.backup.parent, kept.backup):
            assert path.stat().st_mode & 0o777 == 0o755

    def test_a_file_that_holds_its_content_is_left_alone(self, kept: Cache) -> None:
        kept.run(a="{}", b="{}")
        before = inodes(kept.path)
        kept.run(a="{}", b='{"x": 1}')
        after = inodes(kept.path)
        assert {name for name in before if before[name] != after[name]} == {"b.json", "b.json.last"}

    @pytest.mark.parametrize("old", ["", "{", '{"a": 1}{"a": 1}', '{"a": 2}'])
    def test_a_file_that_somebody_damaged_is_written_anew(self, kept: Cache, old: str) -> None:
        kept.path.mkdir()
        (kept.path / "a.json").write_text(old)
        kept.write(a='{"a": 1}')
        assert (kept.path / "a.json").read_text() == '{"a": 1}'

    def test_a_file_that_somebody_opened_for_all_is_private_again(self, kept: Cache) -> None:
        kept.write(a='{"a": 1}')
        (kept.path / "a.json").chmod(0o644)
        kept.write(a='{"a": 1}')
        assert (kept.path / "a.json").stat().st_mode & 0o777 == 0o600

    def test_the_list_is_complete_again_after_it_was_truncated(self, kept: Cache) -> None:
        """os-collect-config defect 2: a list that lost an entry stays so."""
        kept.write(a="{}")
        (kept.path / "os_config_files.json").write_text("[]")
        kept.write(a="{}")
        assert kept.listed() == ["a.json"]

    def test_orig_stays_what_it_first_was(self, kept: Cache) -> None:
        kept.run(a='{"v": 1}')
        kept.run(a='{"v": 2}')
        kept.write(a='{"v": 3}')
        found = held(kept.path)
        assert found["a.json.orig"] == '{"v": 1}'
        assert found["a.json.last"] == '{"v": 2}'
        assert found["a.json"] == '{"v": 3}'

    def test_a_large_document_passes_by_in_pieces(self, kept: Cache) -> None:
        text = '{"a": "' + "x" * 32 * 2**20 + '"}'
        contents = kept.contents(a=text)
        del text
        tracemalloc.start()
        for _ in range(2):
            cache.write(str(kept.path), contents)
            cache.commit(str(kept.path), contents)
            kept.back_up()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 * 2**20
        assert metadata.digest((kept.backup / "a.json.last").read_bytes())[:16] in contents[0][1]

    def test_what_another_writes_into_last_changes_nothing_else(self, kept: Cache) -> None:
        """os-collect-config's way: it replaces NAME.json, and writes into .last as it is."""
        kept.run(a='{"v": 1}')
        (kept.root / "new").write_text('{"v": 2}')
        (kept.root / "new").rename(kept.path / "a.json")
        (kept.path / "a.json.last").write_text('{"v": 2}')
        assert held(kept.path)["a.json.orig"] == held(kept.backup)["a.json.orig"] == '{"v": 1}'
        assert held(kept.backup)["a.json"] == '{"v": 1}'

    def test_what_a_hook_writes_into_the_file_is_not_what_was_committed(self, kept: Cache) -> None:
        kept.write(a='{"v": 1}')
        (kept.path / "a.json").write_text('{"v": 3}')
        kept.commit(a='{"v": 1}')
        assert held(kept.path)["a.json.last"] == '{"v": 1}'

    def test_it_leaves_no_descriptor_open(self, kept: Cache) -> None:
        before = open_descriptors()
        for text in ("{}", '{"a": 1}', "{}"):
            kept.run(a=text, b=text)
        assert open_descriptors() == before


class TestDocumentsThatAreGone:
    def test_their_files_go_too(self, kept: Cache) -> None:
        """os-collect-config defect 13: a removed deployment's files stay for ever."""
        kept.run(heat="{}", web='{"password": "old"}')
        kept.run(heat='{"v": 2}')
        kept.back_up()
        own = {"heat.json", "heat.json.orig", "heat.json.last", "os_config_files.json"}
        assert set(held(kept.path)) == set(held(kept.backup)) == own

    def test_also_those_that_never_were_committed(self, kept: Cache) -> None:
        kept.write(heat="{}", web="{}")
        kept.write(heat="{}")
        assert not [name for name in held(kept.path) if name.startswith("web")]

    def test_also_those_that_os_collect_config_has_forgotten(self, kept: Cache) -> None:
        """It wrote a list without them; that they were its own is known by their .last."""
        kept.run(heat="{}", web="{}")
        (kept.path / "os_config_files.json").write_text(json.dumps([str(kept.path / "heat.json")]))
        kept.write(heat="{}")
        assert not [name for name in held(kept.path) if name.startswith("web")]

    def test_what_lies_elsewhere_is_not_touched_whatever_the_list_says(self, kept: Cache) -> None:
        kept.write(heat="{}")
        inside = kept.path / "inside"
        inside.mkdir()
        safe = [kept.root / "own.json", inside / "own.json", inside / "os_config_files.json"]
        for path in safe:
            path.write_text("theirs")
        evil = [
            *map(str, safe),
            f"{kept.path}/../own.json",
            f"{kept.path}/",
            "own.json",
            "",
            "/",
            "a\0b.json",
        ]
        (kept.path / "os_config_files.json").write_text(json.dumps([*evil, "\ud800.json"]))
        kept.write(cfn="{}")
        assert all(path.read_text() == "theirs" for path in safe)

    def test_files_of_other_people_stay(self, kept: Cache) -> None:
        """Among them os-collect-config's temporary files: their names could be anybody's."""
        kept.write(heat="{}")
        others = ["tmpab12cd", "tmp_meta_list.x1", "notes.json", "notes.json.orig", "keystone.db", ".hidden"]
        for name in others:
            (kept.path / name).write_text("theirs")
        kept.run(cfn="{}")
        assert {name for name, text in held(kept.path).items() if text == "theirs"} == set(others)


class TestLinksAndOtherThingsInTheWay:
    @pytest.mark.parametrize("name", ["a.json", "a.json.orig", "a.json.last", "os_config_files.json"])
    def test_a_link_is_replaced_and_its_target_left_alone(self, kept: Cache, name: str) -> None:
        kept.path.mkdir()
        target = kept.root / "target"
        target.write_text('{"a": 1}')
        (kept.path / name).symlink_to(target)
        kept.run(a='{"a": 1}')
        assert not (kept.path / name).is_symlink()
        assert target.read_text() == '{"a": 1}'
        assert kept.listed() == ["a.json"]

    @pytest.mark.parametrize("name", ["a.json", "a.json.orig", "a.json.last", "os_config_files.json"])
    def test_a_fifo_blocks_nobody(self, kept: Cache, name: str) -> None:
        kept.path.mkdir()
        os.mkfifo(kept.path / name)
        kept.run(a="{}")
        assert (kept.path / name).is_file()

    @pytest.mark.parametrize("name", ["a.json", "a.json.orig", "a.json.last", "os_config_files.json"])
    def test_a_directory_is_named(self, kept: Cache, name: str) -> None:
        (kept.path / name / "inside").mkdir(parents=True)
        with pytest.raises(StateError, match="cache cannot be written: Is a directory") as caught:
            kept.run(a="{}")
        assert f"{kept.path / name}: " in str(caught.value)
        assert not [path for path in kept.path.iterdir() if files.TEMPORARY.fullmatch(path.name)]

    def test_the_directory_itself_may_be_a_link(self, kept: Cache) -> None:
        (kept.root / "elsewhere").mkdir()
        kept.path.symlink_to("elsewhere")
        kept.run(a="{}", b="{}")
        kept.run(a="{}")
        assert kept.listed() == ["a.json"]
        assert [name for name, _ in kept.takeover()] == ["a"]


class TestACacheThatCannotBeWritten:
    @pytest.mark.parametrize("kind", ["file", "loop", "nowhere"])
    @pytest.mark.parametrize("what", ["path", "backup"])
    def test_is_named_with_its_option(self, kept: Cache, kind: str, what: str) -> None:
        where = getattr(kept, what)
        if kind == "file":
            where.write_text("")
        elif kind == "loop":
            looping_link(where)
        else:
            where = pathlib.Path("/proc/nowhere")
            setattr(kept, what, where)
        with pytest.raises(StateError, match="cache cannot be written") as caught:
            kept.run(a="{}")
        assert str(caught.value).startswith(f"{where}: ")
        assert str(caught.value).endswith("cachedir" if what == "path" else "backup_cachedir")
        assert caught.value.exit_code is ExitCode.STATE

    def test_a_disk_that_is_full_keeps_what_there_was(self, kept: Cache) -> None:
        kept.run(a='{"v": 1}')
        before = held(kept.path)
        contents = kept.contents(a=json.dumps({"v": "x" * 2**20}))
        with most_bytes_of_a_file(2**16), pytest.raises(StateError, match="File too large") as caught:
            cache.write(str(kept.path), contents)
        assert str(caught.value).startswith(f"{kept.path}/a.json: ")
        assert held(kept.path) == before

    def test_a_stored_content_that_is_gone_is_named(self, kept: Cache) -> None:
        contents = kept.contents(a="{}")
        os.unlink(contents[0][1])
        with pytest.raises(StateError, match=r"stored/a-.*\.json: cannot be read: No such file"):
            cache.write(str(kept.path), contents)


@contextlib.contextmanager
def most_bytes_of_a_file(limit: int) -> Iterator[None]:
    """The kernel's limit for this process: a full disk that a test can have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestTheBackup:
    def test_holds_the_same_and_its_list_names_the_cache(self, kept: Cache) -> None:
        kept.run(heat='{"v": 1}', cfn="{}")
        kept.run(heat='{"v": 2}', cfn="{}")
        assert held(kept.backup) == held(kept.path)

    def test_what_is_the_same_is_left_alone(self, kept: Cache) -> None:
        kept.run(heat="{}", cfn="{}")
        before = inodes(kept.backup)
        kept.back_up()
        assert inodes(kept.backup) == before

    def test_other_files_there_stay(self, kept: Cache) -> None:
        """os-collect-config removes the directory with all that is in it."""
        kept.backup.mkdir()
        (kept.backup / "notes.json").write_text("theirs")
        (kept.backup / "folder").mkdir()
        kept.run(heat="{}")
        kept.run(cfn="{}")
        assert (kept.backup / "notes.json").read_text() == "theirs"
        assert (kept.backup / "folder").is_dir()

    def test_a_last_that_the_cache_has_not_is_removed(self, kept: Cache) -> None:
        kept.run(heat="{}")
        (kept.path / "heat.json.last").unlink()
        kept.back_up()
        assert held(kept.backup) == held(kept.path)

    @pytest.mark.parametrize("place", [".", "../cache", "inside", "../link", ".."])
    def test_the_same_directory_or_one_in_the_other_does_no_harm(self, kept: Cache, place: str) -> None:
        (kept.root / "link").symlink_to("cache")
        kept.run(heat="{}", cfn="{}")
        kept.backup = kept.path / place
        kept.run(heat='{"v": 2}', web="{}")
        expected = {"heat.json": '{"v": 2}', "heat.json.orig": "{}", "heat.json.last": '{"v": 2}'}
        expected |= {f"web.json{suffix}": "{}" for suffix in ("", ".orig", ".last")}
        listed = json.dumps([f"{kept.path}/heat.json", f"{kept.path}/web.json"])
        expected |= {"os_config_files.json": listed}
        assert held(kept.path) == expected
        assert held(kept.backup) == expected

    def test_an_empty_name_is_no_directory(
        self, kept: Cache, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept.write(heat="{}")
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        cache.back_up(str(kept.path), "")
        assert os.listdir() == []

    @pytest.mark.parametrize("text", [None, "[", "{}"])
    def test_a_cache_without_a_list_leaves_the_backup_as_it_is(self, kept: Cache, text: str | None) -> None:
        kept.run(heat="{}")
        before = held(kept.backup)
        (kept.path / "os_config_files.json").unlink()
        if text is not None:
            (kept.path / "os_config_files.json").write_text(text)
        kept.back_up()
        assert held(kept.backup) == before


class TestTakingOver:
    def test_what_was_committed_in_the_order_of_the_list(self, kept: Cache) -> None:
        kept.run(heat='{"b": 1, "a": 2}', cfn="{}")
        kept.write(heat='{"b": 2}', cfn="{}")
        expected = (("heat", metadata.fingerprint({"a": 2, "b": 1})), ("cfn", metadata.fingerprint({})))
        assert kept.takeover() == expected

    def test_names_come_as_os_collect_config_has_them(self, kept: Cache) -> None:
        kept.run(**{"web server": "{}", "ünïcode": "{}"})
        assert [name for name, _ in kept.takeover()] == ["web server", "ünïcode"]

    def test_the_same_contents_under_names_made_safe_are_no_change(self, kept: Cache) -> None:
        kept.run(**{"web": '{"a": 1}', "web server": "{}"})
        first, second = (fingerprint for _, fingerprint in kept.takeover())
        now = (("web", first), ("web_server-0a1b2c3d", second))
        assert cache.committed(str(kept.path), LIMITS, now) == now
        for other in (now[:1], now[::-1], (*now, now[0]), (now[0], (now[1][0], "another"))):
            assert cache.committed(str(kept.path), LIMITS, other) == kept.takeover()

    def test_nothing_without_a_cache(self, kept: Cache) -> None:
        assert kept.takeover() is None

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[",
            "[]",
            "{}",
            "null",
            "[1]",
            '["heat"]',
            '["/a\\u0000b.json"]',
            '["\\ud800.json"]',
            "[" * 10**5,
        ],
    )
    def test_nothing_of_a_bad_list(self, kept: Cache, text: str) -> None:
        kept.run(heat="{}")
        (kept.path / "os_config_files.json").write_text(text)
        assert kept.takeover() is None

    @pytest.mark.parametrize("path", ["{0}/../heat.json", "{0}/a/heat.json", "{0}/heat.json", "/etc/passwd"])
    def test_nothing_if_a_path_is_elsewhere_or_there_twice(self, kept: Cache, path: str) -> None:
        kept.run(heat="{}", cfn="{}")
        paths = [f"{kept.path}/heat.json", f"{kept.path}/cfn.json", path.format(kept.path)]
        (kept.path / "os_config_files.json").write_text(json.dumps(paths))
        assert kept.takeover() is None

    @pytest.mark.parametrize(("name", "raw", "why"), BAD_METADATA, ids=BAD_METADATA_IDS)
    def test_nothing_if_one_is_torn(self, kept: Cache, name: str, raw: bytes, why: str) -> None:
        """os-collect-config writes .last without fsync; after a power loss it may be empty or cut off."""
        kept.run(heat="{}", cfn="{}")
        (kept.path / "cfn.json.last").write_bytes(raw)
        assert kept.takeover() is None

    @pytest.mark.parametrize("kind", ["missing", "loop", "fifo", "directory"])
    def test_nothing_if_one_cannot_be_read(self, kept: Cache, kind: str) -> None:
        kept.run(heat="{}", cfn="{}")
        path = kept.path / "heat.json.last"
        path.unlink()
        if kind == "loop":
            looping_link(path)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "directory":
            path.mkdir()
        assert kept.takeover() is None
