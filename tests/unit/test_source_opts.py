"""The options of the sources: what collectors are given, what is refused, what is secret."""

import importlib
import pathlib
import sys
from typing import Any

import pytest

from refresh_agent import opts, source_opts
from refresh_agent.errors import ConfigError
from refresh_agent.model import CollectorSettings


class Node:
    def __init__(self, root: pathlib.Path) -> None:
        self.path = root / "refresh-agent.conf"

    def collector(self, name: str, text: str = "") -> CollectorSettings:
        """``text``: of its group."""
        (chosen,) = self.load(f"[DEFAULT]\ncollectors = {name}\n[{name}]\n{text}\n")
        return chosen

    def load(self, text: str) -> tuple[CollectorSettings, ...]:
        self.path.write_text(text)
        return opts.load(opts.Location((str(self.path),)), {}).collectors

    def problems(self, text: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            self.load(text)
        return str(caught.value).splitlines()


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node(tmp_path)


HTTP: dict[str, Any] = {"timeout": 10, "ca_file": None, "insecure": False}
KEYSTONE = dict.fromkeys(("auth_url", "user_id", "password", "project_id", "region_name"))
KEYS = {"deployment_key": ("deployments",)}

DEFAULTS: dict[str, dict[str, Any]] = {
    "ec2": {**HTTP, **KEYS, "metadata_url": "http://169.254.169.254/latest/meta-data"},
    "config_drive": {**KEYS},
    "cfn": {
        **HTTP,
        **KEYS,
        **dict.fromkeys(("metadata_url", "stack_name", "path", "access_key_id", "secret_access_key")),
        "heat_metadata_hint": "/var/lib/heat-cfntools/cfn-metadata-server",
    },
    "heat": {**HTTP, **KEYS, **KEYSTONE, "stack_id": None, "resource_name": None},
    "request": {**HTTP, **KEYS, "metadata_url": None},
    "zaqar": {
        **HTTP,
        **KEYS,
        **KEYSTONE,
        "queue_id": None,
        "use_websockets": False,
        "ssl_certificate_validation": None,
    },
}

GOOD = {
    "heat": {
        "auth_url": "https://keystone.example:5000/v3",
        "user_id": "5f0c",
        "password": "correct horse",
        "project_id": "77aa",
        "stack_id": "node/1234",
        "resource_name": "server",
        "region_name": "one",
        "timeout": "2.5",
        "ca_file": "/etc/ca.pem",
        "insecure": "true",
    },
    "cfn": {
        "metadata_url": "http://heat.example:8000/v1/",
        "stack_name": "node",
        "path": "server.Metadata",
        "access_key_id": "0123456789abcdef",
        "secret_access_key": "fedcba9876543210",
        "heat_metadata_hint": "/hint",
    },
    "zaqar": {"auth_url": "http://k/", "password": "battery staple", "queue_id": "q", "use_websockets": "on"},
    "request": {"metadata_url": "https://swift.example/v1/a/c/o?temp_url_sig=abc&temp_url_expires=1"},
    "ec2": {"metadata_url": "http://[fe80::a9fe:a9fe]/latest", "timeout": "0.5"},
}


def lines(options: dict[str, str]) -> str:
    return "".join(f"{name} = {value}\n" for name, value in options.items())


# --- values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_collector_is_given_all_its_options_with_their_defaults(node: Node, name: str) -> None:
    chosen = node.collector(name)
    assert chosen.options == DEFAULTS[name]
    assert chosen.secrets == ()


@pytest.mark.parametrize("name", GOOD)
def test_an_option_that_is_set_is_handed_on(node: Node, name: str) -> None:
    options = node.collector(name, lines(GOOD[name])).options
    for option, text in GOOD[name].items():
        value = options[option]
        assert value in {text, True, 0.5, 2.5} if not isinstance(value, list) else value == [text]


@pytest.mark.parametrize("name", DEFAULTS)
def test_an_empty_option_is_not_set(node: Node, name: str) -> None:
    plain = {
        option.dest: "" for option in source_opts.GROUPS[name] if option.dest not in {"timeout", "insecure"}
    }
    for switch in ("use_websockets", "ssl_certificate_validation"):
        plain.pop(switch, None)
    options = node.collector(name, lines(plain)).options
    assert {
        option: options[option] for option in plain if option in options and option != "deployment_key"
    } == {option: None for option in plain if option in options and option != "deployment_key"}
    assert options["deployment_key"] == ("deployments",)


def test_cfn_knows_the_ca_file_under_two_names(node: Node) -> None:
    assert node.collector("cfn", "ca_certificate = /a.pem").options["ca_file"] == "/a.pem"
    assert node.collector("cfn", "ca_certificate = /a.pem\nca_file = /b.pem").options["ca_file"] == "/b.pem"
    assert "ca_certificate" not in node.collector("cfn").options


def test_the_deployment_keys_of_cfn_are_added_to_those_of_all(node: Node) -> None:
    keys = "deployment_key = a\ndeployment_key = b\n"
    text = f"[DEFAULT]\ncollectors = cfn, heat\n{keys}[cfn]\ndeployment_key = c\ndeployment_key = a\n"
    cfn, heat = node.load(text)
    assert cfn.options["deployment_key"] == ("a", "b", "c")
    assert heat.options["deployment_key"] == ("a", "b")


@pytest.mark.parametrize(
    ("text", "insecure"),
    [
        ("", False),
        ("ssl_certificate_validation = true", False),
        ("ssl_certificate_validation = false", True),
        ("insecure = true", True),
        ("insecure = true\nssl_certificate_validation = true", True),
    ],
)
def test_certificates_of_zaqar_are_verified_unless_somebody_says_no(
    node: Node, text: str, insecure: bool
) -> None:
    assert node.collector("zaqar", text).options["insecure"] is insecure


def test_another_source_s_option_can_be_meant_by_a_dollar_sign(node: Node) -> None:
    text = "[DEFAULT]\ncollectors = zaqar\n[heat]\nuser_id = me\n[zaqar]\nuser_id = $heat.user_id\n"
    (chosen,) = node.load(text)
    assert chosen.options["user_id"] == "me"


def test_the_environment_wins_as_oslo_config_has_it(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_HEAT__PASSWORD", "from elsewhere")
    chosen = node.collector("heat", "password = from the file")
    assert chosen.options["password"] == "from elsewhere"
    assert chosen.secrets == ("from elsewhere",)


# --- what is wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("heat", "timeout = 0", "[heat] timeout = 0: must be more than 0"),
        ("heat", "timeout = -1", "[heat] timeout = -1: is not valid"),
        ("ec2", "timeout = inf", "[ec2] timeout = inf: is not valid"),
        ("request", "timeout = soon", "[request] timeout = soon: is not valid"),
        ("cfn", "insecure = perhaps", "[cfn] insecure = perhaps: is not valid"),
        ("zaqar", "use_websockets =", "[zaqar] use_websockets = : is not valid"),
        ("cfn", "ca_file = ca.pem", "[cfn] ca_file = ca.pem: 'ca.pem' is not an absolute path"),
        ("cfn", "ca_certificate = ./ca", "[cfn] ca_certificate = ./ca: './ca' is not an absolute path"),
        ("cfn", "heat_metadata_hint = x", "[cfn] heat_metadata_hint = x: 'x' is not an absolute path"),
        ("zaqar", "ca_file = ~/ca", "'~/ca' is not an absolute path"),
        ("local", "path = here", "[local] path = here: 'here' is not an absolute path"),
        ("heat_local", "path =", "[heat_local] path = : '' is not an absolute path"),
        ("os_collect_config", "files_list =", "[os_collect_config] files_list = : '' is not an absolute"),
        ("heat", "passwort = geheim", "[heat] passwort is not a known option; did you mean password?"),
        ("ec2", "polling_interval = 1", "[ec2] polling_interval is not a known option"),
        ("config_drive", "label = x", "[config_drive] label is not a known option"),
    ],
)
def test_a_mistake_is_told_in_words(node: Node, name: str, text: str, words: str) -> None:
    (problem,) = node.problems(f"[DEFAULT]\ncollectors = {name}\n[{name}]\n{text}\n")
    assert problem.startswith(f"{node.path}: [{name}] ")
    assert words in problem
    assert "geheim" not in problem


