"""A warehouse on each way to it: the embedded engine, a server over HTTP, a server over HTTPS."""

import itertools
from collections.abc import Iterator

import pytest

from resources.clickhouse import WarehouseResource
from tests.support.certificates import private_ca
from tests.support.clickhouse_front import ClickHouseFront, clickhouse_front

USERS = {"loader": "p@ss:w/rd#1?%", "reader": "only-look"}
_numbers = itertools.count(1)


@pytest.fixture
def name() -> str:
    """A table name that no other test has: views in `bi` are named by it alone."""
    return f"t{next(_numbers)}"


@pytest.fixture(scope="session")
def http_front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseFront]:
    with clickhouse_front(tmp_path_factory.mktemp("http") / "engine", USERS) as server:
        yield server


@pytest.fixture(scope="session")
def https_front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseFront]:
    path = tmp_path_factory.mktemp("https")
    tls = private_ca(path / "ca")
    with clickhouse_front(path / "engine", USERS, tls=tls, readonly_users={"reader"}) as server:
        yield server


@pytest.fixture
def front(https_front: ClickHouseFront, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClickHouseFront]:
    """The HTTPS server for tests of faults: none is left over, and attempts follow each other at once."""
    monkeypatch.setattr("resources.clickhouse.errors.PAUSE_S", 0)
    https_front.forget_requests()
    yield https_front
    https_front.faults.clear()


@pytest.fixture
def server(front: ClickHouseFront) -> WarehouseResource:
    return WarehouseResource(url=front.url("loader"), ca_bundle=front.ca_file)


@pytest.fixture(params=["embedded", "http", "https"])
def anywhere(request: pytest.FixtureRequest) -> WarehouseResource:
    """The same test on all three."""
    if request.param == "embedded":
        return request.getfixturevalue("warehouse")
    front: ClickHouseFront = request.getfixturevalue(f"{request.param}_front")
    return WarehouseResource(url=front.url("loader"), ca_bundle=front.ca_file)
