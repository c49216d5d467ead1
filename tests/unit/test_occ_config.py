"""os-collect-config's own file: what counts of it, and what can never come from it."""

import json
import pathlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresh_agent import main, occ_config, opts
from refresh_agent.errors import ConfigError
from refresh_agent.model import Settings, TrustMode
from refresh_agent.option_values import Section, is_os_collect_configs
from refresh_agent.oslo import cfg
from tests.unit.support import open_descriptors


class Node:
    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.path = root / "os-collect-config.conf"
        self.own = root / "refresh-agent.conf"

    def load(self, text: str, own: str = "", **environment: str) -> Settings:
        """``own``: of our own file, which is read after it."""
        self.path.write_text(text)
        self.own.write_text(own)
        return opts.load(opts.Location((str(self.path), str(self.own))), environment)

    def options(self, text: str, own: str = "") -> dict[str, Any]:
        """Of the only collector."""
        (chosen,) = self.load(text, own).collectors
        return dict(chosen.options)

    def problems(self, text: str, own: str = "") -> list[str]:
        with pytest.raises(ConfigError) as caught:
            self.load(text, own)
        return str(caught.value).splitlines()


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node(tmp_path)


RENDERED = """\
[DEFAULT]
command = os-refresh-config
polling_interval = 10
cachedir = /var/lib/occ
collectors = ec2
collectors = heat
collectors = local
splay = 4


[heat]
auth_url = http://192.0.2.1:5000/v3
user_id = 5f0c
password = $ecret$$100%
project_id = 77aa
stack_id = overcloud/1234
resource_name = Controller
region_name =
"""


# --- what counts -------------------------------------------------------------------------------------------


def test_a_file_that_heat_agents_hook_has_written_is_taken_over(node: Node) -> None:
    settings = node.load(RENDERED)
    assert [entry.name for entry in settings.collectors] == ["ec2", "heat", "local"]
    assert (settings.cachedir, settings.polling.interval, settings.polling.splay) == ("/var/lib/occ", 10, 4)
    heat = settings.collectors[1].options
    assert heat["auth_url"] == "http://192.0.2.1:5000/v3"
    assert (heat["stack_id"], heat["resource_name"]) == ("overcloud/1234", "Controller")
    assert heat["region_name"] is None


def test_without_collectors_they_are_those_of_os_collect_config(node: Node) -> None:
    expected = ["heat_local", "ec2", "cfn", "heat", "request", "local", "zaqar"]
    assert [entry.name for entry in node.load("").collectors] == expected
    assert [entry.name for entry in node.load("[DEFAULT]\ncollectors =\n").collectors] == expected
    chosen = node.load("", own="[DEFAULT]\ncollectors = config_drive\n").collectors
    assert [entry.name for entry in chosen] == ["config_drive"]


@pytest.mark.parametrize(
    "value",
    [
        "$heat.user_id",
        "${user_id}",
        "$$",
        "$",
        r"\$",
        r"a\\$b\$\$",
        "a'b\"c",
        "a\"$b'",
        "#;=[]:%(x)s",
        "ümläut €",
        "back\\slash\\",
        "{{mustache}}&amp;",
    ],
)
def test_a_value_is_literal(node: Node, value: str) -> None:
    text = f"[DEFAULT]\ncollectors = heat\n[heat]\nuser_id = x\npassword = {value}\n"
    assert node.options(text)["password"] == value


LINES = st.text(st.characters(exclude_categories=["Cs", "Cc"])) | st.text(r"""$\{}"'[]=:#; a.""")


@given(st.lists(LINES.map(str.strip).filter(bool), min_size=1, max_size=3))
def test_every_value_arrives_as_it_stands(lines: list[str]) -> None:
    value = "\n".join(lines)
    conf = cfg.ConfigOpts()
    conf.register_opts([cfg.StrOpt("password"), cfg.MultiStrOpt("path")], "heat")
    section = Section("os-collect-config.conf", "heat", {"password": [value], "path": ["$x", value]})
    with occ_config.handed_on([section]) as path:
        conf(args=[], default_config_files=[path], default_config_dirs=[])
    assert conf.heat.password == value
    assert conf.heat.path == ["$x", value]


