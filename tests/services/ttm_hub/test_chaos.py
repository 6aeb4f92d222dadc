"""Everything at once, in processes: connectors killed at random, the hub restarted, a ticket system full of
faults. Every request ends exactly once, with its ticket or with a typed error."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resources.ttm.protocol import FAULTS, TtmError
from resources.ttm.requester import HubClient
from sandbox.ttm import SystemConfig, TicketSystem, serve
from tests.services.ttm_hub.hub_house import KEY, TOKEN, RunningHub, running_hub

ROOT = Path(__file__).resolve().parents[3]
TICKETS = 120


class Connectors:
    """One process for each user of the ticket system; `kill` one and another takes its place."""

    def __init__(self, hub: RunningHub, system: TicketSystem, folder: Path) -> None:
        self._hub, self._system, self._folder = hub, system, folder
        self._users = list(system.config.users.items())
        self._children = [self._start(number) for number in range(len(self._users))]
        self.kills = 0

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        email, password = self._users[number]
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TTM_")},
            "SERVER": self._hub.url,
            "TOKEN": TOKEN,
            "KEY": KEY,
            "URL": self._system.base_url,
            "EMAIL": email,
            "PASSWORD": password,
            "TTM_INSTANCE": f"c{number}",
            "TTM_CAPACITY": "8",
        }
        with (self._folder / f"c{number}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "services.ttm_connector"], cwd=ROOT, env=environ, stderr=log
            )

    def kill(self, number: int) -> None:
        self._children[number].send_signal(signal.SIGKILL)
        self._children[number].wait()
        self._children[number] = self._start(number)
        self.kills += 1

    def stop(self) -> list[int]:
        """Asks all to stop; their statuses."""
        for child in self._children:
            child.terminate()
        return [child.wait(40) for child in self._children]


@contextmanager
def killing(connectors: Connectors, rng: random.Random) -> Iterator[None]:
    """One connector dies every second or so."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.4 + rng.random()):
            connectors.kill(rng.randrange(2))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


def test_every_request_ends_once_whatever_dies(tmp_path: Path):
    config = SystemConfig(days=3, per_day=TICKETS // 3, suspended=0, latency=0.03)
    with serve(config) as system, running_hub(failures=1000, limits={"ack_timeout": 1}) as hub:
        numbers = [*system.tickets, 5]  # the last does not exist
        system.faults.load(
            [
                {"action": "status", "status": 503, "every": 17, "path": "/ticket/"},
                {"action": "status", "status": 429, "retry_after": "0", "every": 23, "path": "/ticket/"},
                {"action": "drop", "every": 29, "path": "/ticket/"},
                {"action": "reset", "every": 31, "path": "/ticket/"},
                {"action": "expire", "every": 97},
            ]
        )
        connectors = Connectors(hub, system, tmp_path)
        client = HubClient(hub.url, TOKEN, KEY, timeout_s=30, max_attempts=6, patience_s=30)
        results = list[tuple[int, object]]()
        try:
            with client, killing(connectors, random.Random(7)):
                for number, result in client.tickets(numbers, concurrency=24):
                    results.append((number, result))
                    if len(results) in (TICKETS // 3, 2 * TICKETS // 3):
                        hub.restart()
        finally:
            statuses = connectors.stop()
        logs = "".join(path.read_text() for path in tmp_path.glob("*.log"))
        times = Counter(number for number, _ in results)
        assert times == Counter(numbers)
        errors = {number: result for number, result in results if isinstance(result, TtmError)}
        assert all(error.code in FAULTS for error in errors.values())
        assert all(system.tickets[n] == result for n, result in results if n not in errors)
        assert errors[5].code == "not_found"
        assert len(errors) <= TICKETS // 20
        assert connectors.kills >= 2
        assert set(statuses) <= {0, -signal.SIGTERM}  # the latter: told to stop while it began
        for secret in (KEY, *config.users.values()):
            assert secret not in logs
        assert {call.path.split("?")[0].rsplit("/", 1)[0] for call in system.calls} <= {
            "/nttm-task-handler/api",
            "/nttm-web-gateway/api/ticket",
        }
