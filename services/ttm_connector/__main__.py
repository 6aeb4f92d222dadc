"""`python -m services.ttm_connector`: run the connector until SIGTERM or Ctrl-C.

Status 2: a setting is wrong. 3: another connector has the same instance name. 4: the hub speaks no version
that this connector knows.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys

from resources.ttm.settings import Redaction, SettingError, Settings, log_to_stderr
from services.ttm_connector.config import ConnectorConfig, connector_config
from services.ttm_connector.link import Link
from services.ttm_connector.methods import Methods
from services.ttm_connector.system import TicketSystem

log = logging.getLogger("ttm.connector")


async def run(config: ConnectorConfig, redaction: Redaction, stop: asyncio.Event) -> int:
    """Serve until `stop` is set; the exit status."""
    system = TicketSystem(config.system, redaction, lambda: link.upstream_changed())
    link = Link(config.link, Methods(system, config.system.date_field).run, lambda: system.upstream)
    health = await _serve_health(config.health_port, link) if config.health_port else None
    try:
        return await link.run(stop)
    finally:
        if health:
            health.close()
        await system.close()


async def _serve_health(port: int, link: Link) -> asyncio.Server:
    """`200 ok` on any path while the hub is connected and the ticket system not known to be away."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5):
                await reader.readuntil(b"\r\n\r\n")
            status, text = ("200 OK", "ok\n") if link.healthy else ("503 Service Unavailable", "not well\n")
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
            writer.write((head + text).encode())
            await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", port)


async def _until_signal(config: ConnectorConfig, redaction: Redaction) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return await run(config, redaction, stop)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m services.ttm_connector", description=__doc__)
    parser.add_argument("--health-port", type=int, help="same as TTM_HEALTH_PORT")
    given = parser.parse_args()
    redaction = Redaction()
    log_to_stderr(redaction)
    try:
        config = connector_config(Settings())
        redaction.hide(*config.secrets)
        if given.health_port:
            config = ConnectorConfig(config.link, config.system, given.health_port)
        return asyncio.run(_until_signal(config, redaction))
    except SettingError as error:
        print(f"ttm-connector: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"ttm-connector: {error.strerror or error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