def test_reading_it_again_and_again_leaves_nothing_open(node: Node) -> None:
    node.load(RENDERED)
    before = open_descriptors()
    for _ in range(3):
        node.load(RENDERED)
        node.problems("[DEFAULT]\ncommand = something else\n")
    assert open_descriptors() == before


def test_quotes_around_a_value_and_further_lines_are_as_oslo_config_has_them(node: Node) -> None:
    text = (
        "[DEFAULT]\ncollectors = \"cfn\"\n[cfn]\npath = 'a.Metadata'\npath =\n  b.$c\n  d.e\n"
        "stack_name = ''$''\n"
    )
    options = node.options(text)
    assert options["path"] == ["a.Metadata", "\nb.$c\nd.e"]
    assert options["stack_name"] == "'$'"


def test_a_group_may_be_written_in_capitals_as_oslo_config_has_it(node: Node) -> None:
    assert node.options("[DEFAULT]\ncollectors = heat\n[HEAT]\nuser_id = me\n")["user_id"] == "me"


def test_the_later_file_wins(node: Node) -> None:
    text = "[DEFAULT]\npolling_interval = 7\ncollectors = ec2\n[ec2]\ntimeout = 3\nmetadata_url = http://a/\n"
    own = "[DEFAULT]\npolling_interval = 8\n[ec2]\ntimeout = 4\n"
    settings = node.load(text, own)
    assert (settings.polling.interval, settings.collectors[0].options["timeout"]) == (8, 4)
    assert settings.collectors[0].options["metadata_url"] == "http://a/"
    settings = opts.load(opts.Location((str(node.own), str(node.path))), {})
    assert (settings.polling.interval, settings.collectors[0].options["timeout"]) == (7, 3)


def test_an_empty_value_leaves_what_an_earlier_file_says(node: Node) -> None:
    node.load(
        "[DEFAULT]\ncollectors = heat\n[heat]\nregion_name =\n[ec2]\ntimeout =\n",
        "[heat]\nregion_name = one\n",
    )
    settings = opts.load(opts.Location((str(node.own), str(node.path))), {})
    assert settings.collectors[0].options["region_name"] == "one"


def test_files_of_its_directory_count_as_its_own(tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "os-collect-config.conf.d"
    directory.mkdir()
    (directory / "10-a.conf").write_text("[DEFAULT]\ncollectors = local\ndebug = true\n")
    (directory / "20-b.conf").write_text("[phases]\ntrust = off\n[DEFAULT]\nsplay = 5\n")
    for name in (str(directory), f"{directory}/"):
        settings = opts.load(opts.Location((), (name,)), {})
        assert (settings.phases.trust, settings.polling.splay) == (TrustMode.ENFORCE, 5)


@pytest.mark.parametrize("name", ["os-collect-config.conf", "90-heat.conf"])
def test_a_link_to_it_in_our_own_directory_counts_as_it(tmp_path: pathlib.Path, name: str) -> None:
    etc, ours = tmp_path / "etc", tmp_path / "conf.d"
    etc.mkdir()
    ours.mkdir()
    (etc / "os-collect-config.conf").write_text("[DEFAULT]\nsplay = 5\n[phases]\ntrust = off\n")
    (ours / name).symlink_to(etc / "os-collect-config.conf")
    settings = opts.load(opts.Location((), (str(ours),)), {})
    assert (settings.phases.trust, settings.polling.splay) == (TrustMode.ENFORCE, 5)


def test_it_is_known_from_within_its_directory(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "os-collect-config.conf.d"
    directory.mkdir()
    monkeypatch.chdir(directory)
    assert is_os_collect_configs("./a.conf")
    assert is_os_collect_configs("../os-collect-config.conf")
    assert not is_os_collect_configs("../refresh-agent.conf")


# --- what cannot come from it ------------------------------------------------------------------------------


def test_it_says_nothing_but_what_os_collect_config_s_options_say(node: Node) -> None:
    text = (
        "[DEFAULT]\nbase_dir = /evil\nstate_dir = /evil\nlock_file = /evil\nlog_file = /x\nprint = true\n"
        "polling-interval = 3\ncollectors = heat\nnonsense = 1\n"
        "[phases]\ntrust = off\nhook_timeout = 1\n[limits]\nmetadata_bytes = 1\n[debounce]\nquiet = x\n"
        "[migrations]\ntargets = evil\n[migration:evil]\nconnection = sqlite:////evil\n"
        "[keystone]\ncache_dir = /x\n[heat]\ninsecure = true\ntimeout = 1\nca_file = /evil\n"
        "[odd group]\na = b\n"
    )
    settings = node.load(text)
    plain = node.load("[DEFAULT]\ncollectors = heat\n")
    assert settings == plain
    assert settings.collectors[0].options["insecure"] is False


def test_its_options_are_those_of_the_original(node: Node) -> None:
    """What is named here exists among ours, but for the command."""
    ours = dict(opts.list_opts())
    for group, names in occ_config.OPTIONS.items():
        assert names - {"command"} <= {option.dest for option in ours[group]}, group


# --- the command -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "",
        "true",
        "/bin/true",
        "/usr/bin/true",
        ":",
        "os-refresh-config",
        "/opt/stack/venvs/os-refresh-config/bin/os-refresh-config",
        "'os-refresh-config'",
        "os-refresh-config --log-level DEBUG",
        "/usr/local/bin/refresh-agent run-phases",
    ],
)
def test_a_command_that_the_agent_stands_in_for_is_accepted(node: Node, command: str) -> None:
    assert node.load(f"[DEFAULT]\ncommand = {command}\n") == node.load("")


