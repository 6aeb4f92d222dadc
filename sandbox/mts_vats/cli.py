"""`python -m sandbox mts_vats ...`: serve a cabinet, or change one that is running."""

import signal
import threading
from functools import partial
from typing import Annotated

import typer

from sandbox.control import call, pairs
from sandbox.mts_vats.cabinet import CabinetConfig, VirtualCabinet
from sandbox.mts_vats.server import make_server

DEFAULT_PORT = 8028
_call = partial(call, "cabinet")
app = typer.Typer(
    help="Emulated MTS VATS cabinet. `serve` runs it, the other commands change a running one.",
    no_args_is_help=True,
)
Port = Annotated[int, typer.Option(help="Port of the running cabinet.", envvar="SANDBOX_MTS_VATS_PORT")]
Values = Annotated[list[str] | None, typer.Option("--set", help="name=value, as JSON; repeatable.")]


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = DEFAULT_PORT,
    host: Annotated[str, typer.Option(help="Loopback address.")] = "127.0.0.1",
    trunks: Annotated[int, typer.Option(help="Trunks.", min=0)] = 60,
    seed: Annotated[int, typer.Option(help="Same seed, same data.")] = 1,
    login: Annotated[str, typer.Option(help="Login that is taken.")] = "+7-9990000001",
    password: Annotated[str, typer.Option(help="Its password.")] = "sandbox0secret",
    latency: Annotated[float, typer.Option(help="Seconds added to every request.", min=0)] = 0.0,
    expire_every: Annotated[int, typer.Option(help="Every n-th call ends the session.", min=0)] = 0,
    fail_every: Annotated[int, typer.Option(help="Every n-th call is answered 500.", min=0)] = 0,
    modern: Annotated[bool, typer.Option(help="Spell answers as GWT 2.8 does.")] = False,
) -> None:
    """Run a cabinet until Ctrl-C; prints its address when it is ready."""
    cabinet = VirtualCabinet(
        CabinetConfig(
            trunks=trunks,
            seed=seed,
            login=login,
            password=password,
            latency_s=latency,
            expire_every=expire_every,
            fail_every=fail_every,
            modern=modern,
        )
    )
    try:
        server = make_server(cabinet, host, port)
    except (OSError, ValueError) as error:
        typer.echo(f"cannot serve: {error}", err=True)
        raise typer.Exit(1) from None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    typer.echo(cabinet.base_url)
    server.serve_forever(0.2)
    server.server_close()


@app.command()
def redeploy(port: Port = DEFAULT_PORT) -> None:
    """Deploy another compilation: new permutation, policies, checksum, ordinals; sessions end."""
    _call(port, "control/redeploy")


@app.command()
def expire(port: Port = DEFAULT_PORT) -> None:
    """End all sessions."""
    _call(port, "control/expire")


@app.command()
def change(
    phone: Annotated[str, typer.Argument(help="Phone of a trunk.")],
    values: Values = None,
    remove: Annotated[bool, typer.Option(help="Take the trunk away.")] = False,
    port: Port = DEFAULT_PORT,
) -> None:
    """Change a trunk: --set enabled=false --set flags=[0,0,1,1]."""
    _call(port, "control/trunk", {"phone": phone, "values": pairs(values), "remove": remove})


@app.command()
def add(port: Port = DEFAULT_PORT) -> None:
    """Add a trunk."""
    _call(port, "control/trunk")


@app.command()
def settings(values: Values = None, port: Port = DEFAULT_PORT) -> None:
    """Show settings, or change some: --set latency_s=0.2 --set expire_every=10."""
    _call(port, "control/settings", pairs(values))


@app.command()
def stats(port: Port = DEFAULT_PORT) -> None:
    """Requests, calls, logins, writes."""
    _call(port, "stats")
