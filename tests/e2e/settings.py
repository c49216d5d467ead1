"""The configuration files of Keystone, Heat and Zaqar. Passwords are of a cloud that lives for a test run."""

import pathlib
from collections.abc import Mapping

Sections = Mapping[str, Mapping[str, object]]

REGION = "RegionOne"
ADMIN_PASSWORD = "admin-secret"
SERVICE_PASSWORD = "service-secret"
DOMAIN_PASSWORD = "domain-secret"
TENANT_PASSWORD = "tenant-secret"


def write(path: pathlib.Path, sections: Sections) -> None:
    lines = []
    for name, values in sections.items():
        lines += [f"[{name}]", *(f"{option} = {value}" for option, value in values.items())]
    path.touch(0o600)
    path.write_text("\n".join([*lines, ""]))


def keystone(folder: pathlib.Path) -> Sections:
    return {
        "DEFAULT": {"log_file": folder / "log" / "keystone.log"},
        "database": _database(folder / "keystone.db"),
        # Without it, every token costs ten times as much.
        "cache": {"enabled": "true", "backend": "dogpile.cache.memory"},
        "token": {"provider": "fernet"},
        "fernet_tokens": {"key_repository": folder / "fernet"},
        "fernet_receipts": {"key_repository": folder / "fernet"},
        "credential": {"key_repository": folder / "credential"},
        "identity": {"password_hash_rounds": 4},
    }


def heat(folder: pathlib.Path, etc: pathlib.Path, keystone_url: str, public_cfn_url: str) -> Sections:
    """``etc``: where Heat's own files are. Nodes get public URLs, and Heat itself takes the internal ones."""
    service = {**_service_user(keystone_url), "project_name": "service", "project_domain_id": "default"}
    return {
        "DEFAULT": {
            "transport_url": "fake:///",
            "log_file": folder / "log" / "heat.log",
            "auth_encryption_key": "0123456789abcdef0123456789abcdef",
            "heat_metadata_server_url": public_cfn_url,
            "heat_waitcondition_server_url": f"{public_cfn_url}/v1/waitcondition",
            "stack_user_domain_name": "heat",
            "stack_domain_admin": "heat_domain_admin",
            "stack_domain_admin_password": DOMAIN_PASSWORD,
            "region_name_for_services": REGION,
            "num_engine_workers": 1,
            "environment_dir": etc / "environment.d",
            "template_dir": etc / "templates",
            "plugin_dirs": "",
            "server_keystone_endpoint_type": "public",
        },
        "database": _database(folder / "heat.db"),
        "paste_deploy": {"api_paste_config": etc / "api-paste.ini"},
        "clients": {"endpoint_type": "internalURL"},
        "clients_keystone": {"auth_uri": keystone_url},
        "keystone_authtoken": {
            **service,
            "www_authenticate_uri": keystone_url,
            "service_token_roles_required": "true",
        },
        "trustee": _service_user(keystone_url),
        "ec2authtoken": {**service, "endpoint_override": keystone_url},
        "oslo_policy": _POLICY,
        "oslo_messaging_notifications": {"driver": "noop"},
    }


def zaqar(folder: pathlib.Path, keystone_url: str, redis: pathlib.Path, transport: str) -> Sections:
    """``transport``: wsgi or websocket. Messages and what manages them are both in Redis."""
    return {
        "DEFAULT": {
            "unreliable": "true",
            "auth_strategy": "keystone",
            "pooling": "false",
            "log_file": folder / "log" / f"zaqar-{transport}.log",
        },
        "drivers": {"transport": transport, "message_store": "redis", "management_store": "redis"},
        # Without it, subscribers are told of nothing.
        "storage": {"message_pipeline": "zaqar.notification.notifier"},
        "drivers:message_store:redis": {"uri": f"redis:{redis}?dbid=0"},
        "drivers:management_store:redis": {"uri": f"redis:{redis}?dbid=1"},
        "keystone_authtoken": {
            **_service_user(keystone_url),
            "www_authenticate_uri": keystone_url,
            "project_name": "service",
            "project_domain_id": "default",
        },
        "signed_url": {"secret_key": "signing-secret"},
        "oslo_policy": _POLICY,
    }


# heat-api-cfn asks for permission without saying of what, which oslo.policy's new defaults always refuse.
_POLICY = {"enforce_new_defaults": "false", "enforce_scope": "false"}


def _database(path: pathlib.Path) -> Mapping[str, object]:
    return {"connection": f"sqlite:///{path}?timeout=30", "sqlite_synchronous": "false"}


def _service_user(keystone_url: str) -> Mapping[str, object]:
    return {
        "auth_type": "password",
        "auth_url": keystone_url,
        "username": "heat",
        "password": SERVICE_PASSWORD,
        "user_domain_id": "default",
    }