@pytest.mark.parametrize(
    "command", ["os-refresh-config --timeout 14400", "/x/refresh-agent run-phases --timeout=14400"]
)
def test_the_time_out_of_its_command_is_that_of_a_run_unless_we_have_one(node: Node, command: str) -> None:
    text = f"[DEFAULT]\ncommand = {command}\n"
    assert node.load(text).phases.run_timeout == 14400
    assert node.load(text, own="[phases]\nrun_timeout = 5\n").phases.run_timeout == 5
    assert node.load(text, own="[phases]\nrun_timeout = 0\n").phases.run_timeout == 0


def test_the_lock_of_its_command_is_ours_unless_we_have_one(node: Node) -> None:
    text = "[DEFAULT]\ncommand = os-refresh-config --lockfile /run/a.lock --timeout 5\n"
    assert node.load(text).lock_file == "/run/a.lock"
    assert node.load(text, own="[DEFAULT]\nlock_file = /run/b.lock\n").lock_file == "/run/b.lock"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("/usr/bin/ansible-pull", "/usr/bin/ansible-pull is neither os-refresh-config nor"),
        ("true false", "true is neither"),
        ("PASSWORD=geheim os-refresh-config", "it is neither os-refresh-config nor"),
        (
            "os-refresh-config && curl -u user:geheim x",
            "only --timeout, --lockfile and --log-level may follow",
        ),
        ("os-refresh-config;curl", "it is neither"),
        ("refresh-agent --once", "refresh-agent is neither"),
        ("os-refresh-config 'geheim", "has a quotation without an end"),
        ("os-refresh-config --print-base", "only --timeout"),
        ("os-refresh-config --timeout", "--timeout takes a number of seconds"),
        ("os-refresh-config --timeout 5;geheim", "--timeout takes a number of seconds"),
        ("os-refresh-config --timeout -5", "--timeout takes a number of seconds"),
    ],
)
def test_another_command_is_refused_with_advice(node: Node, command: str, words: str) -> None:
    (problem,) = node.problems(f"[DEFAULT]\ncommand = {command}\n")
    assert problem.startswith(f"{node.path}: [DEFAULT] command: {words}")
    assert "--timeout takes" in problem or "set command = os-refresh-config" in problem
    assert "geheim" not in problem


