"""What shell scripts say of a sample, read by a shell."""

import os
import pathlib

import pytest

from refresh_agent.errors import ConfigError
from refresh_agent.tools import project
from refresh_agent.tools.generator_rc import Extras, extras

PATH = os.environ["PATH"]
MODULES = "OSLO_CONFIG_GENERATOR_EXTRA_MODULES"
LIBRARIES = "OSLO_CONFIG_GENERATOR_EXTRA_LIBRARIES"
EXCLUDED = "OSLO_CONFIG_GENERATOR_EXCLUDED_FILES"


class Shop:
    """A project, and scripts; the path has a blank in it."""

    def __init__(self, place: pathlib.Path) -> None:
        self.base = place / "the shop"
        self.own = self.base / "tools" / "config" / "oslo.config.generator.rc"
        self.own.parent.mkdir(parents=True)

    def rc(self, text: str, name: str = "some.rc") -> str:
        (self.base / name).write_text(text)
        return str(self.base / name)

    def extras(self, *files: str, **environment: str) -> Extras:
        return extras(project.read(str(self.base), "shop"), files, {"PATH": PATH, **environment})


@pytest.fixture
def shop(tmp_path: pathlib.Path) -> Shop:
    return Shop(tmp_path)


def test_without_a_script_and_without_variables_there_is_nothing_to_read(shop: Shop) -> None:
    assert shop.extras(PATH="/nonexistent") == Extras()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("one", ["one"]),
        ("'one two'", ["one", "two"]),
        ("' one\n   two\t'", ["one", "two"]),
        ("''", []),
        ("(one two)", ["one", "two"]),
        ("('of two words' two)", ["of two words", "two"]),
        ("('of two\nlines=' '')", ["of two\nlines=", ""]),
        ("()", []),
        ("'a/*.py ~ $HOME'", ["a/*.py", "~", "$HOME"]),
        ("('a/*.py')", ["a/*.py"]),
    ],
)
def test_a_variable_holds_words_or_is_an_array(shop: Shop, value: str, words: list[str]) -> None:
    (shop.base / "a").mkdir()
    (shop.base / "a" / "file.py").write_text("")
    rc = shop.rc(f"cd '{shop.base}'\n{EXCLUDED}={value}\n")
    assert shop.extras(rc).excluded == words


def test_every_variable_has_its_place(shop: Shop) -> None:
    rc = shop.rc(f"{MODULES}='a.b c'\nexport {LIBRARIES}=oslo.log\ndeclare -a {EXCLUDED}=(x.py)\n")
    assert shop.extras(rc) == Extras(["a.b", "c"], ["oslo.log"], ["x.py"], {})


def test_an_array_that_is_exported_is_one_too(shop: Shop) -> None:
    assert shop.extras(shop.rc(f"declare -ax {EXCLUDED}=('of two words')\n")) == Extras(
        [], [], ["of two words"]
    )


def test_the_projects_own_script_is_read_without_being_asked_for(shop: Shop) -> None:
    shop.own.write_text(f"{MODULES}=own\n")
    assert shop.extras().modules == ["own"]
    assert shop.extras(str(shop.base / "gone.rc")).modules == ["own"]


def test_a_script_that_is_given_twice_is_read_once(shop: Shop) -> None:
    shop.own.write_text(f"{MODULES}+=' own'\n")
    (shop.base / "link.rc").symlink_to(shop.own)
    assert shop.extras(str(shop.own), str(shop.base / "link.rc")).modules == ["own"]


def test_two_scripts_add_up(shop: Shop) -> None:
    shop.own.write_text(f"{MODULES}='own'\n{EXCLUDED}=(b.py)\n")
    rc = shop.rc(f"{MODULES}='beside'\n{LIBRARIES}='oslo.log'\n{EXCLUDED}='a.py'\n")
    assert shop.extras(rc) == Extras(["beside", "own"], ["oslo.log"], ["a.py", "b.py"], {})


def test_the_environment_says_it_where_there_is_no_script(shop: Shop) -> None:
    assert shop.extras(**{MODULES: "a  b"}) == Extras(["a", "b"], [], [], {})


