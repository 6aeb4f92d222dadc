"""`python -m sandbox metrika ...`: serve an emulated Metrika, or change one that is running."""

import json
import signal
import threading
import urllib.error
import urllib.request
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from sandbox.metrika.config import COUNTERS, TOKEN, MetrikaConfig
from sandbox.metrika.server import Server
from sandbox.metrika.service import Metrika

DEFAULT_PORT = 8025
_TIMEOUT_S = 60

app = typer.Typer(
    help="Emulated Yandex.Metrika. `serve` runs it, the other commands change a running one.",
    no_args_is_help=True,
)
Port = Annotated[int, typer.Option(help="Port of the running service.", envvar="SANDBOX_METRIKA_PORT")]


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = DEFAULT_PORT,
    host: Annotated[str, typer.Option(help="Loopback address.")] = "127.0.0.1",
    visits: Annotated[int, typer.Option(help="Visits a day of each counter, roughly.", min=0)] = 300,
    seed: Annotated[int, typer.Option(help="Same seed, same data.")] = 1,
    today: Annotated[str, typer.Option(help="The day that is not over yet; default: the present one.")] = "",
    parts: Annotated[int, typer.Option(help="Parts of a log request.", min=1)] = 2,
    polls: Annotated[int, typer.Option(help="Looks at a log request until it is ready.", min=1)] = 2,
    gzip: Annotated[bool, typer.Option(help="Compress parts for those who accept it.")] = True,
    quotas: Annotated[bool, typer.Option(help="Refuse what exceeds the API's quotas.")] = True,
    latency: Annotated[float, typer.Option(help="Seconds added to every request.", min=0)] = 0.0,
    faults: Annotated[
        Path | None, typer.Option(help="JSON file with a list of fault rules.", exists=True)
    ] = None,
) -> None:
    """Run the service until Ctrl-C; prints its address when it is ready."""
    config = MetrikaConfig(
        seed=seed,
        visits_per_day=visits,
        today=_day(today),
        parts=parts,
        polls=polls,
        gzip=gzip,
        latency=latency,
    )
    if not quotas:
        config.requests_per_second = config.parallel = config.requests_per_day = 0
    service = Metrika(config)
    try:
        if faults is not None:
            service.faults.load(json.loads(faults.read_text(encoding="utf-8")))
        server = Server(service, host, port)
    except (OSError, ValueError, TypeError) as error:
        typer.echo(f"cannot serve: {error}", err=True)
        raise typer.Exit(1) from None
    for number in (signal.SIGINT, signal.SIGTERM):
        # from another thread: shutdown waits for the loop that this handler interrupts
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    typer.echo(f"{service.url}  token {TOKEN}  counters {', '.join(map(str, COUNTERS))}")
    server.serve_forever(0.1)
    server.server_close()


@app.command()
def faults(
    rule: Annotated[list[str] | None, typer.Option(help="A fault rule as JSON; repeatable.")] = None,
    clear: Annotated[bool, typer.Option(help="Forget the rules in force first.")] = False,
    port: Port = DEFAULT_PORT,
) -> None:
    """Let requests fail: see `Fault` in faults.py for the kinds."""
    try:
        rules = [json.loads(r) for r in rule or []]
    except ValueError as error:
        raise typer.BadParameter(f"not JSON: {error}") from None
    if clear:
        _ask(port, "control/clear", {})
    _ask(port, "control/faults", rules)


@app.command()
def settings(
    values: Annotated[list[str] | None, typer.Option("--set", help="NAME=value, JSON or text.")] = None,
    port: Port = DEFAULT_PORT,
) -> None:
    """Show the settings, or change them: `--set today=2026-11-20 --set parts=5`."""
    chosen = {}
    for each in values or []:
        name, sign, text = each.partition("=")
        if not sign:
            raise typer.BadParameter("expected NAME=value")
        chosen[name] = _value(text)
    typer.echo(json.dumps(_ask(port, "control/settings", chosen), indent=1, ensure_ascii=False))


@app.command()
def stats(port: Port = DEFAULT_PORT) -> None:
    """What was asked so far: calls, log requests, uploadings."""
    typer.echo(json.dumps(_ask(port, "stats", None), indent=1, ensure_ascii=False))


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise typer.BadParameter("expected a day such as 2026-11-20") from None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _ask(port: int, path: str, values: Any) -> Any:
    body = None if values is None else json.dumps(values).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", body)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        typer.echo(json.load(error)["message"], err=True)
    except OSError as error:
        typer.echo(f"no sandbox answers on port {port}: {error}", err=True)
    raise typer.Exit(1)
