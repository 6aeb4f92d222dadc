"""A cabinet with these settings, and a client of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from resources.mts_vats.client import MtsVatsClient
from resources.mts_vats.session import Cabinet
from sandbox.mts_vats import CabinetConfig, VirtualCabinet, serve


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_780_000_000.0
        self.slept: list[float] = []

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_cabinet(clock: Clock) -> Iterator[Callable[..., tuple[VirtualCabinet, MtsVatsClient]]]:
    """`client` holds options of the client, the rest is of the cabinet."""
    with ExitStack() as stack:

        def start(
            client: dict[str, Any] | None = None, **settings: Any
        ) -> tuple[VirtualCabinet, MtsVatsClient]:
            cabinet = stack.enter_context(serve(CabinetConfig(**settings)))
            login = Cabinet("main", cabinet.base_url, cabinet.config.login, cabinet.config.password)
            made = MtsVatsClient(login, **{"secrets": True, "clock": clock, **(client or {})})
            stack.callback(made.close)
            return cabinet, made

        yield start
