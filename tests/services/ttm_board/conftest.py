"""One PostgreSQL, a schema of its own for each test."""

import itertools
from collections.abc import Iterator

import pytest

from resources.postgres import EmbeddedPostgres, with_driver
from resources.ttm.database import TtmDatabase
from tests.services.ttm_board.board_house import Shown, board

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("board") / "postgres")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def database(postgres: EmbeddedPostgres) -> TtmDatabase:
    return TtmDatabase(with_driver(postgres.url_of("operations")), schema=f"board_{next(_numbers)}")


@pytest.fixture
def shown(database: TtmDatabase) -> Iterator[Shown]:
    """An open board on loopback."""
    with board(database) as found:
        yield found
