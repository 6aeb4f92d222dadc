"""Runs a portal: in a background thread for tests, in the foreground for the command line."""

import asyncio
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.background import in_background
from sandbox.bitrix24.config import PortalConfig
from sandbox.bitrix24.http import Connection, Router
from sandbox.bitrix24.portal import Portal
from sandbox.loopback import require_loopback

_TICK = 0.1


def _tls(certfile: str | Path | None, keyfile: str | Path | None) -> ssl.SSLContext | None:
    if certfile is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certfile, keyfile)
    return context


async def run_portal(
    portal: Portal,
    stop: asyncio.Event,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until `stop` is set; `ready` is called once the port is bound."""
    require_loopback(host)
    loop = asyncio.get_running_loop()
    router, connections = Router(portal), set[Connection]()
    server = await loop.create_server(
        lambda: Connection(router, connections), host, port, ssl=tls, backlog=512
    )
    bound = server.sockets[0].getsockname()[1]
    portal.base_url = f"{'https' if tls else 'http'}://{'localhost' if tls else host}:{bound}"
    mutations = asyncio.create_task(_mutate_on_timer(portal))
    ready()
    try:
        await stop.wait()
    finally:
        mutations.cancel()
        server.close()
        for connection in list(connections):
            connection.close()
        await server.wait_closed()


async def _mutate_on_timer(portal: Portal) -> None:
    owed = 0.0
    while True:
        await asyncio.sleep(_TICK)
        owed += portal.config.mutations_per_second * _TICK
        if owed >= 1:
            portal.mutate(int(owed))
            owed -= int(owed)


@contextmanager
def serve(
    config: PortalConfig | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    certfile: str | Path | None = None,
    keyfile: str | Path | None = None,
) -> Iterator[Portal]:
    """A running portal on a free port (or `port`), in a background thread.

    With a certificate it speaks https as `localhost`. Raises OSError when the port is taken and
    ValueError for a host that is not loopback.
    """
    require_loopback(host)
    portal = Portal(config)
    tls = _tls(certfile, keyfile)

    async def run(stop: asyncio.Event, ready: Callable[[], None]) -> None:
        await run_portal(portal, stop, host=host, port=port, tls=tls, ready=ready)

    with in_background("sandbox-bitrix24", run):
        yield portal