@pytest.mark.parametrize(
    "url",
    [
        "keystone",
        "//keystone/v3",
        "ftp://me:geheim@host/",
        "file:///etc/shadow?geheim",
        "http://",
        "http:///v3?geheim",
        "http://me:geheim@/v3",
        "http://me:geheim@host:port/",
        "http://me:geheim@host:99999/",
        "http://me:geheim@[::1/",
        "http://me:geheim@ho st/",
        "http://host/\n  geheim",
        "me:geheim@host/v3",
        "http://me:$geheim@host/",
        "http://me:geheim@ho\x7fst/",
    ],
)
@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("heat", "auth_url"),
        ("zaqar", "auth_url"),
        ("cfn", "metadata_url"),
        ("ec2", "metadata_url"),
        ("request", "metadata_url"),
    ],
)
def test_what_is_no_url_is_refused_and_not_shown(node: Node, name: str, option: str, url: str) -> None:
    (problem,) = node.problems(f"[DEFAULT]\ncollectors = {name}\n[{name}]\n{option} = {url}\n")
    assert problem.startswith(f"{node.path}: [{name}] {option}: ")
    assert "geheim" not in problem


def test_a_wrong_name_in_a_group_that_is_not_used_is_told_too(node: Node) -> None:
    problems = node.problems("[DEFAULT]\ncollectors = local\n[heat]\npasswrd = x\n[zaqr]\nqueue_id = y\n")
    assert problems == [
        f"{node.path}: [heat] passwrd is not a known option; did you mean password?",
        f"{node.path}: [zaqr] is not a known group; did you mean zaqar?",
    ]


