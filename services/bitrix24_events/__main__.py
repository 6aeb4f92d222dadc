"""`python -m services.bitrix24_events`: receive events until Ctrl-C."""

from __future__ import annotations

import sys
from pathlib import Path

import dagster as dg
import uvicorn

from etl_assets.settings import text, whole
from resources.bitrix24.inbox import Inbox
from resources.http import install_log_redaction, register_secret
from services.bitrix24_events.app import PATH, create_app


def main() -> int:
    """Exit status 1 if a setting is missing or malformed."""
    install_log_redaction()
    try:
        token = text("BITRIX24_EVENTS_TOKEN")
        folder = Path(text("SVOD_STATE_DIR"))
        host = text("BITRIX24_EVENTS_HOST", "127.0.0.1")
        port = whole("BITRIX24_EVENTS_PORT", 8030, least=1, most=65_535)
    except dg.Failure as failure:
        print(failure.description, file=sys.stderr)
        return 1
    register_secret(token)
    print(f"Events of the portal are received at http://{host}:{port}{PATH}", flush=True)
    uvicorn.run(create_app(token, Inbox(folder)), host=host, port=port, log_level="warning", access_log=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
