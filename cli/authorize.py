"""`svod authorize CODE`: the first tokens of the Bitrix24 application."""

from __future__ import annotations

import dagster as dg

from cli.project import enter, fail, out
from resources.http import redact


def authorize(code: str) -> None:
    """Exchange the code and say what was opened."""
    enter()
    from etl_assets.bitrix24.settings import CLIENT_ID, bitrix24_resource
    from resources.bitrix24.credentials import Application

    try:
        application = bitrix24_resource().credential()
        if not isinstance(application, Application):
            raise fail(f"{CLIENT_ID} is not set: a webhook needs no authorization.")
        application.authorise(code)
        out.print(f"The application may read {application.base}.", highlight=False)
    except dg.Failure as failure:
        raise fail(redact(failure.description or "refused")) from None
