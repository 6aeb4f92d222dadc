"""What all tests share: a warehouse in a temporary directory."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.clickhouse import WarehouseResource
from resources.clickhouse.engine import Embedded


@pytest.fixture(scope="session")
def embedded_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of one embedded warehouse for the whole session: opening an engine takes a second."""
    path = tmp_path_factory.mktemp("warehouse") / "engine"
    yield path
    Embedded.at(str(path)).close()


@pytest.fixture
def warehouse(embedded_path: Path) -> WarehouseResource:
    """The session's embedded warehouse; tests use tables of their own."""
    return WarehouseResource(url=f"chdb://{embedded_path}")
