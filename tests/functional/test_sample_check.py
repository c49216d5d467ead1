"""Is a sample configuration current? What the check says, and that what it advises helps."""

import os
import pathlib
import shlex
import subprocess
import sys

import pytest

from tests.functional.projects import (
    BIN,
    BOTH,
    Ended,
    Project,
    Tools,
    defining,
    either_way,
    everything,
    options_of,
    state,
)


@pytest.fixture
def project(tmp_path: pathlib.Path) -> Project:
    return shop(tmp_path)


def shop(place: pathlib.Path, tools: Tools = BOTH["scripts"]) -> Project:
    made = Project(place, tools)
    made.file("shop/till.py", defining("coins"))
    return made


def mend(project: Project, ended: Ended, cwd: pathlib.Path | None = None) -> list[str]:
    """Do what the last line advises, as somebody would who has the installed commands at hand."""
    advice = ended.stderr.splitlines()[-1]
    words = shlex.split(advice.partition("run ")[2])
    project.run(*words, cwd=cwd, env={"PATH": f"{BIN}:{os.environ['PATH']}"})
    return words


@either_way
def test_a_current_sample_gets_not_a_word(tmp_path: pathlib.Path, tools: Tools) -> None:
    project = shop(tmp_path, tools)
    project.generate()
    ended = project.check()
    assert (ended.stdout, ended.stderr) == ("", "")


@either_way
def test_a_stale_one_gets_a_diff_and_the_command_that_mends_it(tmp_path: pathlib.Path, tools: Tools) -> None:
    project = shop(tmp_path, tools)
    project.generate()
    old = project.sample.read_text()
    project.file("shop/till.py", defining("notes"))
    ended = project.check(status=1)
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("--- etc/shop.conf.sample")
    assert lines[1].startswith("+++ ")
    changed = [line for line in lines[2:] if line[0] in "-+"]
    assert changed == ["-#coins = COINS", "+#notes = NOTES"]
    assert ended.stderr.startswith(f"{tools.check.name}: etc/shop.conf.sample is not up to date: run ")
    assert project.sample.read_text() == old
    (script,) = (word for word in mend(project, ended) if not word.startswith(("env", "PYTHON=", "-")))
    assert pathlib.Path(script).name == tools.generate.name
    project.check()


@pytest.mark.parametrize("end", ["", "# by hand", "# by hand\n"])
def test_the_diff_is_a_patch(project: Project, end: str) -> None:
    project.generate()
    fresh = project.sample.read_text()
    project.sample.write_text(fresh.replace("coins", "notes") + end)
    diff = project.check(status=1).stdout
    command = ["git", "apply", "-p0", "-"]
    subprocess.run(command, input=diff, cwd=project.base, text=True, check=True)
    assert project.sample.read_text() == fresh


@pytest.mark.parametrize("change", [b" \n", b"\n", b"\r\n", b"# by hand\n", b"\x00", b"\xff\xfe\n"])
def test_every_byte_counts(project: Project, change: bytes) -> None:
    """Also one that is not UTF-8."""
    project.generate()
    with project.sample.open("ab") as file:
        file.write(change)
    before = state(project.sample)
    ended = project.check(status=1)
    assert any(line.startswith("-") for line in ended.stdout.splitlines()[2:])
    assert state(project.sample) == before
    mend(project, ended)
    project.check()


def test_other_line_ends_are_another_file(project: Project) -> None:
    project.generate()
    project.sample.write_bytes(project.sample.read_bytes().replace(b"\n", b"\r\n"))
    project.check(status=1)


@either_way
def test_a_sample_that_is_not_there(tmp_path: pathlib.Path, tools: Tools) -> None:
    project = shop(tmp_path, tools)
    before = everything(project.place)
    ended = project.check(status=1)
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"{tools.check.name}: etc/shop.conf.sample is not there: run ")
    assert everything(project.place) == before
    mend(project, ended)
    project.check()


@either_way
def test_the_command_asks_for_the_same_again(tmp_path: pathlib.Path, tools: Tools) -> None:
    """From another directory, with paths that have blanks in them."""
    project = shop(tmp_path, tools)
    project.file("shop_till/other.py", defining("notes"))
    project.file("more/opts.py", defining("more"))
    project.file("rc/one more.rc", "OSLO_CONFIG_GENERATOR_EXTRA_MODULES=more.late\n")
    project.file("more/late.py", defining("late"))
    output = project.place / "it's an output"
    output.mkdir()
    words: list[object] = ["-b", "../the shop", "-p", "shop_till", "-o", "../it's an output"]
    words += ["-m", "more.opts", "-l", "oslo.log", "-l", "oslo.concurrency"]
    words += ["--rc", "../the shop/rc/one more.rc", "--python", sys.executable, "--strict"]
    ended = project.check(*words, status=1, cwd=project.home)
    mend(project, ended, cwd=project.home)
    found = options_of((output / "shop_till.conf.sample").read_text())
    assert {"notes", "more", "late", "use_journal"} < set(found["DEFAULT"])
    assert "oslo_concurrency" in found
    project.check(*words, cwd=project.home)


