"""`python -m services.ttm_hub`: run the hub until SIGTERM or Ctrl-C. Status 2: a setting is wrong."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys

from resources.ttm.protocol import PATH
from resources.ttm.settings import Redaction, SettingError, Settings, log_to_stderr, loopback
from services.ttm_hub.config import HubConfig, hub_config
from services.ttm_hub.server import Hub

log = logging.getLogger("ttm.hub")


async def run(config: HubConfig) -> None:
    """Until a signal; connections then end with 1012, so that clients come back."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    hub = Hub(config)
    async with hub.running():
        scheme = "wss" if config.tls else "ws"
        log.info("listening on %s://%s:%d%s", scheme, config.host, hub.port, PATH)
        if config.tls is None and not loopback(config.host):
            log.warning("in clear, as TTM_ALLOW_PLAINTEXT allows: the key stays secret, the tickets do not")
        await stop.wait()
        log.info("stopping")


def main() -> int:
    argparse.ArgumentParser(prog="python -m services.ttm_hub", description=__doc__).parse_args()
    redaction = Redaction()
    log_to_stderr(redaction)
    try:
        config = hub_config(Settings())
    except SettingError as error:
        print(f"ttm-hub: {error}", file=sys.stderr)
        return 2
    redaction.hide(*(identity.key for identity in config.identities.values()))
    try:
        asyncio.run(run(config))
    except OSError as error:
        print(f"ttm-hub: cannot listen on {config.host}:{config.port}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
