"""Children of `svod dev`: whatever they do, none is left behind."""

import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import psutil
import pytest
import typer

from cli.services import Interrupted, Services, port_in_use, quiet, running, start_local, stop_signals

STUBBORN = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
child.wait()
"""


def ended(pid: int) -> bool:
    """Whether a process that was sent SIGKILL is gone, or a zombie that its new parent has yet to bury."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


def started(services: Services, code: str, lines: list[str]) -> None:
    """Start a child and return when it has said something."""
    said = threading.Event()
    show = services.show

    def tell(name: str, line: str) -> None:
        show(name, line)
        said.set()

    services.show = tell
    services.start("child", [sys.executable, "-c", code])
    assert said.wait(20), lines


def test_a_child_that_ignores_sigterm_ends_with_its_own_children(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cli.services.STOP_S", 0.2)
    show, lines = quiet()
    with running(show) as services:
        started(services, STUBBORN, lines)
    assert ended(int(lines[-1].split()[-1]))


def test_a_child_that_ends_by_itself_is_named():
    show, _ = quiet()
    with running(show) as services:
        services.start("sandbox", [sys.executable, "-c", "raise SystemExit(3)"])
        with pytest.raises(typer.Exit):
            services.wait_until("http://127.0.0.1:1/", "The sandbox")
        assert services.dead() == ("sandbox", 3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_way_to_stop_is_an_interruption(number: signal.Signals):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted), stop_signals():
        signal.raise_signal(number)
    assert signal.getsignal(number) == before


def test_a_port_in_use_is_seen():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert port_in_use(taken.getsockname()[1])


def test_a_port_of_a_program_that_speaks_no_http_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        threading.Thread(
            target=lambda: taken.accept()[0].sendall(b"SSH-2.0-other\r\n\r\n"), daemon=True
        ).start()
        monkeypatch.setenv("METRIKA_URL", f"http://127.0.0.1:{port}")
        show, _ = quiet()
        with running(show) as services, pytest.raises(typer.Exit):
            start_local(services, 0, {"metrika"})
    assert f"Port {port} is taken by another program, so metrika cannot start" in capsys.readouterr().err


def test_only_the_last_lines_of_a_quiet_child_are_kept():
    show, lines = quiet(keep=3)
    for number in range(10):
        show("child", str(number))
    assert lines == ["child: 7", "child: 8", "child: 9"]


PARENT = """
import sys, time
from cli.services import quiet, running
show, lines = quiet()
with running(show) as services:
    services.start("child", [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)"])
    while not lines:
        time.sleep(0.01)
    print(services._children["child"].pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has died")
def test_children_of_a_killed_command_end_too():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        parent.kill()
    try:
        assert ended(child)
    finally:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(child).kill()
