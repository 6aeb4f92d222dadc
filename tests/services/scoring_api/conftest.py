"""A PostgreSQL for these tests, a service on it, a client and a webhook."""

from collections.abc import Iterator

import httpx
import pytest

from resources.postgres import EmbeddedPostgres
from resources.scoring_service.ledger import Ledger
from tests.services.scoring_api.scoring_house import ADMIN, Hook, Running, ledger_of, make_hook, served


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """One server for all of these tests; the test that kills it starts it again."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("scoring") / "postgres")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def service(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service without limits of rate and without an admin's token."""
    with served(postgres, tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="session")
def guarded(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with an admin's token, the usual limit of rate, and a token and a counter of its own."""
    settings = {"SCORING_ADMIN_TOKEN": ADMIN, "SCORING_WEBHOOK_RATE": "60"}
    settings |= {"METRIKA_TOKEN": "oauth-of-the-company", "METRIKA_COUNTERS": "77"}
    with served(postgres, tmp_path_factory.mktemp("guarded"), **settings) as running:
        yield running


@pytest.fixture
def http(service: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=30) as client:
        yield client


@pytest.fixture
def ledger(service: Running) -> Iterator[Ledger]:
    """The service's ledger, seen from outside."""
    found = ledger_of(service)
    yield found
    found.close()


@pytest.fixture
def hook(http: httpx.Client) -> Hook:
    return make_hook(http)