# --- secrets -----------------------------------------------------------------------------------------------


def test_secret_values_and_the_secret_parts_of_urls_are_known_as_such(node: Node) -> None:
    chosen = node.collector("cfn", lines(GOOD["cfn"]))
    assert set(chosen.secrets) == {"0123456789abcdef", "fedcba9876543210"}
    chosen = node.collector("request", lines(GOOD["request"]))
    assert set(chosen.secrets) == {
        GOOD["request"]["metadata_url"],
        "temp_url_sig=abc&temp_url_expires=1",
    }
    chosen = node.collector("heat", "auth_url = https://me:s%40fe@host/v3?x=1\npassword = correct horse\n")
    assert set(chosen.secrets) == {"correct horse", "s%40fe", "s@fe", "x=1"}


def test_secrets_are_in_no_repr(node: Node) -> None:
    text = "[DEFAULT]\ncollectors = heat\n[heat]\npassword = geheimnis\n"
    assert "geheimnis" not in repr(node.load(text))


# --- collectors of other packages --------------------------------------------------------------------------


MODULE = """\
from oslo_config import cfg

def build(options, limits):
    raise NotImplementedError

"""

OPTIONS = """\
build.options = [
    cfg.StrOpt("token", secret=True, help="Token."),
    cfg.URIOpt("server_url", help="URL."),
    cfg.StrOpt("url", help="URL."),
    cfg.MultiStrOpt("keys", secret=True, help="Keys."),
    cfg.IntOpt("max-age", default=5, min=1, deprecated_name="age", help="Age."),
]
"""


