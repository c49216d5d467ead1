"""Is a sample what the options say? Told, with the difference, and nothing is written."""

import pathlib
import shlex
import sys

import pytest

from refresh_agent.tools import check_uptodate, program
from tests.unit.support import looping_link
from tests.unit.tools import support
from tests.unit.tools.support import interpreter, tree, trouble

BROKEN = f"answer('now\\n', 3, [{trouble()}])"
WARNING = "cannot import a: w; o"


class Shop(support.Shop):
    """A project whose interpreter does what ``body`` says."""

    printed: list[str]

    def check(
        self, body: str = "answer('now\\n')", *words: str, name: tuple[str, ...] = ("-p", "shop")
    ) -> int:
        python = interpreter(self.place / "python", body)
        before = self.seen()
        argv = ["-b", str(self.base), "--python", python, *name, *words]
        status = program.run(lambda: check_uptodate.main(argv))
        assert self.seen() == before
        self.hear()
        self.printed = self.out.splitlines()
        return status

    def seen(self) -> dict[str, int]:
        return {str(path): path.lstat().st_mtime_ns for path in self.base.rglob("*")}

    @property
    def remedy(self) -> str:
        words = ["-b", str(self.base), "-p", "shop", "--python", str(self.place / "python")]
        return f"run {shlex.join(['refresh-agent-config-sample', *words])}"


@pytest.fixture
def shop(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setattr(sys, "argv", ["/bin/refresh-agent-config-uptodate"])
    for variable in (program.CALLED, "PROJECT_NAME"):
        monkeypatch.delenv(variable, raising=False)
    return Shop(tmp_path, capsys)


def test_nothing_is_said_of_a_current_sample(shop: Shop) -> None:
    shop.sample.write_text("now\n")
    assert shop.check() == 0
    assert (shop.printed, shop.said) == ([], [])


def test_a_stale_sample_has_its_difference_printed_and_the_remedy_said(shop: Shop) -> None:
    shop.sample.write_text("same\nold\nend\n")
    assert shop.check("answer('same\\nnow\\nend\\n')") == 1
    assert shop.printed == [
        f"--- {shop.sample}\tas it is",
        f"+++ {shop.sample}\tas the options say",
        "@@ -1,3 +1,3 @@",
        " same",
        "-old",
        "+now",
        " end",
    ]
    assert shop.said == [f"{shop.sample} is not up to date: {shop.remedy}"]


@pytest.mark.parametrize(
    "committed", [b"now", b"now\n\n", b"now\r\n", b"now \n", b"\xef\xbb\xbfnow\n", b"", b"now\xff\n"]
)
def test_every_byte_counts(shop: Shop, committed: bytes) -> None:
    shop.sample.write_bytes(committed)
    assert shop.check() == 1
    assert shop.printed[0] == f"--- {shop.sample}\tas it is"
    assert len(shop.printed) > 3


def test_a_line_that_has_no_end_is_told_as_diff_does(shop: Shop) -> None:
    shop.sample.write_text("same\nnow")
    assert shop.check("answer('same\\nnow\\n')") == 1
    assert shop.printed[3:] == [" same", "-now", "\\ No newline at end of file", "+now"]


def test_lines_end_where_files_have_their_ends_only(shop: Shop) -> None:
    shop.sample.write_text("a\x0cb\rc\u2028d\n", newline="")
    assert shop.check() == 1
    assert shop.out.split("\n")[3:] == ["-a\x0cb\rc\u2028d", "+now", ""]


def test_bytes_that_are_no_text_are_compared_too(shop: Shop) -> None:
    shop.sample.write_bytes(b"a \xff b\n")
    assert shop.check("answer('a \\udcff b\\n')") == 1
    shop.sample.write_text("a \\udcff b\n")
    assert shop.check("answer('a \\udcff b\\n')") == 0


def test_a_sample_that_is_not_there_is_named_with_the_remedy(shop: Shop) -> None:
    assert shop.check("os._exit(9)  # nobody asks") == 1
    assert (shop.printed, shop.said) == ([], [f"{shop.sample} is not there: {shop.remedy}"])


@pytest.mark.parametrize(("kind", "why"), [("loop", "Too many levels"), ("directory", "Is a directory")])
def test_a_sample_that_cannot_be_read_is_named(shop: Shop, kind: str, why: str) -> None:
    if kind == "loop":
        looping_link(shop.sample)
    else:
        shop.sample.mkdir()
    assert shop.check() == 2
    (line,) = shop.said
    assert line.startswith(f"error: {shop.sample} cannot be read: {why}")


def test_something_that_is_missing_is_a_warning_and_strictly_an_error(shop: Shop) -> None:
    shop.sample.write_text("now\n")
    assert shop.check(BROKEN) == 0
    assert shop.said == [f"warning: {WARNING}"]
    assert shop.check(BROKEN, "--strict") == 1
    assert shop.said == [f"error: {WARNING}"]
    assert shop.check("answer('now\\n')", "--strict") == 0


def test_what_is_missing_is_to_be_seen_to_before_a_stale_sample_is_written_anew(shop: Shop) -> None:
    shop.sample.write_text("old\n")
    assert shop.check(BROKEN) == 1
    advice = f"see first to what is missing (above), then {shop.remedy}"
    assert shop.said == [f"warning: {WARNING}", f"{shop.sample} is not up to date: {advice}"]


def test_a_project_without_options_is_not_current(shop: Shop) -> None:
    shop.sample.write_text("")
    assert shop.check("answer('', 0)") == 1
    assert shop.said == ["no options were found in shop"]
    assert shop.printed == []


# --- the name ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [("-p", "shop"), ("--package-name=shop",), ("shop",)])
def test_the_name_may_be_an_option_or_an_argument_and_wins_over_the_environment(
    shop: Shop, name: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.sample.write_text("old\n")
    monkeypatch.setenv("PROJECT_NAME", "store")
    assert shop.check(name=name) == 1
    assert shop.said[0].startswith(f"{shop.sample} is not up to date")
    assert " -p shop " in shop.said[0]


def test_the_name_may_be_in_the_environment_and_the_remedy_has_it_too(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROJECT_NAME", "store")
    (shop.base / "store").mkdir()
    assert shop.check(name=()) == 1
    assert shop.said == [
        f"{shop.base}/etc/store.conf.sample is not there: {shop.remedy.replace('-p shop', '-p store')}"
    ]


@pytest.mark.parametrize("name", [None, ""])
def test_without_a_name_it_is_the_projects_own(
    shop: Shop, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name is not None:
        monkeypatch.setenv("PROJECT_NAME", name)
    tree(shop.base, {"setup.cfg": "[metadata]\nname = shop\n"})
    assert shop.check(name=()) == 1
    assert shop.said == [f"{shop.sample} is not there: {shop.remedy.replace('-p shop ', '')}"]


def test_two_names_are_bad_usage(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        shop.check(name=("shop", "store"))
    assert caught.value.code == 2
    assert "unrecognized arguments: store" in capsys.readouterr().err
