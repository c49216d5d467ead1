"""Zaqar over HTTP or over websockets, as its configuration says.

    serve_zaqar.py CONFIG SOCKET

SOCKET is the number of a listening socket. Zaqar's own WSGI module reads no configuration but that of the
system, and its websocket server takes no socket, so both are put together here from Zaqar's parts.
"""

import asyncio
import socket
import sys
from typing import Any

import waitress
from oslo_config import cfg
from oslo_log import log
from zaqar import bootstrap


async def serve_websockets(driver: Any, listening: socket.socket) -> None:
    """Beside it runs the HTTP server to which Zaqar's other process hands what subscribers shall get."""
    loop = asyncio.get_running_loop()
    notifications = driver.notification_factory
    local = await loop.create_server(notifications, "127.0.0.1", 0)
    notifications.set_subscription_url(f"http://127.0.0.1:{local.sockets[0].getsockname()[1]}/")
    driver._api.set_subscription_factory(notifications)
    server = await loop.create_server(driver.factory, sock=listening)
    await server.serve_forever()


def main(config: str, number: str) -> None:
    conf = cfg.CONF
    log.register_options(conf)
    conf(["--config-file", config], project="zaqar", prog="zaqar")
    log.setup(conf, "zaqar")
    listening = socket.socket(fileno=int(number))
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)  # Zaqar's factory asks for it
    transport = bootstrap.Bootstrap(conf).transport
    if conf.drivers.transport == "websocket":
        loop.run_until_complete(serve_websockets(transport, listening))
    else:
        waitress.serve(transport.app, sockets=[listening], threads=4, ident=None)


main(*sys.argv[1:])
