"""The options of every source, with help, unit and range; what is wrong with their values; their secrets.

The names, defaults and meanings are os-collect-config's; ``timeout``, ``ca_file`` and ``insecure`` are added
wherever there is HTTP. Collectors of other packages bring their own options.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from refresh_agent import collectors
from refresh_agent.errors import ConfigError
from refresh_agent.model import CollectorSettings
from refresh_agent.option_values import Reader, is_private
from refresh_agent.oslo import cfg

DEPLOYMENT_KEY = "deployment_key"


def _http(subject: str) -> list[Any]:
    return [
        cfg.FloatOpt(
            "timeout",
            default=10,
            min=0,
            help=f"Seconds to wait for a connection to {subject}, and for the next bytes of an answer. More "
            "than 0.",
        ),
        cfg.StrOpt(
            "ca_file",
            help="Certificates of the authorities to trust, in PEM. If unset: those of $REQUESTS_CA_BUNDLE "
            "or, without that, the usual ones.",
        ),
        cfg.BoolOpt(
            "insecure",
            default=False,
            help="Do not verify certificates: whoever is on the way can then give the node any metadata.",
        ),
    ]


def _keystone(service: str) -> list[Any]:
    return [
        cfg.StrOpt("auth_url", help="URL of Keystone."),
        cfg.StrOpt("user_id", help="ID of the user."),
        cfg.StrOpt("password", secret=True, help="Password of the user."),
        cfg.StrOpt("project_id", help="ID of the project."),
        cfg.StrOpt(
            "region_name", help=f"Region of {service}. If unset: the first of the catalog that has {service}."
        ),
    ]


OS_COLLECT_CONFIG_OPTS = [
    cfg.StrOpt(
        "files_list",
        default="/var/run/os-collect-config/os_config_files.json",
        help="The list of files that a running os-collect-config keeps; it and the files are watched. "
        "os-collect-config writes them only if it has a command: give it command = /bin/true.",
    ),
]

HEAT_LOCAL_OPTS = [
    cfg.MultiStrOpt(
        "path",
        default=["/var/lib/heat-cfntools/cfn-init-data"],
        help="JSON files on the node, merged in this order. May be given several times.",
    ),
]

LOCAL_OPTS = [
    cfg.MultiStrOpt(
        "path",
        default=["/var/lib/os-collect-config/local-data"],
        help="Directories of JSON files; every file is a source of its own. May be given several times. "
        "They must be owned by the agent's user and must not be writable by everybody.",
    ),
]

EC2_OPTS = [
    cfg.StrOpt(
        "metadata_url",
        default="http://169.254.169.254/latest/meta-data",
        help="URL of the metadata service.",
    ),
    *_http("the metadata service"),
]

CONFIG_DRIVE_OPTS: list[Any] = []

CFN_OPTS = [
    cfg.StrOpt("metadata_url", help="URL of Heat's CloudFormation API. If unset, the hint's file names it."),
    cfg.StrOpt(
        "heat_metadata_hint",
        default="/var/lib/heat-cfntools/cfn-metadata-server",
        help="File with the URL's beginning, to which /v1/ is added; used if metadata_url is unset.",
    ),
    cfg.StrOpt("stack_name", help="Name of the stack."),
    cfg.MultiStrOpt(
        "path",
        help="What to fetch: RESOURCE.FIELD, or RESOURCE.FIELD.KEY for a part of it. May be given several "
        "times; merged in this order.",
    ),
    cfg.StrOpt("access_key_id", secret=True, help="The key's ID; requests are signed with the key."),
    cfg.StrOpt("secret_access_key", secret=True, help="The key."),
    cfg.StrOpt("ca_certificate", help="os-collect-config's name for ca_file, which wins."),
    cfg.MultiStrOpt(
        DEPLOYMENT_KEY,
        help="Deprecated in os-collect-config: [DEFAULT] deployment_key is for all sources. Keys that are "
        "given here are added to those.",
    ),
    *_http("Heat"),
]

HEAT_OPTS = [
    *_keystone("Heat"),
    cfg.StrOpt("stack_id", help="The stack, as NAME/ID."),
    cfg.StrOpt("resource_name", help="Name of the resource in the stack whose metadata is fetched."),
    *_http("Keystone and Heat"),
]

REQUEST_OPTS = [
    cfg.StrOpt(
        "metadata_url",
        secret=True,
        help="URL of a JSON document. Whoever knows a signed URL can read it, so it is treated as a secret.",
    ),
    *_http("the server"),
]

ZAQAR_OPTS = [
    *_keystone("Zaqar"),
    cfg.StrOpt("queue_id", help="Name of the queue."),
    cfg.BoolOpt(
        "use_websockets",
        default=False,
        help="Let Zaqar push messages over a websocket instead of asking for them.",
    ),
    cfg.BoolOpt(
        "ssl_certificate_validation",
        help="os-collect-config's opposite of insecure; there the default is false. If unset, certificates "
        "are verified.",
    ),
    *_http("Keystone and Zaqar"),
]

GROUPS: Mapping[str, Sequence[Any]] = {
    "os_collect_config": OS_COLLECT_CONFIG_OPTS,
    "heat_local": HEAT_LOCAL_OPTS,
    "local": LOCAL_OPTS,
    "ec2": EC2_OPTS,
    "config_drive": CONFIG_DRIVE_OPTS,
    "cfn": CFN_OPTS,
    "heat": HEAT_OPTS,
    "request": REQUEST_OPTS,
    "zaqar": ZAQAR_OPTS,
}

_WHAT_TO_READ = {("os_collect_config", "files_list"), ("heat_local", "path"), ("local", "path")}
_PATHS = {"ca_file", "ca_certificate", "heat_metadata_hint"}


def options_of(name: str, reserved: Mapping[str, Any]) -> Sequence[Any] | None:
    """The options of a collector; None if there is no collector of that name.

    ``reserved``: groups that no collector of another package can have. Raises ConfigError that names the
    entry point, if that cannot be loaded or has no options but something else.
    """
    if name in GROUPS:
        return GROUPS[name]
    # Imported here: it costs 10 ms, and only a third party's collector needs it.
    from importlib.metadata import entry_points  # noqa: PLC0415

    for point in entry_points(group=collectors.GROUP, name=name):
        place = f"entry point {point.name} = {point.value} of {collectors.GROUP}"
        if name in reserved or ":" in name:
            raise ConfigError(f"{place}: [{name}] is a group of refresh-agent's; give it another name")
        try:
            options = getattr(point.load(), "options", ())
        except Exception as error:  # whatever its module does when it is imported
            # What a module of anybody's says may be secret; what Python says of an import is not.
            text = f": {error}" if isinstance(error, (ImportError, AttributeError)) else ""
            reason = " ".join(f"{type(error).__name__}{text}".split())
            raise ConfigError(f"{place}: cannot be loaded: {reason}") from error
        if problem := _no_options(options):
            raise ConfigError(f"{place}: {problem}")
        return tuple(options)
    return None


def _no_options(options: Any) -> str:
    """What is wrong with the ``options`` of an entry point."""
    if not isinstance(options, Sequence) or not all(isinstance(option, cfg.Opt) for option in options):
        return "its options are not a sequence of oslo.config's options"
    names = [option.dest for option in options]
    if len(names) > len(set(names)):
        return "two of its options have the same name"
    if DEPLOYMENT_KEY in names:
        return f"has an option {DEPLOYMENT_KEY}, but that is [DEFAULT] {DEPLOYMENT_KEY} for all collectors"
    return ""


def settings(
    name: str, options: Sequence[Any], reader: Reader, deployment_keys: tuple[str, ...]
) -> CollectorSettings:
    """The values of one chosen collector, judged; what is wrong with them is noted in the reader."""
    values = reader.group(name, options)
    if name in GROUPS:
        for option in options:
            values[option.dest] = _judged(name, option, values[option.dest], reader)
        _fold(name, values)
    for option in options:
        if option.required and values.get(option.dest) is None:
            reader.wrong(name, option, "has to be set")
    own = values.get(DEPLOYMENT_KEY) or ()
    values[DEPLOYMENT_KEY] = tuple(dict.fromkeys((*deployment_keys, *own)))
    return CollectorSettings(name, values, tuple(dict.fromkeys(_secrets(options, values))))


def _judged(group: str, option: Any, value: Any, reader: Reader) -> Any:
    """The value of an option of ours; what is wrong with it is noted.

    An empty one is not set, which is None; but a source whose path is empty has nothing to read.
    """
    name = option.dest
    if (group, name) in _WHAT_TO_READ:
        reader.require_absolute(group, option, value)
        return value
    if isinstance(value, list):
        return [item for item in value if item] or None
    if value == "":
        return None
    if name in _PATHS:
        reader.require_absolute(group, option, value)
    elif name == "timeout" and value == 0:
        reader.wrong(group, option, "must be more than 0")
    elif name.endswith("_url") and value is not None and not _is_http(value):
        reader.wrong(group, option, "is not a URL that begins with http:// or https:// and a host's name")
    return value


def _is_http(value: str) -> bool:
    try:
        parts = urlsplit(value)
        is_valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # no number for a port, half a bracket
        return False
    return is_valid and value.isprintable() and " " not in value


def _fold(group: str, values: dict[str, Any]) -> None:
    """Two names for one thing become one."""
    if group == "cfn":
        certificate = values.pop("ca_certificate")
        values["ca_file"] = values["ca_file"] or certificate
    if group == "zaqar" and values["ssl_certificate_validation"] is False:
        values["insecure"] = True


def _secrets(options: Sequence[Any], values: Mapping[str, Any]) -> Iterator[str]:
    """What must not be seen in any log: secret values, and what is secret in a URL."""
    for option in options:
        value = values.get(option.dest)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and is_private(option):
                # Of a URL without a query nothing is secret but its password.
                if option.secret and not ("://" in text and "?" not in text):
                    yield text
                yield from _secrets_of_url(text)


def _secrets_of_url(url: str) -> Iterator[str]:
    """Its query, in which a signature may be, and its password. Messages of libraries have parts of URLs."""
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        return
    if parts.scheme and parts.query:
        yield parts.query
    if password:
        yield password
        yield unquote(password)
