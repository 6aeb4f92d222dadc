"""`python -m services.ttm_board`: serve the board until Ctrl-C."""

from __future__ import annotations

import logging
import sys

import uvicorn

from resources.http import install_log_redaction, register_secret
from resources.ttm.requester import HubClient
from resources.ttm.settings import SettingError
from services.ttm_board.app import build_app
from services.ttm_board.config import BoardConfig, board_config, board_database
from services.ttm_board.data import Board, HubWatch

HUB_PATIENCE_S = 3.0


class _Server(uvicorn.Server):
    """Ends the lines of browsers first: they last as long as the page is open."""

    def handle_exit(self, sig: int, frame: object) -> None:
        self.config.app.state.feed.end()  # type: ignore[union-attr]
        super().handle_exit(sig, frame)  # type: ignore[arg-type]


def server(board: Board, config: BoardConfig) -> uvicorn.Server:
    return _Server(
        uvicorn.Config(
            build_app(board, config),
            host=config.host,
            port=config.port,
            ssl_certfile=config.certificate or None,
            ssl_keyfile=config.certificate_key or None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,  # whom a request comes from decides whether its headers are believed
            server_header=False,
            timeout_graceful_shutdown=5,
        )
    )


def main() -> int:
    """Exit status: 2 for a setting that is missing, malformed or unsafe."""
    install_log_redaction()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        config, database = board_config(), board_database()
        if config.password:
            register_secret(config.password)
        running = server(
            Board(database, HubWatch(lambda: HubClient.from_settings(patience_s=HUB_PATIENCE_S))), config
        )
    except SettingError as error:
        print(error, file=sys.stderr)
        return 2
    scheme = "https" if config.certificate else "http"
    print(f"{scheme}://{config.host}:{config.port}", flush=True)
    running.run()
    return 0 if running.started else 1


if __name__ == "__main__":
    sys.exit(main())
