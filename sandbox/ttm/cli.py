"""`python -m sandbox ttm ...`: serve a ticket system, or change one that is running."""

import asyncio
import json
import signal
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sandbox.control import call
from sandbox.ttm.server import run_system
from sandbox.ttm.system import ARREARS, STOPPED, SystemConfig, TicketSystem

DEFAULT_PORT = 8027

app = typer.Typer(
    help="Emulated ticket system. `serve` runs it, the other commands change a running one.",
    no_args_is_help=True,
)

Port = Annotated[int, typer.Option(help="Port of the running system.", envvar="SANDBOX_TTM_PORT")]
Number = Annotated[int, typer.Argument(help="Ticket id.")]


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = DEFAULT_PORT,
    host: Annotated[str, typer.Option(help="Loopback address.")] = "127.0.0.1",
    days: Annotated[int, typer.Option(help="Past days with closed tickets.", min=0)] = 14,
    per_day: Annotated[int, typer.Option(help="Closed tickets of a day.", min=0)] = 40,
    suspended: Annotated[int, typer.Option(help="Tickets that wait.", min=0)] = 12,
    change_every: Annotated[
        float, typer.Option(help="Seconds between changes of the waiting tickets; 0: none.", min=0)
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Same seed, same past days.")] = 1,
    latency: Annotated[float, typer.Option(help="Seconds added to every call.", min=0)] = 0.0,
    token_life: Annotated[float, typer.Option(help="Seconds for which a login is good.", min=0)] = 3600.0,
    login_path: Annotated[str, typer.Option(help="Path of the login.")] = SystemConfig.login_path,
    plain_without_ola: Annotated[bool, typer.Option(help="Only ticket/with-ola/{id} has `ola`.")] = False,
    folder: Annotated[
        Path | None, typer.Option(help="tickets/*.json and filters/*.json instead of invented ones.")
    ] = None,
    faults: Annotated[Path | None, typer.Option(help="JSON file with a list of fault rules.")] = None,
) -> None:
    """Run a ticket system until Ctrl-C; prints its address when it is ready."""
    try:
        system = TicketSystem(
            SystemConfig(
                seed=seed,
                days=days,
                per_day=per_day,
                suspended=suspended,
                change_every=change_every,
                latency=latency,
                token_life=token_life,
                login_path=login_path,
                plain_without_ola=plain_without_ola,
                folder=folder,
            )
        )
        if faults is not None:
            system.faults.load(json.loads(faults.read_text(encoding="utf-8")))
        asyncio.run(_serve_until_signal(system, host, port))
    except (OSError, ValueError, TypeError) as error:
        typer.echo(f"cannot serve: {error}", err=True)
        raise typer.Exit(1) from None


async def _serve_until_signal(system: TicketSystem, host: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def ready() -> None:
        user, password = next(iter(system.config.users.items()))
        typer.echo(f"{system.base_url}  user {user}, password {password}, filters {ARREARS} and {STOPPED}")

    await run_system(system, stop, host=host, port=port, ready=ready)


_call = partial(call, "ticket system")


@app.command()
def suspend(
    number: Annotated[int | None, typer.Argument(help="Ticket id; a new ticket if none.")] = None,
    minutes: Annotated[float, typer.Option(help="How long it will wait.")] = 120,
    port: Port = DEFAULT_PORT,
) -> None:
    """Suspend a ticket."""
    _call(port, "control/suspend", {"number": number, "minutes": minutes})


@app.command()
def resume(number: Number, port: Port = DEFAULT_PORT) -> None:
    """End the wait of a ticket; it stays open."""
    _call(port, "control/resume", {"id": number})


@app.command()
def close(number: Number, port: Port = DEFAULT_PORT) -> None:
    """Close a ticket."""
    _call(port, "control/close", {"id": number})


@app.command()
def change(
    count: Annotated[int, typer.Option(help="So many.", min=1)] = 5, port: Port = DEFAULT_PORT
) -> None:
    """Random changes of the waiting tickets."""
    _call(port, "control/change", {"count": count})


@app.command()
def expire(port: Port = DEFAULT_PORT) -> None:
    """End every login now."""
    _call(port, "control/expire", {})


@app.command()
def faults(
    rule: Annotated[
        list[str] | None, typer.Option(help='JSON such as {"action": "status", "status": 503, "every": 7}.')
    ] = None,
    clear: Annotated[bool, typer.Option(help="Drop the rules in force first.")] = False,
    port: Port = DEFAULT_PORT,
) -> None:
    """Make calls fail: status, html, drop, reset, large, delay, expire, insert, body."""
    try:
        rules = [json.loads(text) for text in rule or ()]
    except ValueError:
        raise typer.BadParameter("a rule must be a JSON object") from None
    _call(port, "control/faults", {"rules": rules, "clear": clear})


@app.command()
def stats(port: Port = DEFAULT_PORT) -> None:
    """What is there and what was asked."""
    _call(port, "stats")