def test_the_last_command_counts(tmp_path: pathlib.Path) -> None:
    first, second = tmp_path / "os-collect-config.conf", tmp_path / "os-collect-config.conf.d"
    second.mkdir()
    first.write_text("[DEFAULT]\ncommand = something else\n")
    (second / "a.conf").write_text("[DEFAULT]\ncommand = /bin/true\n")
    assert opts.load(opts.Location((str(first),), (str(second),)), {})


# --- what is wrong -----------------------------------------------------------------------------------------


def test_a_missing_file_is_named(node: Node) -> None:
    with pytest.raises(ConfigError) as caught:
        opts.load(opts.Location((str(node.path),)), {})
    assert str(caught.value) == f"{node.path}: cannot be read: No such file or directory"


def test_a_bad_value_names_the_file_in_which_it_is(node: Node) -> None:
    (problem,) = node.problems("[DEFAULT]\npolling_interval = often\n")
    assert problem.startswith(f"{node.path}: [DEFAULT] polling_interval = often: is not valid")
    problems = node.problems("[DEFAULT]\ncollectors = heat, ec2, nova\n[ec2]\ntimeout = x@y\n")
    assert problems[0].startswith(f"{node.path}: [ec2] timeout = x@y: is not valid")
    assert "there is no collector 'nova'" in problems[1]


@pytest.mark.parametrize(
    "text",
    [
        "[heat]\npassword = ok\ngeheim without an equals sign\n",
        "[heat]\npassword = ok\n\n  geheim\n",
        "[heat]\npassword = geheim\0\n",
        "[heat\npassword = geheim\n",
        "password = geheim\n",
        "[DEFAULT]\ncollectors = heat\n[heat]\nauth_url = https//me:geheim@keystone\n",
        "[DEFAULT]\ncollectors = request\n[request]\nmetadata_url = swift?temp_url_sig=geheim\n",
    ],
)
def test_no_message_has_a_secret_of_it(node: Node, text: str) -> None:
    problems = node.problems(text)
    assert problems
    assert all(problem.startswith(f"{node.path}: ") for problem in problems)
    assert "geheim" not in "".join(problems)


def test_a_file_that_is_not_text_is_named(node: Node) -> None:
    node.path.write_bytes(b"[heat]\npassword = \xff\xfe\n")
    with pytest.raises(ConfigError, match="is not UTF-8 text") as caught:
        opts.load(opts.Location((str(node.path),)), {})
    assert str(node.path) in str(caught.value)


def test_a_mistake_in_our_own_file_beside_it_is_still_one(node: Node) -> None:
    (problem,) = node.problems("[heat]\nbogus = 1\n", own="[heat]\npasword = geheim\n")
    assert problem == f"{node.own}: [heat] pasword is not a known option; did you mean password?"


# --- check-config ------------------------------------------------------------------------------------------


def test_check_config_says_which_files_are_read_in_which_way(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    node.path.write_text(RENDERED)
    node.own.write_text("[debounce]\nquiet = 2\n")
    arguments = ["check-config", "--config-file", str(node.own), "--config-file", str(node.path)]
    assert main.main(arguments) == 0
    told = capsys.readouterr().out
    assert told == f"The configuration is good ({node.own}, {node.path}: os-collect-config's own options).\n"
    assert main.main([*arguments, "--json"]) == 0
    files = [str(node.own), str(node.path)]
    assert json.loads(capsys.readouterr().out) == {"files": files, "problems": []}


def test_check_config_shows_nothing_secret(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.path.write_text(
        "[DEFAULT]\ncollectors = heat, cfn, request\n[heat]\npassword = geheim\nauth_url = geheim\n"
        "[cfn]\naccess_key_id = geheim\nsecret_access_key = geheim\nmetadata_url = https://geheim@\n"
        "[request]\nmetadata_url = geheim\n"
    )
    for more in ([], ["--json"]):
        assert main.main(["check-config", "--config-file", str(node.path), *more]) == 2
        told = "".join(capsys.readouterr())
        assert "[heat] auth_url" in told
        assert "geheim" not in told
