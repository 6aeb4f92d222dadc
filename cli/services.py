"""The processes a local Svod consists of: start them in order, show what they say, leave none behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Protocol
from urllib.error import URLError
from urllib.request import urlopen

import typer
from rich.text import Text

from cli.project import SANDBOX_LIMITS, embedded_postgres, fail, out, sandbox_port
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
    """Children, each in its own process group. `stop` ends them all, whatever state they are in."""

    show: Show
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    _children: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    _readers: list[threading.Thread] = field(default_factory=list)

    def start(self, name: str, command: list[str]) -> None:
        child = subprocess.Popen(
            command,
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
            try:
                urlopen(url, timeout=5).close()
            except URLError as error:
                if hasattr(error, "code"):
                    return
            except OSError:
                pass
            else:
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
def sandbox(deals: int) -> Iterator[None]:
    """The sandbox portal, if the settings lead to it and it does not run yet."""
    show, lines = quiet()
    with running(show) as services:
        if port := sandbox_port():
            try:
                with out.status("Starting the sandbox portal"):
                    start_sandbox(services, port, deals)
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


def start_sandbox(services: Services, port: int, deals: int) -> bool:
    """Start the sandbox portal unless one answers on its port. False when it runs already."""
    if port_in_use(port):
        if not _is_sandbox(port):
            raise fail(
                f"Port {port} is taken by another program, so the sandbox portal cannot start: stop it first."
            )
        return False
    command = [
        sys.executable,
        "-m",
        "sandbox",
        "bitrix24",
        "serve",
        "--port",
        str(port),
        "--deals",
        str(deals),
    ]
    command += ["--rate", "/".join(SANDBOX_LIMITS.values()), "--operating", "absent"]
    services.start("sandbox", command)
    services.wait_until(f"http://127.0.0.1:{port}/stats", "The sandbox portal")
    return True


def _is_sandbox(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/stats", timeout=10) as answer:
            return answer.status == 200
    except (URLError, OSError):
        return False
