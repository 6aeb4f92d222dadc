"""How many requests a second pass through the hub, and what do idle connections cost?

50 connectors with 4 slots each, 80 requesters that keep 5,000 requests of 8 KB tickets unfinished, on
loopback; the hub in a process of its own, all its clients in another. Peers in the same run: a bare echo
server on the same `websockets` package, with as many connections, a round trip of which is 2 messages where a
request through the hub is 7; and the same server's idle connections.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import msgspec
import psutil
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from benchmarks.common import ROOT, verdict
from resources.ttm.handshake import ClientHandshake
from resources.ttm.protocol import CONNECTOR, METHODS, PATH, REQUESTER, SUBPROTOCOL
from services.ttm_hub.server import raise_file_limit

CONNECTORS, SLOTS = 50, 4
REQUESTERS = 80
UNFINISHED = 5000
SECONDS = float(os.environ.get("BENCH_SECONDS", "10"))
IDLE = 10_000
TICKET = msgspec.Raw(json.dumps({"id": 1, "tasks": ["x" * 100] * 78}).encode())
TOKEN, KEY = "bench", secrets.token_hex(16)


@contextmanager
def process(*command: str) -> Iterator[tuple[int, psutil.Process]]:
    """A server in a process of its own that says its port in the first line that holds one."""
    environ = {**os.environ, "TTM_TOKEN": TOKEN, "TTM_KEY": KEY, "TTM_PORT": "0"}
    child = subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True)
    try:
        assert child.stderr
        for line in child.stderr:
            if "listening on" in line:
                break
        else:
            raise RuntimeError(f"{command} did not start")
        yield int(line.rsplit(":", 1)[1].split("/")[0]), _drained(child)
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(30)


def _drained(child: subprocess.Popen[str]) -> psutil.Process:
    """Nobody reads what it logs: let it go nowhere, not fill the pipe."""
    assert child.stderr
    threading.Thread(target=child.stderr.read, daemon=True).start()
    return psutil.Process(child.pid)


@asynccontextmanager
async def client(port: int, role: str, name: str, **more: Any) -> AsyncIterator[ClientConnection]:
    """A connection to the hub that has proven itself."""
    async with connect(
        f"ws://127.0.0.1:{port}{PATH}",
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        compression=None,
        proxy=None,
        open_timeout=60,
        ping_interval=None,
    ) as socket:
        handshake = ClientHandshake(role, TOKEN, KEY, name, "bench", **more)
        await socket.send(json.dumps(handshake.hello))
        await socket.send(json.dumps(handshake.auth(json.loads(await socket.recv()))))
        handshake.check(json.loads(await socket.recv()))
        yield socket


async def connector(port: int, number: int) -> None:
    """Answers every task at once."""
    encode, decode = msgspec.json.encode, msgspec.json.decode
    async with client(port, CONNECTOR, f"c{number}", methods=list(METHODS), capacity=SLOTS) as socket:
        async for text in socket:
            task = decode(text)
            if task["type"] != "task":
                continue
            ids = {"id": task["id"], "attempt": task["attempt"]}
            await socket.send(encode({"type": "ack", **ids}), text=True)
            result = {"type": "result", **ids, "ok": True, "status": 200, "data": TICKET}
            await socket.send(encode(result), text=True)


class Requester:
    """Keeps its share of the requests unfinished, and asks again what the hub is too busy for."""

    def __init__(self, number: int, share: int) -> None:
        self.number, self.share, self.done, self.errors = number, share, 0, 0

    async def run(self, port: int) -> None:
        async with client(port, REQUESTER, f"r{self.number}") as socket:
            for number in range(self.share):
                await self._ask(socket, number)
            number = self.share
            async for text in socket:
                kind = text[9:14]
                if kind == "accep":
                    continue
                message = msgspec.json.decode(text)
                if message.get("code") == "busy":
                    asyncio.get_running_loop().call_later(
                        message["retry_after"], lambda n=number: asyncio.ensure_future(self._ask(socket, n))
                    )
                else:
                    self.done += 1
                    self.errors += not message.get("ok")
                    await self._ask(socket, number)
                number += 1

    async def _ask(self, socket: ClientConnection, number: int) -> None:
        with suppress(ConnectionClosed):
            await socket.send(
                f'{{"type":"request","id":"q{number}","method":"ticket.get","params":{{"id":{number + 1}}}}}'
            )


async def load(port: int, hub: psutil.Process) -> dict[str, float]:
    connectors = [asyncio.create_task(connector(port, n)) for n in range(CONNECTORS)]
    await asyncio.sleep(1)
    crowd = [Requester(n, UNFINISHED // REQUESTERS) for n in range(REQUESTERS)]
    asking = [asyncio.create_task(r.run(port)) for r in crowd]
    await asyncio.sleep(2)
    memory, began, before = deque[int](), time.monotonic(), sum(r.done for r in crowd)
    while time.monotonic() - began < SECONDS:
        await asyncio.sleep(0.5)
        memory.append(hub.memory_info().rss)
    took = time.monotonic() - began
    done = sum(r.done for r in crowd) - before
    for task in (*asking, *connectors):
        task.cancel()
    await asyncio.gather(*asking, *connectors, return_exceptions=True)
    quarter = max(1, len(memory) // 4)
    first, last = list(memory)[:quarter], list(memory)[-quarter:]
    return {
        "rate": done / took,
        "errors": sum(r.errors for r in crowd),
        "memory_mb": max(memory) / 1e6,
        "growth": (sum(last) / len(last)) / (sum(first) / len(first)),
    }


async def echo(port: int) -> float:
    """Round trips a second of the same bytes over as many connections."""
    count, ticket, stop = 0, "x" * len(bytes(TICKET)), False

    async def one() -> None:
        nonlocal count
        async with connect(f"ws://127.0.0.1:{port}", compression=None, proxy=None) as socket:
            while not stop:
                await socket.send(ticket)
                await socket.recv()
                count += 1

    tasks = [asyncio.create_task(one()) for _ in range(CONNECTORS + REQUESTERS)]
    await asyncio.sleep(1)
    before, began = count, time.monotonic()
    await asyncio.sleep(SECONDS / 2)
    rate, stop = (count - before) / (time.monotonic() - began), True
    await asyncio.gather(*tasks)
    return rate


async def idle(port: int, server: psutil.Process, hub: bool) -> tuple[int, float, float]:
    """(connections that hold, KB of the server for each, seconds to open them)."""

    async def hold(number: int) -> None:
        if hub:
            async with client(port, CONNECTOR, f"i{number}", methods=[], capacity=1):
                opened.release()
                await done.wait()
        else:
            async with connect(
                f"ws://127.0.0.1:{port}", compression=None, proxy=None, open_timeout=60, ping_interval=None
            ):
                opened.release()
                await done.wait()

    opened, done, gate = asyncio.Semaphore(0), asyncio.Event(), 100
    before, began = server.memory_info().rss, time.monotonic()
    tasks = []
    for number in range(IDLE):
        tasks.append(asyncio.create_task(hold(number)))
        if number >= gate:
            await opened.acquire()
    for _ in range(gate):
        await opened.acquire()
    took = time.monotonic() - began
    await asyncio.sleep(2)
    held = sum(not task.done() for task in tasks)
    per = (server.memory_info().rss - before) / IDLE / 1000
    done.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    return held, per, took


async def _echo_server() -> None:
    async def handle(socket: Any) -> None:
        async for message in socket:
            await socket.send(message)

    async with serve(handle, "127.0.0.1", 0, compression=None, backlog=4096, max_queue=16) as server:
        port = server.sockets[0].getsockname()[1]
        print(f"listening on ws://127.0.0.1:{port}", file=sys.stderr, flush=True)
        await server.serve_forever()


def main() -> int:
    """Exit status 1 if a target is missed."""
    raise_file_limit()
    hub = (sys.executable, "-m", "services.ttm_hub")
    bare = (sys.executable, "-m", "benchmarks.ttm_hub", "echo")
    with process(*hub) as (port, server):
        result = asyncio.run(load(port, server))
    with process(*bare) as (port, _):
        echoed = asyncio.run(echo(port))
    with process(*hub) as (port, server):
        held, per, took = asyncio.run(idle(port, server, True))
    with process(*bare) as (port, server):
        _, bare_per, bare_took = asyncio.run(idle(port, server, False))
    print(f"     hub {result['rate']:,.0f} round trips/s of 7 messages, {result['memory_mb']:.0f} MB")
    print(f"     echo {echoed:,.0f} round trips/s of 2 messages")
    print(f"     idle connections: hub {per:.1f} KB each, opened in {took:.1f} s")
    print(f"     idle connections: bare {bare_per:.1f} KB each, opened in {bare_took:.1f} s")
    met = verdict("round trips a second", result["rate"], 1500, at_most=False)
    met &= verdict("hub / echo, by messages", result["rate"] * 7 / (echoed * 2), 0.3, at_most=False)
    met &= verdict("memory at the end / at the beginning", result["growth"], 1.15, at_most=True)
    met &= verdict("requests that ended with an error", result["errors"], 0, at_most=True)
    met &= verdict("idle connections held", held, IDLE, at_most=False)
    met &= verdict("memory of an idle connection, hub / bare", per / bare_per, 1.5, at_most=True)
    return not met


if __name__ == "__main__":
    if sys.argv[1:] == ["echo"]:
        raise_file_limit()
        asyncio.run(_echo_server())
    sys.exit(main())