def test_the_environments_words_are_patterns_not_the_files_that_are_there(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shop.base / "file.py").write_text("")
    monkeypatch.chdir(shop.base)
    assert shop.extras(**{EXCLUDED: "*.py"}).excluded == ["*.py"]


def test_what_one_script_sets_is_not_in_the_way_of_the_next_one(shop: Shop) -> None:
    shop.own.write_text(f"cd '{shop.base}'\n{EXCLUDED}=(*.rc)\n: $UNSET\nfalse\n")
    assert shop.extras(shop.rc("set -eu\nset -f\n")).excluded == ["some.rc"]


def test_a_script_wins_over_the_environment_and_may_add_to_it(shop: Shop) -> None:
    environment = {MODULES: "before", LIBRARIES: "kept"}
    assert shop.extras(shop.rc(f"{MODULES}=own"), **environment).modules == ["own"]
    rc = shop.rc(f'{MODULES}="${MODULES} more"')
    assert shop.extras(rc, **environment) == Extras(["before", "more"], ["kept"], [], {})


def test_a_script_knows_which_project_it_is_about(shop: Shop) -> None:
    rc = shop.rc(f'{MODULES}=("$BASEDIR" "$PACKAGENAME")')
    assert shop.extras(rc).modules == [str(shop.base), "shop"]


def test_what_is_exported_reaches_the_imports_and_nothing_else_does(shop: Shop) -> None:
    rc = shop.rc("export NEW='1\n2=3' KEPT=same CHANGED=after\nlocal_only=1\nunset GONE\ncd /\n")
    found = shop.extras(rc, KEPT="same", CHANGED="before", GONE="gone")
    assert found.environment == {"NEW": "1\n2=3", "CHANGED": "after"}


def test_what_a_script_prints_is_no_part_of_the_answer(shop: Shop, capfd: pytest.CaptureFixture[str]) -> None:
    rc = shop.rc(f"echo reading\n{MODULES}=one\necho complaint >&2\nprintf 'a\\0\\0b'\n")
    assert shop.extras(rc) == Extras(["one"])
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err.startswith("reading\ncomplaint\n")


@pytest.mark.parametrize("text", ["set -eu", "set -f", "shopt -s nullglob", "cd /"])
def test_a_scripts_own_settings_do_not_matter(shop: Shop, text: str) -> None:
    assert shop.extras(shop.rc(f"{text}\n{MODULES}='one *?'\n")).modules == ["one", "*?"]


@pytest.mark.parametrize(
    ("text", "status"), [(f"{MODULES}='one\n", 2), ("if\n", 2), ("exit 3\n", 3), ("exit\n", 0), ("exit 0", 0)]
)
def test_a_script_that_cannot_be_read_to_its_end_is_named(
    shop: Shop, text: str, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    rc = shop.rc(text)
    with pytest.raises(ConfigError) as caught:
        shop.extras(rc)
    assert str(caught.value) == f"{rc} cannot be read: bash ended with {status} while it read it"
    assert (rc in capfd.readouterr().err) == (status == 2)


def test_of_a_script_with_a_wrong_syntax_nothing_is_executed(shop: Shop) -> None:
    with pytest.raises(ConfigError):
        shop.extras(shop.rc(f"touch '{shop.base}/left behind'\nif\n"))
    assert not (shop.base / "left behind").exists()


def test_without_bash_it_is_said_what_would_have_been_read(shop: Shop) -> None:
    shop.own.write_text("")
    with pytest.raises(ConfigError, match="there is no bash to read it with") as caught:
        shop.extras(PATH=str(shop.base))
    assert str(caught.value).startswith(f"{shop.own} cannot be read: ")
    with pytest.raises(ConfigError, match="OSLO_CONFIG_GENERATOR_… of the environment cannot be read"):
        Shop(shop.base / "other").extras(**{"PATH": str(shop.base), MODULES: "a"})


def test_what_bash_would_read_by_itself_is_not_read(shop: Shop) -> None:
    start = shop.rc("echo printed; export SPOILT=yes", "start.sh")
    found = shop.extras(shop.rc(f"{MODULES}=a"), BASH_ENV=start, ENV=start)
    assert (found.modules, "SPOILT" in found.environment) == (["a"], False)
