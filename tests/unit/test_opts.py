"""Reading the configuration: every problem at once, each with its file, group and option."""

import os
import pathlib
import sys

import pytest

from refresh_agent import opts, source_opts
from refresh_agent.errors import ConfigError, ExitCode
from refresh_agent.model import (
    CollectorSettings,
    Destructive,
    MetadataLimits,
    PollingSettings,
    RetrySettings,
    RunAtBoot,
    Settings,
    Suspicious,
)
from tests.unit.support import looping_link


class Node:
    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.path = root / "refresh-agent.conf"

    def load(self, text: str, **environment: str) -> Settings:
        self.path.write_text(text)
        return opts.load(opts.Location((str(self.path),)), environment)

    def problems(self, text: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            self.load(text)
        assert caught.value.exit_code is ExitCode.USAGE
        return str(caught.value).splitlines()


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node(tmp_path)


# --- values ------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_that_are_promised(node: Node) -> None:
    settings = node.load("")
    assert settings.state_dir == "/var/lib/refresh-agent"
    assert settings.lock_file == "/run/os-refresh-config.lock"
    assert settings.cachedir == "/var/lib/os-collect-config"
    assert settings.backup_cachedir == "/var/run/os-collect-config"
    assert settings.run_at_boot is RunAtBoot.ALWAYS
    assert settings.polling == PollingSettings(30, 1, 0)
    assert settings.collectors == (
        CollectorSettings(
            "os_collect_config",
            {
                "files_list": "/var/run/os-collect-config/os_config_files.json",
                "deployment_key": ("deployments",),
            },
        ),
    )
    assert (settings.quiet, settings.max_wait) == (1.0, 10.0)
    assert settings.limits == MetadataLimits(64 * 2**20, 64, Suspicious.WARN)
    assert settings.retry == RetrySettings(1.0, 300.0, 0)
    phases = settings.phases
    assert (phases.run_timeout, phases.phase_timeout, phases.hook_timeout) == (0, 0, 0)
    assert (phases.error_timeout, phases.kill_grace, phases.stop_grace) == (60, 10, 60)
    assert phases.output_limit == 2**20
    assert phases.base_dir == "/usr/libexec/os-refresh-config"
    assert settings.targets == ()


def test_every_group_is_read(node: Node) -> None:
    settings = node.load(
        "[DEFAULT]\nbase_dir = /base\nstate_dir = /state/\nlock_file = /lock\ncachedir = /cache\n"
        "backup_cachedir = /backup\ncollectors = local, heat_local\ndeployment_key = one\n"
        "deployment_key = two\npolling_interval = 5\nmin_polling_interval = 2\nsplay = 3\n"
        "run_at_boot = changed\n"
        "[local]\npath = /a\npath = /b\n[heat_local]\npath = /c\n"
        "[debounce]\nquiet = 0.5\nmax_wait = 2\n"
        "[phases]\nrun_timeout = 1\nphase_timeout = 2\nhook_timeout = 3\nerror_timeout = 4\n"
        "kill_grace = 5\nstop_grace = 6\noutput_limit = 7\n"
        "[retry]\ninitial = 8\nmaximum = 9\nmax_attempts = 10\n"
        "[limits]\nmetadata_bytes = 11\nmetadata_depth = 12\nsuspicious = hold\n"
    )
    assert [entry.name for entry in settings.collectors] == ["local", "heat_local"]
    assert settings.collectors[0].options == {"path": ["/a", "/b"], "deployment_key": ("one", "two")}
    assert settings.collectors[1].options == {"path": ["/c"], "deployment_key": ("one", "two")}
    assert (settings.state_dir, settings.backup_cachedir) == ("/state", "/backup")
    assert settings.run_at_boot is RunAtBoot.CHANGED
    assert settings.polling == PollingSettings(5, 2, 3)
    assert (settings.quiet, settings.max_wait) == (0.5, 2)
    assert settings.limits == MetadataLimits(11, 12, Suspicious.HOLD)
    assert settings.retry == RetrySettings(8, 9, 10)
    phases = settings.phases
    assert (phases.run_timeout, phases.phase_timeout, phases.hook_timeout) == (1, 2, 3)
    assert (phases.error_timeout, phases.kill_grace, phases.stop_grace, phases.output_limit) == (4, 5, 6, 7)


@pytest.mark.parametrize(
    "text",
    [
        "collectors = local\ncollectors = heat_local,local\n",
        "collectors = local,, heat_local ,\n",
        "collectors =\n  local\n  heat_local\n",
        "collectors = local\n  heat_local,local\ncollectors = local\n",
    ],
)
def test_collectors_may_be_given_in_every_way_and_are_taken_once(node: Node, text: str) -> None:
    settings = node.load(f"[DEFAULT]\n{text}")
    assert [entry.name for entry in settings.collectors] == ["local", "heat_local"]


def test_polls_right_after_a_change_are_never_rarer_than_others(node: Node) -> None:
    settings = node.load("[DEFAULT]\npolling_interval = 5\nmin_polling_interval = 7\n")
    assert settings.polling == PollingSettings(interval=5, minimum=5)


def test_without_a_deployment_key_it_is_the_usual_one(node: Node) -> None:
    settings = node.load("[DEFAULT]\ndeployment_key =\n")
    assert settings.collectors[0].options["deployment_key"] == ("deployments",)


def test_an_empty_backup_directory_is_none(node: Node) -> None:
    assert node.load("[DEFAULT]\nbackup_cachedir =\n").backup_cachedir == ""


def test_the_base_directory_follows_os_refresh_configs_rule(node: Node) -> None:
    assert node.load("", OS_REFRESH_CONFIG_BASE_DIR="/from/env").phases.base_dir == "/from/env"
    text = "[DEFAULT]\nbase_dir = /from/file\n"
    assert node.load(text, OS_REFRESH_CONFIG_BASE_DIR="/from/env").phases.base_dir == "/from/file"


TARGET = (
    "[migrations]\ntargets = shop\n[migration:shop]\n"
    "connection = mysql+pymysql://shop:geheim@db/shop\nalembic_config = /shop/alembic.ini\n"
)


def test_behind_a_link_the_base_directory_is_where_the_kernel_finds_it(
    node: Node, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to("far/away")
    settings = node.load(f"[DEFAULT]\nbase_dir = {tmp_path}/link/../hooks/")
    assert settings.phases.base_dir == f"{tmp_path}/link/../hooks"


def test_a_target_is_read_with_its_defaults(node: Node) -> None:
    (target,) = node.load(TARGET).targets
    assert target.name == "shop"
    assert target.python == target.legacy_python == sys.executable
    assert (target.revision, target.timeout, target.lock_timeout) == ("head", 3600, 3600)
    assert (target.connection_from, target.user, target.backup) == ("", "", "")
    assert (target.destructive, target.statement_timeout) == (Destructive.WARN, 0)


def test_a_target_is_read_whole(node: Node) -> None:
    (target,) = node.load(
        TARGET.replace("targets = shop", "targets = shop, shop")
        + "migrate_repository = /shop/legacy\nlegacy_versions = 3:5a1e, 4:8c44\npython = /new\n"
        "legacy_python = /old\npython_path = /one,/two\nrevision = b7f2\ntimeout = 5\n"
    ).targets
    assert target.legacy_versions == ((3, "5a1e"), (4, "8c44"))
    assert (target.python, target.legacy_python, target.python_path) == ("/new", "/old", ("/one", "/two"))
    assert (target.migrate_repository, target.revision, target.timeout) == ("/shop/legacy", "b7f2", 5)


def test_a_target_waits_for_a_lock_as_long_as_it_may_take_unless_told_otherwise(node: Node) -> None:
    (target,) = node.load(TARGET + "timeout = 5\n").targets
    assert target.lock_timeout == 5
    (target,) = node.load(TARGET + "timeout = 5\nlock_timeout = 0\n").targets
    assert target.lock_timeout == 0


def test_the_rest_of_a_target(node: Node) -> None:
    (target,) = node.load(
        TARGET.replace("connection = mysql+pymysql://shop:geheim@db/shop", "connection_from = /etc/shop.conf")
        + "user = shop\nstatement_timeout = 1.5\ndestructive = refuse\nbackup = /bin/dump -x\n"
        "migrate_repository = /shop/legacy\nlegacy_versions = 3:base\n"
    ).targets
    assert (target.connection, target.connection_from, target.user) == ("", "/etc/shop.conf", "shop")
    assert (target.statement_timeout, target.destructive) == (1.5, Destructive.REFUSE)
    assert (target.backup, target.legacy_versions) == ("/bin/dump -x", ((3, "base"),))


def test_the_connection_comes_from_one_place(node: Node) -> None:
    (problem,) = node.problems(TARGET + "connection_from = /etc/shop.conf\n")
    assert problem == "[migration:shop] connection_from: connection is set too; remove one of them"


def test_secrets_are_in_no_repr(node: Node) -> None:
    assert "geheim" not in repr(node.load(TARGET))


# --- files -------------------------------------------------------------------------------------------------


def test_later_files_win(node: Node, tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "conf.d"
    directory.mkdir()
    (directory / "20-b.conf").write_text("[debounce]\nquiet = 3\n")
    (directory / "10-a.conf").write_text("[debounce]\nquiet = 2\nmax_wait = 4\n")
    (directory / "30-c.txt").write_text("not configuration")
    node.path.write_text("[debounce]\nquiet = 1\nmax_wait = 9\n[retry]\ninitial = 7\n")
    location = opts.Location((str(node.path),), (str(directory),))
    assert location.files() == [str(node.path), f"{directory}/10-a.conf", f"{directory}/20-b.conf"]
    settings = opts.load(location, {})
    assert (settings.quiet, settings.max_wait, settings.retry.initial) == (3, 4, 7)


def test_the_default_files_need_not_exist(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opts, "CONFIG_FILE", str(tmp_path / "agent.conf"))
    monkeypatch.setattr(opts, "CONFIG_DIR", str(tmp_path / "agent.conf.d"))
    assert opts.Location().files() == []
    assert opts.load(opts.Location(), {}).quiet == 1
    (tmp_path / "agent.conf").write_text("[debounce]\nquiet = 2\n")
    (tmp_path / "agent.conf.d").mkdir()
    (tmp_path / "agent.conf.d" / "a.conf").write_text("[debounce]\nquiet = 3\n")
    assert opts.load(opts.Location(), {}).quiet == 3
    assert opts.Location(("/other",)).files() == ["/other"]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "No such file or directory"),
        ("directory", "Is a directory"),
        ("loop", "Too many levels of symbolic links"),
        ("bytes", "is not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(node: Node, kind: str, words: str) -> None:
    if kind == "directory":
        node.path.mkdir()
    elif kind == "loop":
        looping_link(node.path)
    elif kind == "bytes":
        node.path.write_bytes(b"[DEFAULT]\nbase_dir = /\xff\n")
    with pytest.raises(ConfigError, match=words) as caught:
        opts.load(opts.Location((str(node.path),)), {})
    assert str(caught.value).startswith(f"{node.path}: ")


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_directory_that_cannot_be_read_is_named(tmp_path: pathlib.Path, kind: str) -> None:
    path = tmp_path / "conf.d"
    if kind == "file":
        path.write_text("")
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        opts.load(opts.Location((), (str(path),)), {})
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[DEFAULT\n", "line 1"),
        ("[DEFAULT]\nbase_dir /x\n", "line 2"),
        ("[DEFAULT]\n[]\n", "line 2"),
        ("[DEFAULT]\n= x\n", "line 2"),
        ("base_dir = /x\n", "line 1"),
    ],
)
def test_a_syntax_error_is_told_with_its_line(node: Node, text: str, words: str) -> None:
    (problem,) = node.problems(text)
    assert problem.startswith(f"{node.path}: {words}: ")


def test_what_is_watched_is_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opts, "CONFIG_FILE", "/etc/agent.conf")
    monkeypatch.setattr(opts, "CONFIG_DIR", "/etc/agent.conf.d")
    assert opts.Location().watch() == ("/etc/agent.conf", "/etc/agent.conf.d")
    assert opts.Location(("/a", "/b")).watch() == ("/a", "/b")
    assert opts.Location(("/a",), ("/d",)).watch() == ("/a", "/d")
    assert opts.Location((), ("/d",)).watch() == ("/etc/agent.conf", "/d")


def test_what_a_link_in_the_directory_leads_to_is_watched_too(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.conf").write_text("")
    (tmp_path / "b.conf").symlink_to("/etc/os-collect-config.conf")
    (tmp_path / "c.txt").symlink_to("/etc/passwd")
    assert opts.Location(("/x",), (str(tmp_path),)).watch() == ("/x", str(tmp_path), f"{tmp_path}/b.conf")


def test_a_file_that_goes_while_it_is_read_is_a_mistake_like_others(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Vanishing(opts.cfg.ConfigOpts):  # type: ignore[misc]
        def __call__(self, *args: object, **options: object) -> None:
            node.path.unlink()
            super().__call__(*args, **options)

    monkeypatch.setattr(opts.cfg, "ConfigOpts", Vanishing)
    (problem,) = node.problems("[debounce]\nquiet = 1\n")
    assert problem == f"{node.path}: one of them changed while it was read; try again"


# --- what is wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[DEFAULT]\nbase_dri = /x", "[DEFAULT] base_dri is not a known option; did you mean base_dir?"),
        ("[phasen]\nx = 1", "[phasen] is not a known group; did you mean phases?"),
        ("[debounce]\nmaxwait = 1", "[debounce] maxwait is not a known option; did you mean max_wait?"),
        ("[local]\nzzzzzzzz = 1", "[local] zzzzzzzz is not a known option"),
        (
            "[migration:shop]\nconnection = x",
            "[migration:shop] is not a known group; add shop to [migrations] targets",
        ),
        (
            "[DEFAULT]\ncollectors = heta_local",
            "there is no collector 'heta_local'; did you mean heat_local?",
        ),
        ("[DEFAULT]\ncollectors = zzz", "there is no collector 'zzz'"),
        ("[DEFAULT]\ncollectors =", "[DEFAULT] collectors is empty"),
        ("[debounce]\nquiet = 20", "max_wait is shorter than quiet"),
        ("[phases]\nkill_grace = 0", "[phases] kill_grace must be more than 0"),
        ("[retry]\nmax_attempts = -1", "[retry] max_attempts = -1"),
        ("[retry]\nmax_attempts = 1.5", "[retry] max_attempts = 1.5"),
        ("[limits]\nmetadata_depth = 501", "[limits] metadata_depth = 501"),
        ("[limits]\nmetadata_bytes = 0", "[limits] metadata_bytes = 0"),
        ("[phases]\noutput_limit = many", "[phases] output_limit = many"),
        ("[debounce]\nquiet = soon", "[debounce] quiet = soon"),
        ("[debounce]\nquiet = -1", "[debounce] quiet = -1"),
        ("[DEFAULT]\npolling_interval = 0.05", "[DEFAULT] polling_interval = 0.05"),
        ("[DEFAULT]\nbase_dir = $nowhere/x", "[DEFAULT] base_dir = $nowhere/x"),
        ("[DEFAULT]\nmin_polling_interval = 0", "[DEFAULT] min_polling_interval = 0"),
        ("[DEFAULT]\nsplay = -1", "[DEFAULT] splay = -1"),
        ("[DEFAULT]\nbackup_cachedir = here", "[DEFAULT] backup_cachedir = here: 'here' is not an absolute"),
        ("[DEFAULT]\nstate_dir =", "[DEFAULT] state_dir = : '' is not an absolute path"),
        (
            "[DEFAULT]\nbackup_cachedir = /var/lib/os-collect-config",
            "backup_cachedir is, holds, or is in cachedir",
        ),
        ("[DEFAULT]\nbackup_cachedir = /var/lib/refresh-agent/x", "is, holds, or is in state_dir"),
        ("[DEFAULT]\ncachedir = /run/os-collect-config/x", "is, holds, or is in cachedir"),
        ("[DEFAULT]\ncollectors = phases", "there is no collector 'phases'"),
        ("[DEFAULT]\ncollectors = local\n  heat_locale", "there is no collector 'heat_locale'"),
        ("[DEFAULT]\ncommand = /bin/true", "[DEFAULT] command is not a known option"),
        ("[limits]\nsuspicious = maybe", "[limits] suspicious = maybe: is not valid"),
        ("[debounce]\nquiet = 1\n  2", "[debounce] quiet = 1 2: is not valid"),
        ("[phases]\nhook_timeout = 1\0", "[phases] hook_timeout: has a zero byte in it"),
    ],
)
def test_a_mistake_is_told_in_words(node: Node, text: str, expected: str) -> None:
    (problem,) = node.problems(text + "\n")
    assert expected in problem


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "NaN", "Infinity"])
@pytest.mark.parametrize(
    "option", ["[debounce] quiet", "[DEFAULT] polling_interval", "[phases] hook_timeout"]
)
def test_a_time_has_to_be_a_number_that_a_clock_can_reach(node: Node, option: str, value: str) -> None:
    group, name = option.split()
    problems = node.problems(f"{group}\n{name} = {value}\n")
    assert [problem for problem in problems if f"{option} = {value}" in problem]


