"""One house for all tests; each begins with empty tables."""

import copy
from collections.abc import Iterator

import pytest

from tests.etl_assets.ttm.ttm_house import House, house


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("ttm")) as place:
        yield place


@pytest.fixture
def place(whole: House) -> Iterator[House]:
    """The house with empty tables, no faults, and the tickets that it began with."""
    tickets = copy.deepcopy(whole.system.tickets)
    with whole.lived_in():
        whole.forget()
        yield whole
    whole.system.faults.clear()
    with whole.system.lock:
        whole.system.tickets.clear()
    whole.system.add(*tickets.values())