@either_way
@pytest.mark.parametrize("form", ["yaml", "json"])
def test_the_command_asks_for_the_same_format(tmp_path: pathlib.Path, tools: Tools, form: str) -> None:
    project = shop(tmp_path, tools)
    project.generate()
    mend(project, project.check("--format", form, status=1))
    project.check("--format", form)


@either_way
@pytest.mark.parametrize("way", ["the environment", "an argument", "an option", "the option wins"])
def test_the_name_may_be_given(tmp_path: pathlib.Path, tools: Tools, way: str) -> None:
    project = shop(tmp_path, tools)
    project.file("booth/till.py", defining("booth"))
    words, env = {
        "the environment": ([], {"PROJECT_NAME": "booth"}),
        "an argument": (["booth"], {}),
        "an option": (["-p", "booth"], {}),
        "the option wins": (["-p", "booth"], {"PROJECT_NAME": "nothing_of_that_name"}),
    }[way]
    ended = project.check(*words, status=1, env=env)
    assert "etc/booth.conf.sample is not there" in ended.stderr
    mend(project, ended)
    assert options_of((project.base / "etc" / "booth.conf.sample").read_text()) == {
        "DEFAULT": {"booth": "BOOTH"}
    }
    project.check(*words, env=env)


def test_an_empty_name_in_the_environment_is_none(project: Project) -> None:
    project.generate()
    project.check(env={"PROJECT_NAME": ""})


@either_way
def test_a_broken_module_comes_first(tmp_path: pathlib.Path, tools: Tools) -> None:
    """Or else the advice would take its options out of the sample."""
    project = shop(tmp_path, tools)
    project.file("shop/notes.py", defining("notes"))
    project.generate()
    before = state(project.sample)
    project.file("shop/notes.py", "import not_there\n" + defining("notes"))
    ended = project.check(status=1)
    warning, advice = ended.stderr.splitlines()
    assert "warning: cannot import shop.notes (shop/notes.py, line 1)" in warning
    assert warning.endswith("missing from the sample: its options notes")
    assert "see first to what is missing (above), then run " in advice
    assert state(project.sample) == before


def test_what_is_missing_is_an_error_only_if_that_is_asked_for(project: Project) -> None:
    project.file("shop/broken.py", "import not_there  # Opt(\n")
    project.generate()
    ended = project.check()
    assert (ended.stdout, ended.stderr.count("warning: cannot import shop.broken")) == ("", 1)
    ended = project.check("--strict", status=1)
    assert (ended.stdout, ended.stderr.count("error: cannot import shop.broken")) == ("", 1)


@either_way
def test_a_project_without_options_is_no_current_one(tmp_path: pathlib.Path, tools: Tools) -> None:
    project = Project(tmp_path, tools)
    project.file("shop/till.py", "COINS = 3\n")
    project.sample.write_text("")
    assert "no options were found in shop" in project.check(status=1).stderr


USAGE = {
    "an unknown option": (["--nothing"], "--nothing"),
    "an unknown format": (["--format", "xml"], "xml"),
    "no base": (["-b", "no such place"], "no such place is not a directory"),
    "no output directory": (["-o", "no such place"], "no such place is not a directory"),
    "an output that is a file": (["-o", "pyproject.toml"], "pyproject.toml is not a directory"),
    "no rc file": (["--rc", "no such file"], "no such file is not a file"),
    "an interpreter that is not there": (["--python", "./none"], "none cannot be started"),
    "an interpreter that is none": (["--python", "/bin/false"], "/bin/false ended (exit code 1)"),
    "no oslo.config": (["--python", "{base}/bin/python3"], "has no oslo.config"),
    "a path for a module": (["-m", "shop/till.py"], "full name, such as shop.web"),
    "two libraries at once": (["-l", "oslo.log,oslo.db"], "each has an -l of its own"),
    "no name": (["-p", ""], "nothing is given"),
    "a package that is not there": (["-p", "nothing_of_that_name"], "nothing_of_that_name"),
}


