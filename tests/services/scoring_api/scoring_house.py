"""The scoring service as a process over real HTTP, and a small client of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from resources.postgres import OPERATIONS, EmbeddedPostgres, with_driver
from resources.scoring_service.cipher import TokenCipher, new_key
from resources.scoring_service.ledger import Ledger

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 60
ADMIN = "a-long-admin-token"
WEBHOOK = {"name": "CRM", "counter_id": 100001, "token": "oauth-token-of-the-test"}
HOOKS = "/webhook/offline-conversions"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@dataclass
class Running:
    """The service as a process of its own."""

    environ: Mapping[str, str]
    log: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.scoring_api", "serve", "--port", str(self.port)],
                cwd=ROOT,
                env={**os.environ, **self.environ},
                stdout=output,
                stderr=output,
            )

    def wait(self, status: int = 200) -> None:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            assert self.process
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/healthz", timeout=15).status_code == status:
                    return
            time.sleep(0.05)
        pytest.fail(f"no {status} of /healthz: {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(20)


@contextmanager
def served(postgres: EmbeddedPostgres, folder: Path, **environ: str) -> Iterator[Running]:
    """A running service; its log is in the folder."""
    settings = {
        "SVOD_POSTGRES_URL": postgres.url_of(OPERATIONS),
        "SCORING_ENCRYPTION_KEY": new_key(),
        "SCORING_WEBHOOK_RATE": "0",
        "SCORING_ADMIN_TOKEN": "",
        "METRIKA_URL": "http://127.0.0.1:9",  # nobody
        "METRIKA_TOKEN": "",
        "METRIKA_COUNTER": "",
        "METRIKA_COUNTERS": "",
        "SVOD_STATE_DIR": str(folder),
        **environ,
    }
    service = Running(settings, folder / "service.log")
    service.start()
    try:
        service.wait()
        yield service
    finally:
        service.stop()


def ledger_of(service: Running) -> Ledger:
    key = service.environ["SCORING_ENCRYPTION_KEY"]
    return Ledger(with_driver(service.environ["SVOD_POSTGRES_URL"]), TokenCipher(key))


@dataclass(frozen=True)
class Hook:
    """A webhook and how to speak to it."""

    http: httpx.Client
    id: str
    secret: str

    @property
    def path(self) -> str:
        return f"{HOOKS}/{self.id}"

    def send(self, *items: Mapping[str, Any], key: str | None = None, **headers: str) -> httpx.Response:
        named = {"X-Webhook-Secret": self.secret, **({"Idempotency-Key": key} if key else {}), **headers}
        return self.http.post(self.path, json={"conversions": items}, headers=named)

    def status(self, batch_id: str, **headers: str) -> httpx.Response:
        named = {"X-Webhook-Secret": self.secret, **headers}
        return self.http.get(f"{self.path}/status", params={"batch_id": batch_id}, headers=named)


def make_hook(http: httpx.Client, **values: Any) -> Hook:
    made = http.post(HOOKS, json={**WEBHOOK, **values})
    assert made.status_code == 200, made.text
    return Hook(http, made.json()["webhook_id"], made.json()["secret"])


def item(**values: Any) -> dict[str, Any]:
    """A conversion that is right."""
    known = {"client_id": "1750856904411275036", "target": "4plus", "date_time": "2025-02-03T10:15:00Z"}
    return {name: value for name, value in (known | values).items() if value is not None}


def scalar(ledger: Ledger, sql: str, **values: Any) -> Any:
    with ledger.engine.connect() as db:
        return db.execute(sa.text(sql), values).scalar_one()
