"""The processes a local Svod consists of: start them in order, show what they say, leave none behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from types import FrameType
from typing import Protocol
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import typer
from rich.text import Text

from cli.child import tied
from cli.local import SANDBOXES, SERVICES
from cli.project import embedded_postgres, fail, out
from resources.postgres import PostgresError, database_url, require_answer

STOP_S = 20.0  # Dagster waits for its code servers, they for the runs they were asked to stop
COLOURS = ("cyan", "green", "magenta", "yellow")


class Interrupted(Exception):
    """The user or the system asked to stop."""


class Show(Protocol):
    """Where a child's line goes."""

    def __call__(self, name: str, line: str, /) -> None: ...


@dataclass
class Services:
    """Children, each in its own process group. `stop` ends them all, whatever state they are in.

    They end by themselves when this process is killed.
    """

    show: Show
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    _children: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    _readers: list[threading.Thread] = field(default_factory=list)

    def start(self, name: str, command: list[str]) -> None:
        child = subprocess.Popen(
            tied(command),
            env={**self.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches us only, and we stop them in order
        )
        self._children[name] = child
        reader = threading.Thread(target=self._read, args=(name, child), daemon=True)
        reader.start()
        self._readers.append(reader)

    def _read(self, name: str, child: subprocess.Popen[str]) -> None:
        assert child.stdout
        for line in child.stdout:
            self.show(name, line.rstrip())

    def dead(self) -> tuple[str, int] | None:
        """(name, status) of a child that ended by itself."""
        for name, child in self._children.items():
            if (status := child.poll()) is not None:
                return name, status
        return None

    def wait_until(self, url: str, name: str, seconds: float = 180) -> None:
        """Return when `url` answers at all; one line and the end when it does not."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if died := self.dead():
                raise fail(f"{died[0]} ended with status {died[1]} while starting; its last lines are above.")
            if _status(url) is not None:
                return
            time.sleep(0.2)
        raise fail(f"{name} did not answer within {seconds:.0f} s.")

    def stop(self) -> None:
        """Ask every child to stop, the last started first, then end what is left of their groups."""
        for child in reversed(self._children.values()):
            with suppress(ProcessLookupError):
                child.terminate()
        deadline = time.monotonic() + STOP_S
        for child in self._children.values():
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.1, deadline - time.monotonic()))
        for child in self._children.values():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        for reader in self._readers:
            reader.join(timeout=2)
        self._children.clear()


@contextmanager
def stop_signals() -> Iterator[None]:
    """Ctrl-C, `kill` and a closed terminal raise Interrupted once; after that they are ignored."""

    def interrupt(number: int, _: FrameType | None) -> None:
        for each in handled:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(signal.Signals(number).name)

    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {each: signal.signal(each, interrupt) for each in handled}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def postgres(folder: Path) -> Iterator[None]:
    """The database of the settings; the embedded one is started if need be, and stopped again then."""
    server = embedded_postgres(folder)
    try:
        url = database_url()
        started = server.serves(url) and server.start()
        require_answer(url)
    except PostgresError as error:
        raise fail(str(error)) from None
    try:
        yield
    finally:
        if started:
            server.stop()


@contextmanager
def running(show: Show | None = None, environ: Mapping[str, str] | None = None) -> Iterator[Services]:
    """Children that end with the block."""
    services = Services(show or prefixed(), {**os.environ, **(environ or {})})
    try:
        yield services
    finally:
        services.stop()


def prefixed() -> Show:
    """Print a child's lines behind its name, in a colour of its own."""
    colours: dict[str, str] = {}

    def show(name: str, line: str) -> None:
        colour = colours.setdefault(name, COLOURS[len(colours) % len(COLOURS)])
        out.print(Text.assemble((f"{name:>10} | ", colour), Text.from_ansi(line)), soft_wrap=True)

    return show


def quiet(keep: int = 20) -> tuple[Show, list[str]]:
    """Keep the last lines instead of printing them."""
    lines: list[str] = []

    def show(name: str, line: str) -> None:
        lines.append(f"{name}: {line}")
        del lines[:-keep]

    return show, lines


@contextmanager
def local_systems(deals: int, sources: Container[str] | None = None) -> Iterator[None]:
    """What the settings expect on this machine and does not run yet: of these sources, or of all."""
    show, lines = quiet()
    with running(show) as services:
        try:
            with out.status("Starting the sandbox"):
                start_local(services, deals, sources, demo=True)
        except typer.Exit:
            out.print(*lines, sep="\n", markup=False)
            raise
        yield


def port_in_use(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def start_local(
    services: Services, deals: int, sources: Container[str] | None = None, *, demo: bool = False
) -> None:
    """Start the sandboxes to which the settings lead, and the services that live on them.

    What answers already is left alone. With `demo` only the services without which a source cannot load.
    """
    started = set[str]()
    for sandbox in SANDBOXES:
        port = sandbox.port
        if port and (sources is None or sandbox.source in sources):
            _start(
                services,
                f"{sandbox.source}",
                sandbox.command(port, deals),
                f"http://127.0.0.1:{port}{sandbox.probe}",
            )
            started.add(sandbox.source)
    for service in SERVICES:
        if service.source in started and (service.demo or not demo):
            _start(services, service.name, service.command, service.url)


def _start(services: Services, name: str, command: list[str], url: str) -> None:
    port = urlsplit(url).port or 80
    if not port_in_use(port):
        services.start(name, command)
        services.wait_until(url, name)
    elif _status(url) != 200:
        raise fail(f"Port {port} is taken by another program, so {name} cannot start: stop it first.")


def _status(url: str) -> int | None:
    """The status of the answer; None when what listens there, if anything, speaks no HTTP."""
    try:
        with urlopen(url, timeout=10) as answer:
            return answer.status
    except HTTPError as error:
        return error.code
    except (OSError, HTTPException):
        return None
