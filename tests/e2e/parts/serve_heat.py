"""heat-api, heat-api-cfn and heat-engine in one process, from an empty database.

    serve_heat.py CONFIG DATABASE API-SOCKET CFN-SOCKET

The sockets are numbers of listening ones. Remote calls go over oslo.messaging's in-memory driver, so there is
no broker. Everything else is Heat's own: both WSGI applications, and the engine started as heat-engine does,
without the fork.
"""

from oslo_service import backend

backend.init_backend(backend.BackendType.THREADING)  # before anything of Heat is imported

# ruff: noqa: E402
import contextlib
import os
import re
import signal
import socket
import sqlite3
import sys
import threading
from typing import Any

import sqlalchemy
import waitress
from heat.api.cfn import wsgi as cfn
from heat.api.openstack import wsgi as api
from heat.common import config, messaging
from heat.db import migration
from heat.engine import service, template
from heat.rpc import api as rpc_api
from oslo_config import cfg
from sqlalchemy.engine import Engine


def never_reuse_ids(database: str) -> None:
    """Make the integer keys of the still empty tables AUTOINCREMENT.

    SQLite gives the id of a deleted last row to the next one. Heat keeps properties and attributes of
    resources in one table and may delete attributes by a remembered id twice; the second time takes
    properties with it, and an update is in progress for ever. MySQL and PostgreSQL never use an id again.
    """
    with contextlib.closing(sqlite3.connect(database)) as db, db:
        tables = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
        for name, statement in tables:
            without_key, found = re.subn(
                r"^\s*,?\s*PRIMARY KEY \(id\),?\s*$", "", statement, flags=re.MULTILINE
            )
            if found and "id INTEGER NOT NULL," in without_key:
                new = without_key.replace("id INTEGER NOT NULL,", "id INTEGER PRIMARY KEY AUTOINCREMENT,", 1)
                _replace(db, name, re.sub(r",\s*\)\s*$", "\n)", new))


def _replace(db: sqlite3.Connection, table: str, statement: str) -> None:
    query = "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL"
    indexes = db.execute(query, (table,)).fetchall()
    db.execute(f'DROP TABLE "{table}"')
    db.execute(statement)
    for (index,) in indexes:
        db.execute(index)


def begin_immediate(
    _conn: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any
) -> tuple[str, Any]:
    """With a deferred transaction, who first reads and then writes fails at once with "database is locked" if
    another thread wrote meanwhile; with this it waits.
    """
    return "BEGIN IMMEDIATE" if statement == "BEGIN" else statement, parameters


def start_engine() -> None:
    messaging.setup()
    config.startup_sanity_check()
    template._get_template_extension_manager()
    service.EngineService(cfg.CONF.host, rpc_api.ENGINE_TOPIC).start()


def serve(application: Any, number: str) -> None:
    arguments = {"sockets": [socket.socket(fileno=int(number))], "threads": 16, "ident": None}
    threading.Thread(target=waitress.serve, args=(application,), kwargs=arguments, daemon=True).start()


def main(config_file: str, database: str, api_socket: str, cfn_socket: str) -> None:
    sys.argv = ["heat", "--config-file", config_file]  # each of Heat's parts reads its arguments there
    cfg.CONF(project="heat", prog="heat-engine")
    migration.db_sync()
    never_reuse_ids(database)
    sqlalchemy.event.listen(Engine, "before_cursor_execute", begin_immediate, retval=True)
    applications = api.init_application(), cfn.init_application()
    start_engine()
    for application, number in zip(applications, (api_socket, cfn_socket), strict=True):
        serve(application, number)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    os._exit(0)


main(*sys.argv[1:])
