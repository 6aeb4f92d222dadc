"""A portal per test, and a client that shows raw answers."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from sandbox.bitrix24 import Portal, PortalConfig, serve

EPOCH = 1_780_000_000


@dataclass
class Rest:
    """Calls a portal and keeps nothing but the connection."""

    portal: Portal
    session: requests.Session

    def raw(self, method: str, body: Any = None, **options: Any) -> requests.Response:
        if body is not None:
            options["json"] = body
        url = self.portal.webhook_url + method
        return self.session.post(url, timeout=10, allow_redirects=False, **options)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        response = self.raw(method, params)
        assert response.status_code == 200, response.text
        return json.loads(response.content)

    def result(self, method: str, **params: Any) -> Any:
        return self.call(method, **params)["result"]

    def error(self, method: str, **params: Any) -> tuple[int, str]:
        response = self.raw(method, params)
        return response.status_code, response.json()["error"]

    def batch(self, commands: Any, **params: Any) -> dict[str, Any]:
        return self.result("batch", cmd=commands, **params)

    def ids(self, **params: Any) -> list[int]:
        """Ids of one page of deals."""
        return [int(row["ID"]) for row in self.result("crm.deal.list", select=["ID"], **params)]


OpenPortal = Callable[..., Rest]


@pytest.fixture
def open_portal() -> Iterator[OpenPortal]:
    """Start portals with a frozen clock and no rate limit, unless told otherwise."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Rest:
            defaults = {"clock_start": EPOCH, "clock_factor": 0.0, "rate_limit": None}
            portal = stack.enter_context(serve(PortalConfig(**{**defaults, **settings})))
            return Rest(portal, stack.enter_context(requests.Session()))

        yield start


@pytest.fixture
def rest(open_portal: OpenPortal) -> Rest:
    return open_portal()
