"""What the tests of the ticket tables share: one PostgreSQL, a schema of its own for each test."""

import itertools
from collections.abc import Iterator

import pytest

from resources.postgres import EmbeddedPostgres, with_driver
from resources.ttm.database import TtmDatabase

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("tickets") / "postgres")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def database(postgres: EmbeddedPostgres) -> Iterator[TtmDatabase]:
    found = TtmDatabase(with_driver(postgres.url_of("operations")), schema=f"tickets_{next(_numbers)}")
    yield found
    found.close()
