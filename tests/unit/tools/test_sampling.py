"""The conversation with a project's interpreter, whatever that one does."""

import json
import os
import pathlib
import signal
import sys
from typing import Any

import pytest

from refresh_agent.errors import ConfigError
from refresh_agent.tools import program, sampling
from refresh_agent.tools.sampler.identity import MACHINES
from refresh_agent.tools.sampling import CHECKOUT, WANTED, Request, Sample, Trouble, sample
from tests.processes import alive
from tests.unit.tools.support import interpreter, trouble
from tests.waiting import eventually


class Asker:
    """Asks an interpreter that does what ``body`` says."""

    def __init__(self, base: pathlib.Path) -> None:
        self.base = base
        self.python = ""

    def ask(self, body: str, **environment: str) -> Sample:
        self.python = interpreter(self.base / "python", body)
        return sample(Request(self.python, environment, {"base": str(self.base)}))

    def told(self, expression: str, **environment: str) -> Any:
        """What the value of ``expression`` is in the first of the two processes."""
        return json.loads(self.ask(f"answer(json.dumps({expression}))", **environment).text)

    def refused(self, body: str) -> str:
        with pytest.raises(ConfigError) as caught:
            self.ask(body)
        return str(caught.value)


@pytest.fixture
def asker(tmp_path: pathlib.Path) -> Asker:
    return Asker(tmp_path)


def test_an_answer_is_passed_on(asker: Asker) -> None:
    told = trouble(where="a.py, line 1")
    answer = asker.ask(f"tell('a')\ntell('b')\nanswer('a text\\n', 7, [{told}], ['x', 'y'], ['n'])")
    assert answer == Sample("a text\n", 7, frozenset("n"), ("x", "y"), (Trouble(**told),))


def test_two_machines_look_and_the_first_hears_what_the_second_has_found(asker: Asker) -> None:
    answer = asker.ask(
        """
        if machine == "second":
            tell("on the way")
            tell({"table": {"many": "x" * 200_000, "seed": os.environ["PYTHONHASHSEED"]}})
        else:
            table = json.loads(sys.stdin.read().splitlines()[-1])["table"]
            answer(f"{len(table['many'])} {table['seed']} {os.environ['PYTHONHASHSEED']}")
        """
    )
    assert answer.text == "200000 1 0"


def test_what_ends_the_second_one_only_is_left_out_too(asker: Asker) -> None:
    body = """
        if machine == "second":
            tell("shop.a")
            os.kill(os.getpid(), signal.SIGKILL)
        said = json.loads(sys.stdin.read())
        answer(json.dumps(request["fatal"])) if request["fatal"] else tell({"second": said})
        """
    told = "it ends the interpreter (on one of the two machines that it is shown)"
    assert json.loads(asker.ask(body).text) == {"shop.a": told}


def test_what_ends_the_interpreter_is_left_out_the_next_time(asker: Asker) -> None:
    answer = asker.ask(
        """
        for name, end in (("good", None), ("exits", lambda: os._exit(7)),
                          ("breaks", lambda: os.kill(os.getpid(), signal.SIGABRT))):
            tell(name)
            if end and name not in request["fatal"]:
                end()
        answer(json.dumps(request["fatal"]))
        """
    )
    assert json.loads(answer.text) == {
        "exits": "it ends the interpreter (exit code 7)",
        "breaks": "it ends the interpreter (SIGABRT)",
    }