def test_all_mistakes_are_told_at_once(node: Node) -> None:
    problems = node.problems(
        "[DEFAULT]\nnone = 1\npolling_interval = x\n[retry]\ninitial = y\n[nothing]\n"
        "[migrations]\ntargets = a,b\n[migration:a]\nconnection = x\n[migration:b]\ntimeout = z\n"
    )
    words = [
        "none",
        "polling_interval",
        "initial",
        "[nothing]",
        "[migration:a] connection",
        "[migration:b] timeout",
    ]
    for word in words:
        assert [problem for problem in problems if word in problem], word


def test_a_secrets_value_is_not_told(node: Node) -> None:
    text = TARGET.replace("geheim", "$geheim")
    (problem,) = node.problems(text)
    assert "[migration:shop] connection" in problem
    assert "geheim" not in problem
    assert "$$" in problem


@pytest.mark.parametrize(
    "line",
    [
        "password geheim",
        "MIIEvQIBADANBgkqhkiG9w0BAQEFgeheim",
        "  geheim",
        "[password geheim",
    ],
)
def test_a_line_that_may_be_a_secret_is_not_told(node: Node, line: str) -> None:
    (problem,) = node.problems(f"[DEFAULT]\n\n{line}\n")
    assert "line 3" in problem
    assert "geheim" not in problem


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("[heat]\ntimeout = $heat.password", "[heat] timeout = $heat.password: its value cannot be used"),
        ("[heat]\nca_file = $password", "[heat] ca_file = $password: is not an absolute path"),
        ("[DEFAULT]\nstate_dir = $heat.password", "[DEFAULT] state_dir = $heat.password: is not an absolute"),
        ("[DEFAULT]\nsplay = $heat.password", "[DEFAULT] splay = $heat.password: its value cannot be used"),
    ],
)
def test_a_secret_that_a_dollar_sign_put_elsewhere_is_not_told(node: Node, option: str, words: str) -> None:
    (problem,) = node.problems(f"[DEFAULT]\ncollectors = heat\n[heat]\npassword = geheim\n{option}\n")
    assert words in problem
    assert "geheim" not in problem