@pytest.mark.parametrize("program", ["generate", "check"])
@pytest.mark.parametrize(("words", "told"), list(USAGE.values()), ids=list(USAGE))
@either_way
def test_bad_usage_is_told_in_a_line(
    tmp_path: pathlib.Path, tools: Tools, words: list[str], told: str, program: str
) -> None:
    project = shop(tmp_path, tools)
    for name in ("shop", "nothing_of_that_name"):
        (project.base / "etc" / f"{name}.conf.sample").write_text("old\n")
    before = everything(project.place)
    given = [word.format(base=sys.base_prefix) for word in words]
    ended = project.run(getattr(tools, program), *given, status=2)
    assert ended.stdout == ""
    line = ended.stderr.splitlines()[-1]
    assert line.startswith(f"{getattr(tools, program).name}: error: ")
    assert told in line
    assert everything(project.place) == before


@pytest.mark.parametrize("file", ["pyproject.toml", "setup.cfg", "setup.py"])
@pytest.mark.parametrize("content", [b"[(", b"\xff\n"])
def test_metadata_that_cannot_be_read(project: Project, file: str, content: bytes) -> None:
    (project.base / file).write_bytes(content)
    (line,) = project.check(status=2).stderr.splitlines()
    assert line.startswith("check_uptodate.sh: error: ")
    assert f"{file} cannot be read: " in line


def test_an_rc_file_that_cannot_be_read(project: Project) -> None:
    project.generate()
    project.file("tools/config/oslo.config.generator.rc", "if\n")
    line = project.check(status=2).stderr.splitlines()[-1]
    assert "oslo.config.generator.rc cannot be read: bash ended with 2" in line


@either_way
@pytest.mark.parametrize("program", ["generate", "check"])
def test_a_sample_that_is_a_directory(tmp_path: pathlib.Path, tools: Tools, program: str) -> None:
    project = shop(tmp_path, tools)
    project.sample.mkdir()
    (line,) = project.run(getattr(tools, program), status=2).stderr.splitlines()
    assert "etc/shop.conf.sample cannot be " in line
    assert line.endswith(": Is a directory")


@pytest.mark.parametrize("program", ["generate", "check"])
@pytest.mark.parametrize(
    "name", ["etc/shop.conf.sample", "tools/config/a.conf.sample", "tools/config/oslo.config.generator.rc"]
)
def test_a_fifo_is_not_waited_for_and_stays_what_it_is(project: Project, name: str, program: str) -> None:
    """Nor is a device replaced, as it was by a sample that was a link to /dev/null."""
    for file in ("etc/shop.conf.sample", "tools/config/remark"):
        project.file(file, "")
    (project.base / name).unlink(missing_ok=True)
    os.mkfifo(project.base / name)
    (line,) = project.run(getattr(project.tools, program), status=2).stderr.splitlines()
    assert f"{name} cannot be " in line
    assert line.endswith("is not a regular file")
    assert (project.base / name).is_fifo()


@either_way
@pytest.mark.parametrize(("program", "mode"), [("generate", 0o500), ("generate", 0), ("check", 0)])
def test_an_output_directory_that_is_closed(
    tmp_path: pathlib.Path, tools: Tools, program: str, mode: int
) -> None:
    project = shop(tmp_path, tools)
    project.sample.write_text("old\n")
    project.sample.parent.chmod(mode)
    barred = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    (line,) = project.run(*barred, getattr(tools, program), status=2).stderr.splitlines()
    project.sample.parent.chmod(0o700)
    assert "etc/shop.conf.sample cannot be " in line
    assert line.endswith(": Permission denied")
    assert [path.name for path in project.sample.parent.iterdir()] == ["shop.conf.sample"]


@pytest.mark.parametrize("program", ["generate", "check"])
def test_an_interrupt_at_the_very_beginning_is_told_as_one(project: Project, program: str) -> None:
    """Not as a Python that does not do, and not with the exit code of a sample that is stale."""
    python = project.file("python", "#!/bin/sh\nkill -INT $PPID\nexit 1\n")
    python.chmod(0o755)
    ended = project.run(getattr(project.tools, program), status=130, env={"PYTHON": str(python)})
    assert ended.stderr == ""


@pytest.mark.parametrize("script", ["generate_sample.sh", "check_uptodate.sh"])
@pytest.mark.parametrize("python", ["/bin/false", "no-such-python", "{base}/bin/python3"])
def test_scripts_say_which_python_they_need(project: Project, script: str, python: str) -> None:
    """Without a checkout around them it has to have the package."""
    alone = project.file(f"tools/config/{script}", (BOTH["scripts"].check.with_name(script)).read_text())
    alone.chmod(0o755)
    name = python.format(base=sys.base_prefix)
    (line,) = project.run(alone, status=2, env={"PYTHON": name}).stderr.splitlines()
    assert line == f"{script}: {name} is not a Python 3.11 or later that has refresh-agent: set PYTHON to one"
