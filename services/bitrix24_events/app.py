"""One address that the portal posts events to. It answers when the event is on the disk; that is all.

The portal sends an event once: what is lost here is found by the nightly comparison. Facts: REST
documentation of outgoing webhooks: form-encoded `event`, `data[FIELDS][ID]`, `auth[application_token]`.
"""

from __future__ import annotations

import hmac
import re
from typing import Any
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request, Response

from resources.bitrix24.inbox import Inbox

MOST_BYTES = 64 * 1024
MOST_FIELDS = 500
PATH = "/bitrix24/events"
_PART = re.compile(r"\[([^\[\]]*)\]")


def nested(form: list[tuple[str, str]]) -> dict[str, Any]:
    """`data[FIELDS][ID]=7` as {"data": {"FIELDS": {"ID": "7"}}}; what contradicts it is left out."""
    found: dict[str, Any] = {}
    for name, value in form:
        node: Any = found
        path = [name.partition("[")[0], *_PART.findall(name)]
        for part in path[:-1]:
            node = node.setdefault(part, {}) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node[path[-1]] = value
    return found


def create_app(token: str, inbox: Inbox) -> FastAPI:
    """`token`: the application token that the portal shows beside the outgoing webhook."""
    app = FastAPI(title="Bitrix24 events", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post(PATH)
    async def receive(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                return Response("too large", status_code=413)
        try:
            form = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
        except ValueError:
            return Response("not a form", status_code=400)
        event = nested(form)
        auth = event.get("auth")
        given = str(auth.get("application_token", "")) if isinstance(auth, dict) else ""
        if not hmac.compare_digest(given.encode(), token.encode()):
            return Response("wrong application token", status_code=403)
        if not isinstance(event.get("event"), str) or not event["event"]:
            return Response("no event", status_code=400)
        inbox.put({"event": event["event"], "data": event.get("data"), "ts": event.get("ts")})  # without auth
        return Response("ok")

    return app