def test_an_option_that_refers_to_itself_is_told(node: Node) -> None:
    (problem,) = node.problems("[DEFAULT]\ncollectors = heat\n[heat]\nuser_id = $heat.user_id\n")
    assert problem.startswith(
        f"{node.path}: [heat] user_id = $heat.user_id: a $ in it names the option itself"
    )


def test_a_bad_value_of_the_environment_is_told_with_its_variable(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_DEBOUNCE__QUIET", "soon")
    (problem,) = node.problems("[debounce]\nquiet = 1\n")
    assert problem.startswith("$OS_DEBOUNCE__QUIET: [debounce] quiet = soon: is not valid")


def test_a_target_without_a_section_is_told(node: Node) -> None:
    assert all("[migration:shop]" in problem for problem in node.problems("[migrations]\ntargets = shop\n"))


def test_a_target_whose_legacy_versions_are_none_is_told(node: Node) -> None:
    (problem,) = node.problems(TARGET + "migrate_repository = /x\nlegacy_versions = 86\n")
    assert problem.startswith("[migration:shop] legacy_versions: '86' is not VERSION:REVISION")


def test_a_bad_value_names_the_last_file_that_has_it(node: Node, tmp_path: pathlib.Path) -> None:
    node.path.write_text("[debounce]\nquiet = good?\n")
    other = tmp_path / "other.conf"
    other.write_text("[debounce]\nquiet = worse\n")
    with pytest.raises(ConfigError) as caught:
        opts.load(opts.Location((str(node.path), str(other))), {})
    assert str(caught.value).startswith(f"{other}: [debounce] quiet = worse: ")


# --- the sample --------------------------------------------------------------------------------------------


def test_every_option_has_a_help_text_that_is_a_sentence() -> None:
    for group, options in opts.list_opts():
        for option in options:
            assert option.help, (group, option.dest)
            assert option.help.strip().endswith("."), (group, option.dest)


def test_every_group_of_the_settings_is_in_the_sample() -> None:
    groups = [group for group, _ in opts.list_opts()]
    assert sorted(groups) == sorted([*opts.GROUPS, *source_opts.GROUPS, "migration:name"])


def test_the_environment_of_the_test_does_not_matter(node: Node) -> None:
    assert not [name for name in os.environ if name.startswith("OS_")]
    assert node.load("") == node.load("")