@pytest.fixture
def vault(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The module of an installed package that brings a collector ``vault``."""
    return installed(tmp_path, monkeypatch, "vault")


def installed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str) -> pathlib.Path:
    site = tmp_path / "site"
    information = site / "ra_vault-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: ra-vault\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        f"[refresh_agent.collectors]\n{name} = ra_vault_test:build\n"
    )
    module = site / "ra_vault_test.py"
    module.write_text(MODULE + OPTIONS)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "ra_vault_test", raising=False)
    importlib.invalidate_caches()
    return module


def test_its_options_are_read_like_ours(node: Node, vault: pathlib.Path) -> None:
    chosen = node.collector(
        "vault",
        "token = s.123456\nkeys = one\nkeys = two\nserver_url = https://a:bc@x/\nurl = http://y/?z=9\n",
    )
    assert chosen.options == {
        "token": "s.123456",
        "server_url": "https://a:bc@x/",
        "url": "http://y/?z=9",
        "keys": ["one", "two"],
        "max_age": 5,
        "deployment_key": ("deployments",),
    }
    assert set(chosen.secrets) == {"s.123456", "one", "two", "bc", "z=9"}
    assert node.collector("vault", "age = 7").options["max_age"] == 7


def test_it_needs_no_options(node: Node, vault: pathlib.Path) -> None:
    vault.write_text(MODULE)
    assert node.collector("vault").options == {"deployment_key": ("deployments",)}


@pytest.mark.parametrize("chosen", ["vault", "local"])
def test_a_wrong_name_in_its_group_is_told(node: Node, vault: pathlib.Path, chosen: str) -> None:
    (problem,) = node.problems(f"[DEFAULT]\ncollectors = {chosen}\n[vault]\ntokn = x\n")
    assert problem == f"{node.path}: [vault] tokn is not a known option; did you mean token?"


def test_a_wrong_value_is_told_unless_it_is_secret(node: Node, vault: pathlib.Path) -> None:
    problems = node.problems(
        "[DEFAULT]\ncollectors = vault\n[vault]\nmax_age = 0\nserver_url = geheim\ntoken = $geheim\n"
    )
    assert len(problems) == 3
    assert any("[vault] max_age = 0: is not valid" in problem for problem in problems)
    assert "geheim" not in "".join(problems)


def test_an_option_that_is_required_has_to_be_set(node: Node, vault: pathlib.Path) -> None:
    vault.write_text(MODULE + 'build.options = (cfg.StrOpt("token", required=True),)\n')
    (problem,) = node.problems("[DEFAULT]\ncollectors = vault\n")
    assert problem == "[vault] token: has to be set"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("build.options = 5", "its options are not a sequence of oslo.config's options"),
        ("build.options = 'token'", "its options are not a sequence"),
        ("build.options = [cfg.StrOpt('a'), 'b']", "its options are not a sequence"),
        ("build.options = [cfg.StrOpt('a'), cfg.IntOpt('a')]", "two of its options have the same name"),
        ("build.options = [cfg.StrOpt('deployment_key')]", "has an option deployment_key"),
        ("import no_such_module", "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 / 0", "cannot be loaded: ZeroDivisionError"),
        ("raise ImportError('two\\nlines')", "cannot be loaded: ImportError: two lines"),
        ("raise RuntimeError('geheim')", "cannot be loaded: RuntimeError"),
        ("del build", "cannot be loaded: AttributeError"),
        ("oops(", "cannot be loaded: SyntaxError"),
    ],
)
@pytest.mark.parametrize("chosen", ["vault", "local"])
def test_what_cannot_be_used_is_told_with_its_entry_point(
    node: Node, vault: pathlib.Path, chosen: str, code: str, words: str
) -> None:
    vault.write_text(f"{MODULE}{code}\n")
    (problem,) = node.problems(f"[DEFAULT]\ncollectors = {chosen}\n[vault]\ntoken = x\n")
    assert problem.startswith("entry point vault = ra_vault_test:build of refresh_agent.collectors: ")
    assert words in problem
    assert "geheim" not in problem


@pytest.mark.parametrize("name", ["phases", "migration:vault"])
def test_it_cannot_take_a_group_of_ours(
    node: Node, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    installed(tmp_path, monkeypatch, name)
    (problem,) = node.problems(f"[DEFAULT]\ncollectors = {name}\n")
    assert f"[{name}] is a group of refresh-agent's" in problem
    assert node.load("[phases]\nrun_timeout = 1\n")
