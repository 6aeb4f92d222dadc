"""`python -m sandbox mts-link ...`: serve an organisation, or change one that is running."""

import json
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from sandbox.control import call
from sandbox.mts_link.config import SIZES, OrgConfig
from sandbox.mts_link.server import Server
from sandbox.mts_link.server import serve as run

DEFAULT_PORT = 8026

app = typer.Typer(
    help="Emulated MTS Link organisation. `serve` runs it, the other commands change a running one.",
    no_args_is_help=True,
)
Port = Annotated[int, typer.Option(help="Port of the running organisation.", envvar="SANDBOX_MTS_LINK_PORT")]


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = DEFAULT_PORT,
    size: Annotated[str, typer.Option(help=f"{', '.join(SIZES)}.")] = "small",
    staff: Annotated[int | None, typer.Option(help="Employees.")] = None,
    sessions: Annotated[int | None, typer.Option(help="Event sessions.")] = None,
    participants: Annotated[int | None, typer.Option(help="Participants of a session, on average.")] = None,
    channels: Annotated[int | None, typer.Option(help="Chats.")] = None,
    messages: Annotated[int | None, typer.Option(help="Messages in all chats.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same data.")] = 1,
    token: Annotated[str, typer.Option(help="API key.")] = "sandbox-key",
    rate: Annotated[str, typer.Option(help="Requests within one second, or off.")] = "2",
    latency: Annotated[float, typer.Option(help="Real seconds added to every request.", min=0)] = 0.0,
    clock_start: Annotated[float | None, typer.Option(help="Unix seconds of a virtual clock.")] = None,
    clock_factor: Annotated[float, typer.Option(help="Virtual seconds per real second.", min=0)] = 1.0,
    first_refusals: Annotated[int, typer.Option(help="Requests that are refused at first.", min=0)] = 0,
    first_status: Annotated[int, typer.Option(help="The status of those.")] = 429,
    faults: Annotated[
        Path | None, typer.Option(help="JSON file with a list of fault rules.", exists=True)
    ] = None,
) -> None:
    """Run an organisation until Ctrl-C; prints the base URL when it is ready."""
    if size not in SIZES:
        raise typer.BadParameter(f"--size is one of {', '.join(SIZES)}")
    chosen = {
        "staff": staff,
        "sessions": sessions,
        "participants": participants,
        "channels": channels,
        "messages": messages,
    }
    config = OrgConfig(
        **{**SIZES[size], **{name: value for name, value in chosen.items() if value is not None}},
        seed=seed,
        token=token,
        rate=_rate(rate),
        latency=latency,
        clock_start=clock_start,
        clock_factor=clock_factor,
        first_refusals=first_refusals,
        first_status=first_status,
    )
    server = Server(config)
    for rule in json.loads(faults.read_text(encoding="utf-8")) if faults else []:
        server.add_fault(**rule)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with run(port=port, owner=server):
            typer.echo(server.url)
            stop.wait()
    except OSError as error:
        typer.echo(f"cannot serve: {error}", err=True)
        raise typer.Exit(1) from None


def _rate(text: str) -> float | None:
    try:
        return None if text == "off" else float(text)
    except ValueError:
        raise typer.BadParameter("expected a number of requests such as 2, or off") from None


@app.command()
def advance(seconds: float, port: Port = DEFAULT_PORT) -> None:
    """Move the clock forward."""
    call("organisation", port, "control/advance", {"seconds": seconds})


@app.command()
def delete(
    kind: Annotated[str, typer.Argument(help="session, member or record.")],
    id: int,
    port: Port = DEFAULT_PORT,
) -> None:
    """Take something away."""
    call("organisation", port, "control/delete", {"kind": kind, "id": id})


@app.command()
def write(chat: int, count: int = 1, port: Port = DEFAULT_PORT) -> None:
    """Write messages into a chat, by its number from 0."""
    call("organisation", port, "control/write", {"chat": chat, "count": count})


@app.command("change-session")
def change_session(
    id: int,
    values: Annotated[str, typer.Argument(help='JSON: {"status": "STOP", "name": "…", "more": 3}')],
    port: Port = DEFAULT_PORT,
) -> None:
    """Change a session."""
    call("organisation", port, "control/change-session", {"id": id, **json.loads(values)})


@app.command()
def faults(
    rule: Annotated[
        list[str] | None, typer.Option(help='Rule such as \'{"action": "html", "path": "/records"}\'.')
    ] = None,
    clear: Annotated[bool, typer.Option(help="Drop the present rules first.")] = False,
    port: Port = DEFAULT_PORT,
) -> None:
    """Show, add or clear fault rules."""
    call(
        "organisation",
        port,
        "control/faults",
        {"add": [json.loads(text) for text in rule or ()], "clear": clear},
    )


@app.command()
def stats(port: Port = DEFAULT_PORT) -> None:
    """Requests by status and route, requests a second."""
    call("organisation", port, "stats")


@app.command("reset-stats")
def reset_stats(port: Port = DEFAULT_PORT) -> None:
    """Start counting anew."""
    call("organisation", port, "control/reset-stats", {})
