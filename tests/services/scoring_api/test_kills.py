"""Nothing accepted is lost or stored twice when the service or PostgreSQL is killed with -9 under load."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from resources.postgres import EmbeddedPostgres
from tests.services.scoring_api.scoring_house import (
    HOOKS,
    Hook,
    Running,
    item,
    ledger_of,
    make_hook,
    scalar,
    served,
)

CLIENTS = 8


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server that may be killed."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("killed") / "postgres")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def service(own: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with served(own, tmp_path_factory.mktemp("killed-service")) as running:
        yield running


class Load:
    """Clients that repeat a request, with its key, until it is accepted."""

    def __init__(self, service: Running, hook: Hook) -> None:
        self._service, self._hook = service, hook
        self._stop = threading.Event()
        self.accepted: dict[str, str] = {}
        self.refusals: list[int] = []

    def client(self) -> None:
        with httpx.Client(base_url=self._service.url, timeout=20) as http:
            hook = Hook(http, self._hook.id, self._hook.secret)
            while not self._stop.is_set():
                self._one(hook, uuid.uuid4().hex)

    def _one(self, hook: Hook, key: str) -> None:
        while key not in self.accepted:
            try:
                answer = hook.send(item(), key=key)
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            if answer.status_code == 200:
                self.accepted[key] = answer.json()["batch_id"]
            else:
                assert answer.headers["Retry-After"]
                self.refusals.append(answer.status_code)
                time.sleep(0.05)

    def during(self, fault: Callable[[], None]) -> None:
        """Load, the fault in the middle of it, load again."""
        with ThreadPoolExecutor(CLIENTS) as pool:
            working = [pool.submit(self.client) for _ in range(CLIENTS)]
            try:
                self._grow(100)
                fault()
                self._grow(100)
            finally:
                self._stop.set()
            for each in working:
                each.result()

    def _grow(self, more: int) -> None:
        wanted, end = len(self.accepted) + more, time.monotonic() + 60
        while len(self.accepted) < wanted:
            assert time.monotonic() < end, "no progress"
            time.sleep(0.02)


def stored_once(service: Running, load: Load) -> None:
    ledger = ledger_of(service)
    sql = """SELECT array_agg(c.batch_id::text) FROM scoring.conversions c
        JOIN scoring.batches b ON b.id = c.batch_id WHERE b.webhook_id = :hook"""
    stored = scalar(ledger, sql, hook=load._hook.id)
    ledger.close()
    assert sorted(stored) == sorted(load.accepted.values())


def loaded(service: Running) -> Load:
    with httpx.Client(base_url=service.url, timeout=20) as http:
        return Load(service, make_hook(http))


def test_the_service_is_killed(service: Running):
    load = loaded(service)

    def kill() -> None:
        service.kill()
        service.start()
        service.wait()

    load.during(kill)
    stored_once(service, load)


def test_postgresql_is_killed_and_the_service_recovers_by_itself(service: Running, own: EmbeddedPostgres):
    load = loaded(service)

    def kill() -> None:
        os.kill(int((own.home / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        service.wait(503)
        own.start()
        service.wait(200)

    load.during(kill)
    assert set(load.refusals) <= {503}
    assert load.refusals
    stored_once(service, load)


def test_it_starts_without_postgresql_and_refuses_until_it_is_there(own: EmbeddedPostgres, tmp_path: Path):
    settings = {"SVOD_POSTGRES_URL": own.url_of("operations"), "SCORING_ENCRYPTION_KEY": "A" * 43 + "="}
    running = Running({**settings, "SCORING_ADMIN_TOKEN": ""}, tmp_path / "service.log")
    own.stop()
    try:
        running.start()
        running.wait(503)
        answers = [
            httpx.post(f"{running.url}{HOOKS}", json={"name": "n", "counter_id": 1, "token": "t"}),
            httpx.post(f"{running.url}{HOOKS}/{uuid.uuid4()}", content=b"{}"),
            httpx.get(f"{running.url}/tasks/{uuid.uuid4()}/status"),
            httpx.get(f"{running.url}/admin", follow_redirects=True),
        ]
        assert {answer.status_code for answer in answers} == {503}
        assert all(answer.headers["Retry-After"] for answer in answers)
        own.start()
        running.wait(200)
        assert httpx.get(f"{running.url}/tasks/{uuid.uuid4()}/status").status_code == 404
    finally:
        running.stop()
        own.start()
