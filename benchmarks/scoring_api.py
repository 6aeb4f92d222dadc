"""The scoring service under load: one conversion a request, then again with kill -9 of service and database.

    python -m benchmarks.scoring_api [seconds] [requests per second]

Everything runs on this machine: service, PostgreSQL, and the clients, which share the cores.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from benchmarks.common import ROOT, folder, verdict
from resources.postgres import OPERATIONS, EmbeddedPostgres, connect, with_driver
from resources.scoring_service.cipher import new_key

CONNECTIONS = 32
RATE, P99_MS = 300.0, 100.0
PORT = 18090
HOOKS = f"http://127.0.0.1:{PORT}/webhook/offline-conversions"


def main() -> int:
    """Exit status 1 when a target is missed."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    rate = float(sys.argv[2]) if len(sys.argv) > 2 else 400.0
    with folder() as path:
        postgres = EmbeddedPostgres(path / "postgres")
        postgres.start()
        try:
            return _measure(postgres, path, seconds, rate)
        finally:
            postgres.stop()


def _measure(postgres: EmbeddedPostgres, path: Path, seconds: float, rate: float) -> int:
    environ = {
        **os.environ,
        "SVOD_POSTGRES_URL": postgres.url_of(OPERATIONS),
        "SCORING_ENCRYPTION_KEY": new_key(),
        "SCORING_WEBHOOK_RATE": "0",
        "SCORING_ADMIN_TOKEN": "",
    }
    with _service(environ, path):
        hook = _hook()
        open_loop = _load(hook, seconds, rate)
        closed = _load(hook, seconds, 0)
    _told("steady", open_loop)
    good = verdict(
        "steady, accepted a second", open_loop["per_second"], min(rate, RATE) * 0.98, at_most=False
    )
    good &= verdict("steady, p99", open_loop["p99"], P99_MS, at_most=True, unit=" ms")
    _told("as fast as possible", closed)
    good &= verdict("as fast as possible, accepted a second", closed["per_second"], RATE, at_most=False)
    killed = _with_kills(postgres, environ, path, hook, seconds, rate)
    good &= _complete(postgres, [*open_loop["batches"], *closed["batches"], *killed["batches"]], killed)
    return not good


@contextmanager
def _service(environ: dict[str, str], path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (path / "service.log").open("ab") as log:
        command = [sys.executable, "-m", "services.scoring_api", "serve", "--port", str(PORT)]
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=log)
    try:
        _wait()
        yield process
    finally:
        process.terminate()
        process.wait(20)


def _wait() -> None:
    for _ in range(600):
        with suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{PORT}/healthz", timeout=15).status_code == 200:
                return
        time.sleep(0.05)
    raise RuntimeError("the service did not start")


def _hook() -> dict[str, str]:
    body = {"name": "load", "counter_id": 100001, "token": "benchmark"}
    return httpx.post(HOOKS, json=body).raise_for_status().json()


def _with_kills(
    postgres: EmbeddedPostgres,
    environ: dict[str, str],
    path: Path,
    hook: dict[str, str],
    seconds: float,
    rate: float,
) -> dict[str, Any]:
    """The same load while the service is killed once, and PostgreSQL once; clients repeat with their keys."""
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    with _service(environ, path) as service:
        load = context.Process(target=_load_into, args=(told, hook, seconds, rate))
        load.start()
        time.sleep(seconds / 3)
        service.send_signal(signal.SIGKILL)
        service.wait()
        with _service(environ, path):
            time.sleep(seconds / 3)
            pid = int((postgres.home / "data" / "postmaster.pid").read_text().split()[0])
            os.kill(pid, signal.SIGKILL)
            time.sleep(1)
            postgres.start()
            found = told.get(timeout=seconds * 3 + 120)
            load.join()
    return found


def _load_into(told: Any, hook: dict[str, str], seconds: float, rate: float) -> None:
    told.put(_load(hook, seconds, rate))


def _load(hook: dict[str, str], seconds: float, rate: float) -> dict[str, Any]:
    """Requests of one conversion over `CONNECTIONS` connections; `rate` 0: as fast as answers come.

    At a rate, latency counts from when a request was due, so that a stall is seen by all that it delays.
    """
    return asyncio.run(_Load(hook, seconds, rate).run())


class _Load:
    def __init__(self, hook: dict[str, str], seconds: float, rate: float) -> None:
        path = f"/webhook/offline-conversions/{hook['webhook_id']}"
        item = {"client_id": "1750856904411275036", "target": "4plus", "date_time": "2025-02-03T10:15:00Z"}
        body = json.dumps({"conversions": [item]}).encode()
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nX-Webhook-Secret: {hook['secret']}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nIdempotency-Key: "
        ).encode()
        self._body = b"\r\n\r\n" + body
        self._seconds, self._rate = seconds, rate
        self._latencies: list[float] = []
        self._batches: list[str] = []
        self._repeated = 0

    async def run(self) -> dict[str, Any]:
        began = time.perf_counter()
        await asyncio.gather(*(self._client(began, n) for n in range(CONNECTIONS)))
        taken = time.perf_counter() - began
        self._latencies.sort()
        return {
            "batches": self._batches,
            "per_second": len(self._batches) / taken,
            "p50": self._latencies[len(self._latencies) // 2] * 1000,
            "p99": self._latencies[int(len(self._latencies) * 0.99)] * 1000,
            "repeated": self._repeated,
        }

    async def _client(self, began: float, number: int) -> None:
        """Its share of the load, each request until it is accepted."""
        step = CONNECTIONS / self._rate if self._rate else 0.0
        due, wire = began + step * number / CONNECTIONS, None
        while due < began + self._seconds:
            if step:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            sent = due if step else time.perf_counter()
            key, accepted = uuid.uuid4().hex.encode(), None
            while accepted is None:
                try:
                    wire = wire or await asyncio.open_connection("127.0.0.1", PORT)
                    accepted = await asyncio.wait_for(self._ask(*wire, key), 30)
                except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError):
                    wire = None
                if accepted is None:
                    self._repeated += 1
                    await asyncio.sleep(0.2)
            self._latencies.append(time.perf_counter() - sent)
            self._batches.append(accepted)
            due = due + step if step else time.perf_counter()
        if wire:
            wire[1].close()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: bytes
    ) -> str | None:
        """The batch's number, None for a refusal."""
        writer.write(self._head + key + self._body)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        return json.loads(body)["batch_id"] if head.startswith(b"HTTP/1.1 200") else None


def _told(name: str, load: dict[str, Any]) -> None:
    print(
        f"{name}: {len(load['batches'])} accepted, {load['per_second']:.0f} a second, "
        f"p50 {load['p50']:.1f} ms, p99 {load['p99']:.1f} ms, {load['repeated']} repeats"
    )


def _complete(postgres: EmbeddedPostgres, accepted: list[str], killed: dict[str, Any]) -> bool:
    """Every answered batch is stored with its conversion, and no key twice."""
    engine = connect(with_driver(postgres.url_of(OPERATIONS)))
    with engine.connect() as db:
        stored = {str(row[0]) for row in db.execute(sa.text("SELECT batch_id FROM scoring.conversions"))}
        rows = db.execute(sa.text("SELECT count(*) FROM scoring.conversions")).scalar_one()
    engine.dispose()
    _told("with kills", killed)
    good = verdict("accepted and not stored", len(set(accepted) - stored), 0, at_most=True)
    return verdict("stored twice", rows - len(set(accepted)), 0, at_most=True) and good


if __name__ == "__main__":
    sys.exit(main())