@pytest.mark.parametrize(
    ("body", "how"),
    [
        ("os._exit(7)", "exit code 7"),
        ("os._exit(0)", "exit code 0"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("os.kill(os.getpid(), 40)", "signal 40"),
        ("tell('a'); os._exit(3)", "exit code 3"),
        ("tell('a'); os._exit(0)", "exit code 0"),
        ("print('no answer', flush=True); tell(7)", "exit code 0"),
        ("tell({'second': ''})", "on one of the two machines that it is shown"),
    ],
)
def test_an_interpreter_that_ends_for_no_module_that_could_be_left_out(
    asker: Asker, body: str, how: str
) -> None:
    assert asker.refused(body) == f"{asker.python} ended ({how}) before it had any answer: {WANTED}"


def test_what_the_other_side_cannot_do_is_told_in_its_words(asker: Asker) -> None:
    assert asker.refused("tell({'fatal': 'there is no oslo.config'})") == "there is no oslo.config"


@pytest.mark.parametrize(("kind", "why"), [("missing", "No such file"), ("file", "Permission denied")])
def test_an_interpreter_that_cannot_be_started_is_named(tmp_path: pathlib.Path, kind: str, why: str) -> None:
    python = tmp_path / "python"
    if kind == "file":
        python.write_text("")
    with pytest.raises(ConfigError, match=f"^{python} cannot be started: {why}") as caught:
        sample(Request(str(python), {}, {"base": str(tmp_path)}))
    assert str(caught.value).endswith(f": {WANTED}")


def test_it_works_in_the_projects_directory_with_the_sampler_by_its_path(asker: Asker) -> None:
    directory, program = asker.told("[os.getcwd(), sys.argv[1]]")
    assert directory == str(asker.base)
    assert program == os.path.join(CHECKOUT, "refresh_agent", "tools", "sampler", "__main__.py")


def test_what_comes_after_the_answer_does_not_count_and_is_not_waited_for(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "GRACE", 0.01)
    assert asker.ask("answer('text'); tell('a'); signal.pause()").text == "text"
    assert asker.ask("answer('text'); answer('more'); os._exit(4)").text == "text"


def test_no_process_and_no_descriptor_is_left_behind(asker: Asker) -> None:
    body = """
        if machine == "second":
            tell({"table": os.getpid()})
            signal.pause()
        answer(str([os.getpid(), json.loads(sys.stdin.readline())["table"]]))
        """
    before = os.listdir("/proc/self/fd")
    numbers = json.loads(asker.ask(body).text)
    assert [os.path.exists(f"/proc/{number}") for number in numbers] == [False, False]
    assert os.listdir("/proc/self/fd") == before


def test_what_a_module_has_started_ends_with_the_interpreter(asker: Asker) -> None:
    """It would hold the standard error of who has called us, and ``$(…)`` would never end."""
    body = """
        import subprocess
        child = subprocess.Popen(["sleep", "1000"])
        answer(str(child.pid)) if machine == "first" else tell({})
        """
    started = int(asker.ask(body).text)
    eventually(lambda: not alive(started))


def test_no_terminal_is_asked_while_modules_are_imported(asker: Asker) -> None:
    session, own = asker.told("[os.getsid(0), os.getpid()]")
    assert session == own


@pytest.mark.parametrize("machine", ["first", "second"])
def test_a_forked_child_that_holds_the_answers_open_is_not_waited_for(asker: Asker, machine: str) -> None:
    """It does not count either that a process which it waits for has gone."""
    body = """
        if machine == MACHINE and not request["fatal"]:
            tell("shop.a")
            if os.fork() == 0:
                signal.pause()
            os._exit(3)
        if machine == "second":
            tell({})
        else:
            said = [json.loads(line) for line in sys.stdin]
            answer(json.dumps(request["fatal"])) if {} in said else tell({"second": said[-1]})
        """
    told = {
        "first": "it ends the interpreter (exit code 3)",
        "second": "it ends the interpreter (on one of the two machines that it is shown)",
    }
    answer = asker.ask(body.replace("MACHINE", repr(machine)))
    assert json.loads(answer.text) == {"shop.a": told[machine]}


def test_a_caller_may_ignore_the_end_of_its_children(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert program.run(lambda: int(asker.ask("answer('7')").text)) == 7
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize(
    "body",
    [
        "tell('a'); os.close(1); signal.pause()",
        "while True: print('y')",
        "while True: os.write(1, b'y')",
    ],
)
def test_what_does_not_answer_and_goes_on_is_ended(
    asker: Asker, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr(sampling, "GRACE", 0.01)
    monkeypatch.setattr(sampling, "MOST_LINES", 100)
    monkeypatch.setattr(sampling, "MOST_BYTES", 2**20)
    said = asker.refused(body)
    assert (
        said == f"{asker.python} ended (by us, since it does not answer) before it had any answer: {WANTED}"
    )


# --- its environment ---------------------------------------------------------------------------------------


def test_of_the_callers_environment_only_what_finds_modules_is_passed_on(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name not in {"PATH", "HOME"}:
            monkeypatch.delenv(name)
    kept = {
        "LD_LIBRARY_PATH": "/l",
        "PBR_VERSION": "1",
        "SETUPTOOLS_SCM_PRETEND_VERSION": "2",
        "SETUPTOOLS_SCM_PRETEND_VERSION_FOR_SHOP": "3",
    }
    dropped = {
        "OS_PASSWORD": "p",
        "VIRTUAL_ENV": "/v",
        "SHOP_HOME": "h",
        "XDG_CACHE_HOME": "x",
        "TMPDIR": "/t",
        "LANG": "de_DE",
    }
    for name, value in {**kept, **dropped}.items():
        monkeypatch.setenv(name, value)
    environment = asker.told("dict(os.environ)")
    assert environment == {
        **kept,
        "PATH": os.environ["PATH"],
        "PYTHONPATH": "",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "EVENTLET_NO_GREENDNS": "yes",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONHASHSEED": "0",
        **MACHINES["first"].environment(),
    }


def test_to_the_second_machine_everything_is_another_one(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/a")
    body = """
        if machine == "second":
            tell(dict(os.environ))
        else:
            answer(json.dumps([dict(os.environ), json.loads(sys.stdin.readline())]))
        """
    first, second = json.loads(asker.ask(body, LD_LIBRARY_PATH="/l", SHOP_HOME="/s").text)
    assert {name: (first[name], second[name]) for name in first if first[name] != second[name]} == {
        "PATH": (os.environ["PATH"], os.environ["PATH"] + ":/proc/nonexistent"),
        "PYTHONPATH": ("/a", "/a:/proc/nonexistent"),
        "LD_LIBRARY_PATH": ("/l", "/l:/proc/nonexistent"),
        "PYTHONHASHSEED": ("0", "1"),
        **{
            name: (value, MACHINES["second"].environment()[name])
            for name, value in MACHINES["first"].environment().items()
        },
    }
    assert set(first) == set(second)


def test_a_path_that_is_empty_stays_so(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that is empty would be the current directory."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    body = "tell(os.environ['PYTHONPATH']) if machine == 'second' else answer(sys.stdin.read())"
    assert asker.ask(body).text == '""\n'


def test_what_a_script_has_exported_is_passed_on_but_no_credentials(asker: Asker) -> None:
    exported = {"SHOP_HOME": "/s", "PYTHONPATH": "/from/rc", "OS_PASSWORD": "geheim", "TZ": "Asia/Tokyo"}
    environment = asker.told("dict(os.environ)", **exported)
    assert (environment["SHOP_HOME"], environment["PYTHONPATH"]) == ("/s", "/from/rc")
    assert "OS_PASSWORD" not in environment
    assert environment["TZ"] == "UTC"


@pytest.mark.parametrize(
    ("path", "passed_on"),
    [
        (CHECKOUT, ""),
        (f"{CHECKOUT}:/a b:/c", "/a b:/c"),
        ("/a::/c", "/a:/c"),
        (f"{CHECKOUT}/x", f"{CHECKOUT}/x"),
    ],
)
def test_our_own_checkout_is_not_on_the_projects_path(
    asker: Asker, monkeypatch: pytest.MonkeyPatch, path: str, passed_on: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", path)
    assert asker.told("os.environ['PYTHONPATH']") == passed_on


def test_a_real_interpreter_without_oslo_config_is_named(tmp_path: pathlib.Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    with pytest.raises(
        ConfigError, match=r"has no oslo\.config that can be imported \(ModuleNotFoundError: No"
    ):
        sample(Request(str(python), {}, {"base": str(tmp_path), "root": str(tmp_path)}))


def test_machines_that_do_not_agree_are_followed_by_two_that_are_nearer(asker: Asker) -> None:
    told = asker.ask(
        """
        tell({**counted, "agree": False, "text": json.dumps(request["processors"]), "troubles": []})
        """.replace("**counted", "'options': 1, 'names': [], 'namespaces': []")
    )
    assert json.loads(told.text) == {"first": 4, "second": 8}
