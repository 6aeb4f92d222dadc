"""A small ticket system, anew for each test."""

from collections.abc import Iterator

import pytest

from sandbox.ttm import SystemConfig, TicketSystem, serve


@pytest.fixture(scope="module")
def served() -> Iterator[TicketSystem]:
    with serve() as running:
        yield running


@pytest.fixture
def system(served: TicketSystem) -> TicketSystem:
    served.reset(SystemConfig(days=2, per_day=5, suspended=3))
    return served
