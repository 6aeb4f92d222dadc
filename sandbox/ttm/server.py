"""Runs a ticket system: in a background thread for tests, in the foreground for the command line."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sandbox.background import in_background
from sandbox.loopback import require_loopback
from sandbox.ttm.app import ABORT, App, Broken
from sandbox.ttm.system import SystemConfig, TicketSystem


class _Protocol(HttpToolsProtocol):
    """Lets the application break the connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[ABORT] = self.transport.abort  # type: ignore[typeddict-unknown-key]


class _Quiet(logging.Filter):
    """Connections that are broken on purpose, or by the end of the server, are no errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], Broken | asyncio.CancelledError))


_quiet = _Quiet()


async def run_system(
    system: TicketSystem,
    stop: asyncio.Event,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    certfile: str | Path | None = None,
    keyfile: str | Path | None = None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until `stop` is set; `ready` is called once the port is bound. Raises OSError if it is taken."""
    require_loopback(host)
    config = uvicorn.Config(
        App(system),
        http=_Protocol,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ssl_certfile=certfile,
        ssl_keyfile=keyfile,
        timeout_keep_alive=60,
    )
    logging.getLogger("uvicorn.error").addFilter(_quiet)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.create_server((host, port), family=family, backlog=512)
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio does it for sockets of its own only
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.005)
    if serving.done():
        serving.result()
        raise OSError("the server did not start")
    name = "localhost" if certfile else host
    system.base_url = f"{'https' if certfile else 'http'}://{name}:{bound.getsockname()[1]}"
    changes = asyncio.create_task(_change_on_timer(system))
    ready()
    try:
        await stop.wait()
    finally:
        changes.cancel()
        server.should_exit = server.force_exit = True
        await serving
        answering = asyncio.all_tasks() - {asyncio.current_task()}
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)


class _Server(uvicorn.Server):
    """Signals are the business of whoever runs it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _change_on_timer(system: TicketSystem) -> None:
    while True:
        await asyncio.sleep(system.config.change_every or 1.0)
        if system.config.change_every:
            system.change()


@contextmanager
def serve(
    config: SystemConfig | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    certfile: str | Path | None = None,
    keyfile: str | Path | None = None,
) -> Iterator[TicketSystem]:
    """A running system on a free port (or `port`), in a background thread; with a certificate over https."""
    require_loopback(host)
    system = TicketSystem(config or SystemConfig())

    async def run(stop: asyncio.Event, ready: Callable[[], None]) -> None:
        await run_system(system, stop, host=host, port=port, certfile=certfile, keyfile=keyfile, ready=ready)

    with in_background("sandbox-ttm", run):
        yield system
