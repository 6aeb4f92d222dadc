"""`svod dev`: the whole of it on one machine, in the foreground."""

from __future__ import annotations

import sys
import time

from cli.project import ensure_local, enter, fail, out
from cli.services import Interrupted, port_in_use, postgres, running, start_local, stop_signals

WORKSPACE = ["-w", "workspace.yaml"]


def dev(port: int, deals: int) -> None:
    """Everything that the settings expect on this machine, the webserver and the daemon; until Ctrl-C."""
    folder = enter()
    ensure_local(folder)
    if port_in_use(port):
        raise fail(f"Port {port} is in use: stop what listens there, or run `svod dev --port {port + 1}`.")
    url = f"http://127.0.0.1:{port}"
    ended = None
    with stop_signals():
        try:
            with postgres(folder), running(environ={"DAGSTER_WEBSERVER_URL": url}) as services:
                start_local(services, deals)
                python = [sys.executable, "-m"]
                services.start(
                    "webserver",
                    [*python, "dagster_webserver", "-h", "127.0.0.1", "-p", str(port), *WORKSPACE],
                )
                services.wait_until(f"{url}/server_info", "The webserver")
                services.start("daemon", [*python, "dagster._daemon", "run", *WORKSPACE])
                out.print(f"\nDagster UI: [bold]http://localhost:{port}[/]   Ctrl-C stops everything\n")
                while not (ended := services.dead()):
                    time.sleep(0.5)
        except Interrupted:
            out.print("Stopped.")
    if ended:
        raise fail(
            f"{ended[0]} ended with status {ended[1]}, so everything was stopped; its last lines are above."
        )
