"""A sample is written whole, or left alone."""

import os
import pathlib
import signal
import stat

import pytest

from refresh_agent.tools import generate_sample, program
from tests.unit.tools import support
from tests.unit.tools.support import interpreter, trouble

BROKEN = f"answer('new\\n', 3, [{trouble()}])"
WARNING = "cannot import a: w; o"


class Shop(support.Shop):
    """A project whose interpreter does what ``body`` says."""

    def generate(self, body: str, *words: str) -> int:
        python = interpreter(self.place / "python", body)
        argv = ["-b", str(self.base), "-p", "shop", "--python", python, *words]
        status = program.run(lambda: generate_sample.main(argv))
        self.hear()
        assert self.out == ""
        return status

    def left_over(self) -> list[str]:
        return sorted(os.listdir(self.base / "etc"))


@pytest.fixture
def shop(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> Shop:
    return Shop(tmp_path, capsys)


def test_what_the_options_say_is_written(shop: Shop) -> None:
    assert shop.generate("answer('[DEFAULT]\\n#ä = 1\\n', 3)") == 0
    assert shop.sample.read_text(encoding="utf-8") == "[DEFAULT]\n#ä = 1\n"
    assert stat.S_IMODE(shop.sample.stat().st_mode) == 0o644
    assert shop.said == [f"{shop.sample}: 3 options"]
    assert shop.left_over() == ["remark", "shop.conf.sample"]


def test_a_file_that_is_there_keeps_its_mode(shop: Shop) -> None:
    shop.sample.write_text("old")
    shop.sample.chmod(0o640)
    assert shop.generate("answer('new\\n')") == 0
    assert (shop.sample.read_text(), stat.S_IMODE(shop.sample.stat().st_mode)) == ("new\n", 0o640)


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_one(shop: Shop, there: bool) -> None:
    if there:
        (shop.base / "real").write_text("old")
    shop.sample.symlink_to("../real")
    assert shop.generate("answer('new\\n')") == 0
    assert os.readlink(shop.sample) == "../real"
    assert (shop.base / "real").read_text() == "new\n"


def test_a_signal_waits_until_the_file_is_whole(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = generate_sample.write_durably

    def interrupted(path: str, data: bytes, mode: int) -> None:
        signal.raise_signal(signal.SIGTERM)  # to this thread: a test before may have left one
        whole(path, data, mode)

    monkeypatch.setattr(generate_sample, "write_durably", interrupted)
    with pytest.raises(SystemExit):
        shop.generate("answer('new')")
    assert shop.sample.read_text() == "new"
    assert shop.left_over() == ["remark", "shop.conf.sample"]


def test_something_that_is_missing_is_a_warning(shop: Shop) -> None:
    assert shop.generate(BROKEN) == 0
    assert shop.said == [f"warning: {WARNING}", f"{shop.sample}: 3 options"]
    assert shop.sample.read_text() == "new\n"


def test_strictly_it_is_an_error_and_the_file_is_left_alone(shop: Shop) -> None:
    shop.sample.write_text("old")
    assert shop.generate(BROKEN, "--strict") == 1
    assert shop.said == [f"error: {WARNING}", f"{shop.sample} was left as it is, for --strict was given"]
    assert shop.sample.read_text() == "old"
    assert shop.generate("answer('new\\n')", "--strict") == 0


def test_without_any_options_the_file_is_left_alone(shop: Shop) -> None:
    assert shop.generate("answer('', 0)") == 1
    assert shop.said == [f"no options were found in shop: {shop.sample} was left as it is"]
    assert shop.left_over() == ["remark"]


def test_what_cannot_be_written_is_named(shop: Shop) -> None:
    shop.sample.mkdir()
    assert shop.generate("answer('new')") == 2
    assert shop.said == [f"error: {shop.sample} cannot be written: Is a directory"]
    assert shop.left_over() == ["remark", "shop.conf.sample"]


@pytest.mark.parametrize("character", ["\\udcff", "\\ud800"])
def test_what_is_no_text_is_written_in_words(shop: Shop, character: str) -> None:
    assert shop.generate(f"answer('a {character} b\\n')") == 0
    assert shop.sample.read_text() == f"a {character} b\n"
