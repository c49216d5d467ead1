"""Keystone from nothing: tables, keys, an administrator; then its own WSGI application.

    serve_keystone.py FOLDER SOCKET

FOLDER holds keystone.conf and the directories for keys; SOCKET is the number of a listening socket. The
environment has OS_KEYSTONE_CONFIG_FILES and keystone-manage's OS_BOOTSTRAP_ variables. All is done after one
import of Keystone, which takes longer than the rest.

It serves with one thread. SQLite under oslo.db begins its transactions deferred: of two requests at once,
the one that turns from reading to writing fails with "database is locked", whatever the timeout.
"""

import os
import pathlib
import socket
import sys

import waitress
from cryptography.fernet import Fernet
from keystone.cmd import cli
from keystone.server.flask import core


def make_keys(directory: pathlib.Path) -> None:
    """What keystone-manage's fernet_setup and credential_setup leave: a primary key and the next one."""
    for name in "01":
        path = directory / name
        path.touch(0o600)
        path.write_bytes(Fernet.generate_key())


def manage(config: str) -> None:
    """In a process of its own: Keystone's configuration can be read only once in each."""
    child = os.fork()
    if not child:
        status = 1
        try:
            for command in ("db_sync", "bootstrap"):
                cli.CONF.reset()
                cli.main(["keystone-manage", "--config-file", config, command])
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit("keystone-manage failed")


def main(folder: str, number: str) -> None:
    for name in ("fernet", "credential"):
        make_keys(pathlib.Path(folder, name))
    manage(f"{folder}/keystone.conf")
    sys.argv = ["keystone"]
    application = core.initialize_application(name="public", config_files=core._get_config_files())
    waitress.serve(application, sockets=[socket.socket(fileno=int(number))], threads=1, ident=None)


main(*sys.argv[1:])
