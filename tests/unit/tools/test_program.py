"""The command line that the two commands share: generate_sample.sh's, and what came since."""

import os
import pathlib
import signal
import sys

import pytest

from refresh_agent.errors import ConfigError, StateError
from refresh_agent.tools import program
from refresh_agent.tools.order import Order
from refresh_agent.tools.sampling import Trouble
from tests.unit.tools.support import tree


@pytest.fixture(autouse=True)
def base(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A project in the current directory, and the name that the installed command is called by."""
    base = tree(tmp_path / "the shop", {"setup.cfg": "[metadata]\nname = shop\n", "etc/remark": ""})
    monkeypatch.chdir(base)
    monkeypatch.setattr(sys, "argv", ["/a bin/refresh-agent-config-sample"])
    monkeypatch.delenv(program.CALLED, raising=False)
    for name in ("VIRTUAL_ENV", "PYTHON"):
        monkeypatch.delenv(name, raising=False)
    return base


def order(*words: str) -> Order:
    return program.order(program.parser("about"), words)


# --- the command line --------------------------------------------------------------------------------------


def test_without_words_it_is_the_project_in_the_current_directory(base: pathlib.Path) -> None:
    found = order()
    assert (found.project.base, found.project.name) == (str(base), "shop")
    assert found.path == "etc/shop.conf.sample"
    assert (found.modules, found.libraries, found.rc_files, found.words) == ([], [], [], [])
    assert (found.form, found.python, found.strict) == ("ini", sys.executable, False)


@pytest.mark.parametrize(
    "words",
    [
        ["-b", "a b", "-p", "store", "-o", "out", "-m", "m1", "-m", "m2", "-l", "l1", "-l", "l2"],
        ["-ba b", "-pstore", "-oout", "-mm1", "-ll1", "-mm2", "-ll2"],
        ["--base-dir", "a b", "--package-name", "store", "--output-dir", "out", "--module", "m1",
         "--module", "m2", "--library", "l1", "--library", "l2"],
        ["--library=l1", "--library=l2", "--base-dir=a b", "--package-name=store", "--output-dir=out",
         "--module=m1", "--module=m2"],
        ["--base", "a b", "--package", "store", "--out=out", "--mod", "m1", "--mod=m2",
         "--lib=l1", "--lib", "l2"],
    ],
    ids=["short", "joined", "long", "equals", "abbreviated"],
)  # fmt: skip
def test_every_way_to_write_the_originals_options(base: pathlib.Path, words: list[str]) -> None:
    tree(base, {"a b/store/__init__.py": "", "out/remark": ""})
    found = order(*words)
    assert (found.project.base, found.project.package) == (str(base / "a b"), "store")
    assert found.path == "out/store.conf.sample"
    assert (found.modules, found.libraries) == (["m1", "m2"], ["l1", "l2"])
    again = ["-b", "a b", "-p", "store", "-o", "out", "-m", "m1", "-m", "m2", "-l", "l1", "-l", "l2"]
    assert found.words == again
    assert order(*found.words) == found


def test_what_came_since(base: pathlib.Path) -> None:
    tree(base, {"my.rc": "", "other.rc": ""})
    words = ["--python", "python3.9", "--format", "yaml", "--rc", "my.rc", "--rc", "other.rc"]
    found = order(*words, "--strict")
    assert (found.form, found.python, found.strict) == ("yaml", "python3.9", True)
    assert found.rc_files == ["my.rc", "other.rc"]
    assert found.words == words


def test_a_path_is_written_as_it_is_seen_from_the_current_directory(
    base: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert order("-o", str(base / "etc")).path == "etc/shop.conf.sample"
    monkeypatch.chdir(base.parent)
    assert order("-b", "the shop").path == "the shop/etc/shop.conf.sample"
    monkeypatch.chdir("/")
    assert order("-b", str(base)).path == str(base / "etc" / "shop.conf.sample").removeprefix("/")
    monkeypatch.chdir(base / "etc")
    assert order("-b", "..").path == "shop.conf.sample"
    (base / "shop").mkdir()
    monkeypatch.chdir(base / "shop")
    assert order("-b", "..").path == str(base / "etc" / "shop.conf.sample")


@pytest.mark.parametrize("form", ["ini", "yaml", "json", "rst"])
def test_the_sample_is_called_the_same_in_every_format(form: str) -> None:
    assert order("--format", form).path == "etc/shop.conf.sample"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--format", "toml"], "--format: invalid choice: 'toml'"),
        (["--modules", "a"], "unrecognized arguments: --modules"),
        (["-b"], "-b/--base-dir: expected one argument"),
        (["shop"], "unrecognized arguments: shop"),
    ],
)
def test_what_cannot_be_read_is_bad_usage(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        order(*words)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: refresh-agent-config-sample [-h] [-b DIR] [-p NAME] [-o DIR]")
    assert told in said


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_names_every_option(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        order(word)
    assert caught.value.code == 0
    told = capsys.readouterr().out
    for option in ("-b", "-p", "-o", "-m", "-l", "--format", "--strict", "--python", "--rc", "--version"):
        assert f" {option}" in told


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo"])
def test_an_rc_file_that_is_given_has_to_be_there(base: pathlib.Path, kind: str) -> None:
    if kind == "directory":
        (base / "my.rc").mkdir()
    elif kind == "fifo":
        os.mkfifo(base / "my.rc")
    with pytest.raises(ConfigError, match=r"^my\.rc is not a file: --rc takes a shell script"):
        order("--rc", "my.rc")


# --- by which way it was called ----------------------------------------------------------------------------


def test_called_as_a_script_it_reads_the_file_beside_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(program.CALLED, "../a checkout/tools/config/check_uptodate.sh")
    pathlib.Path("my.rc").touch()
    beside = "../a checkout/tools/config/oslo.config.generator.rc"
    assert order("--rc", "my.rc").rc_files == [beside, "my.rc"]
    assert order("--rc", "my.rc").words == ["--rc", "my.rc"]


def test_the_remedy_is_the_neighbour_of_what_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    assert program.generator() == ["refresh-agent-config-sample"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/refresh_agent/tools/check_uptodate.py"])
    module = [os.path.basename(sys.executable), "-m", "refresh_agent.tools.generate_sample"]
    assert program.generator() == module
    monkeypatch.setenv(program.CALLED, "../a checkout/check_uptodate.sh")
    assert program.generator() == ["../a checkout/generate_sample.sh"]


# --- how it talks ------------------------------------------------------------------------------------------


def test_every_trouble_is_a_line_under_the_name_that_it_was_called_by(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    troubles = [Trouble("cannot a", "a.py, line 1", "why", "outcome", "a"), Trouble("b", "", "c", "d", "")]
    program.tell(troubles, strict=False)
    monkeypatch.setenv(program.CALLED, "/a checkout/check_uptodate.sh")
    program.tell(troubles[1:], strict=True)
    assert capsys.readouterr() == (
        "",
        (
            "refresh-agent-config-sample: warning: cannot a (a.py, line 1): why; outcome\n"
            "refresh-agent-config-sample: warning: b: c; d\n"
            "check_uptodate.sh: error: b: c; d\n"
        ),
    )


@pytest.mark.parametrize(("error", "status"), [(ConfigError("a is wrong"), 2), (StateError("a is wrong"), 5)])
def test_what_goes_wrong_is_told_in_a_line(
    error: Exception, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> int:
        raise error

    assert program.run(main) == status
    assert capsys.readouterr() == ("", "refresh-agent-config-sample: error: a is wrong\n")


@pytest.mark.parametrize("number", program.ENDING)
def test_a_signal_ends_a_command_as_the_shell_expects_it_and_without_a_word(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> int:
        os.kill(os.getpid(), number)
        return 0

    with pytest.raises(SystemExit) as caught:
        program.run(main)
    assert caught.value.code == 128 + number
    assert capsys.readouterr() == ("", "")


def test_what_must_not_be_left_half_done_comes_before_the_end() -> None:
    done = []

    def main() -> int:
        with program.uninterrupted():
            signal.raise_signal(signal.SIGTERM)  # to this thread: a test before may have left one
            done.append("the rest")
        return 0

    with pytest.raises(SystemExit) as ended:
        program.run(main)
    assert (ended.value.code, done) == (128 + signal.SIGTERM, ["the rest"])


def test_a_command_can_print_everything(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def main() -> int:
        print("a\udcff")
        assert signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL
        return 1

    assert program.run(main) == 1
    assert capsys.readouterr().out == "a\\udcff\n"
