"""`python -m sandbox bitrix24 ...`: serve a portal, or change one that is running."""

import asyncio
import json
import signal
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sandbox.bitrix24.config import PortalConfig
from sandbox.bitrix24.portal import Portal
from sandbox.bitrix24.server import run_portal
from sandbox.control import call, pairs

DEFAULT_PORT = 8024

app = typer.Typer(
    help="Emulated Bitrix24 portal. `serve` runs it, the other commands change a running one.",
    no_args_is_help=True,
)

Entity = Annotated[
    str, typer.Argument(help="deal, lead, contact, company, quote, smart_invoice, activity or 177.")
]
Port = Annotated[int, typer.Option(help="Port of the running portal.", envvar="SANDBOX_BITRIX24_PORT")]
Values = Annotated[
    list[str] | None, typer.Option("--set", help="FIELD=value with classic UPPER names; repeatable.")
]
Ids = Annotated[list[int], typer.Argument(help="Row ids.")]


def _rate(text: str) -> tuple[float, float] | None:
    if text == "off":
        return None
    threshold, _, drain = text.partition("/")
    try:
        return float(threshold), float(drain)
    except ValueError:
        raise typer.BadParameter("expected X/Y such as 50/2, or off") from None


def _per_second(text: str) -> float:
    try:
        return float(text.removesuffix("/s"))
    except ValueError:
        raise typer.BadParameter("expected a rate such as 5/s") from None


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = DEFAULT_PORT,
    host: Annotated[str, typer.Option(help="Loopback address.")] = "127.0.0.1",
    deals: Annotated[int, typer.Option(help="Deals.")] = 20_000,
    leads: Annotated[int, typer.Option(help="Leads.")] = 3_000,
    contacts: Annotated[int, typer.Option(help="Contacts.")] = 8_000,
    companies: Annotated[int, typer.Option(help="Companies.")] = 2_000,
    quotes: Annotated[int, typer.Option(help="Quotes.")] = 500,
    invoices: Annotated[int, typer.Option(help="Smart invoices.")] = 800,
    process_items: Annotated[int, typer.Option(help="Rows of each default smart process.")] = 600,
    activities: Annotated[int, typer.Option(help="Activities.")] = 5_000,
    users: Annotated[int, typer.Option(help="Users.")] = 60,
    gaps: Annotated[float, typer.Option(help="Share of missing ids.", min=0, max=0.99)] = 0.03,
    seed: Annotated[int, typer.Option(help="Same seed, same data.")] = 1,
    user_fields: Annotated[bool, typer.Option(help="Add user fields of every kind.")] = True,
    webhook_code: Annotated[str, typer.Option(help="Secret part of the webhook.")] = "sandbox0secret",
    rate: Annotated[
        str, typer.Option(help="Leaky bucket X/Y (block above X, drain Y per second), or off.")
    ] = "50/2",
    operating: Annotated[
        str, typer.Option(help="Accounting: nested, batch, first-entry or absent.")
    ] = "nested",
    latency: Annotated[float, typer.Option(help="Real seconds added to every request.", min=0)] = 0.0,
    clock_start: Annotated[float | None, typer.Option(help="Unix seconds of a virtual clock.")] = None,
    clock_factor: Annotated[float, typer.Option(help="Virtual seconds per real second.", min=0)] = 1.0,
    mutate: Annotated[str, typer.Option(help="Random changes of deals, such as 5/s.")] = "0/s",
    cache_pages: Annotated[int, typer.Option(help="Rendered pages kept (for benchmarks).", min=0)] = 0,
    faults: Annotated[
        Path | None, typer.Option(help="JSON file with a list of fault rules.", exists=True)
    ] = None,
) -> None:
    """Run a portal until Ctrl-C; prints the webhook URL when it is ready."""
    if operating not in ("nested", "batch", "first-entry", "absent"):
        raise typer.BadParameter("--operating is nested, batch, first-entry or absent")
    config = PortalConfig(
        seed=seed,
        deals=deals,
        leads=leads,
        contacts=contacts,
        companies=companies,
        quotes=quotes,
        invoices=invoices,
        process_items=process_items,
        activities=activities,
        users=users,
        gaps=gaps,
        user_fields=user_fields,
        webhook_code=webhook_code,
        rate_limit=_rate(rate),
        operating_mode=operating,
        latency=latency,
        clock_start=clock_start,
        clock_factor=clock_factor,
        mutations_per_second=_per_second(mutate),
        cache_pages=cache_pages,
    )
    portal = Portal(config)
    if faults is not None:
        portal.faults.load(json.loads(faults.read_text(encoding="utf-8")))
    try:
        asyncio.run(_serve_until_signal(portal, host, port))
    except (OSError, ValueError) as error:
        typer.echo(f"cannot serve: {error}", err=True)
        raise typer.Exit(1) from None


async def _serve_until_signal(portal: Portal, host: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run_portal(portal, stop, host=host, port=port, ready=lambda: typer.echo(portal.webhook_url))


_call = partial(call, "portal")
_pairs = partial(pairs, name="FIELD")


@app.command()
def create(entity: Entity, values: Values = None, count: int = 1, port: Port = DEFAULT_PORT) -> None:
    """Add rows."""
    _call(port, "control/create", {"entity": entity, "values": _pairs(values), "count": count})


@app.command()
def change(
    entity: Entity,
    row_id: Annotated[int, typer.Argument(help="Row id.")],
    values: Values = None,
    silent: Annotated[bool, typer.Option(help="Keep the modification time.")] = False,
    port: Port = DEFAULT_PORT,
) -> None:
    """Change columns of a row."""
    _call(
        port, "control/change", {"entity": entity, "id": row_id, "values": _pairs(values), "silent": silent}
    )


@app.command()
def delete(entity: Entity, ids: Ids, port: Port = DEFAULT_PORT) -> None:
    """Move rows to the recycle bin."""
    _call(port, "control/delete", {"entity": entity, "ids": ids})


@app.command()
def restore(
    entity: Entity,
    ids: Ids,
    new_id: Annotated[bool, typer.Option(help="The row comes back under a new id.")] = False,
    port: Port = DEFAULT_PORT,
) -> None:
    """Take rows back from the recycle bin."""
    _call(port, "control/restore", {"entity": entity, "ids": ids, "new_id": new_id})


@app.command()
def purge(port: Port = DEFAULT_PORT) -> None:
    """Empty the recycle bin."""
    _call(port, "control/purge")


@app.command()
def hide(
    entity: Entity,
    ids: Annotated[list[int] | None, typer.Argument(help="All rows if none.")] = None,
    port: Port = DEFAULT_PORT,
) -> None:
    """Take away the right to see rows: they vanish without deletion."""
    _call(port, "control/hide", {"entity": entity, "ids": ids})


@app.command()
def unhide(
    entity: Entity,
    ids: Annotated[list[int] | None, typer.Argument(help="All rows if none.")] = None,
    port: Port = DEFAULT_PORT,
) -> None:
    """Give the right back."""
    _call(port, "control/unhide", {"entity": entity, "ids": ids})


@app.command()
def mutate(count: int = 10, entity: str = "deal", port: Port = DEFAULT_PORT) -> None:
    """Apply random inserts, updates and deletes."""
    _call(port, "control/mutate", {"count": count, "entity": entity})


@app.command("add-field")
def add_field(
    entity: Entity,
    code: Annotated[str, typer.Argument(help="Code such as COLOUR; becomes UF_CRM_COLOUR.")],
    kind: Annotated[
        str, typer.Option(help="string, integer, double, date, datetime, boolean, enumeration, money...")
    ] = "string",
    title: str = "",
    multiple: bool = False,
    fill: Annotated[bool, typer.Option(help="Give old rows values; their modification time stays.")] = False,
    value: Annotated[list[str] | None, typer.Option(help="Option of an enumeration; repeatable.")] = None,
    port: Port = DEFAULT_PORT,
) -> None:
    """Create a user field."""
    body = {"entity": entity, "code": code, "kind": kind, "title": title, "multiple": multiple, "fill": fill}
    _call(port, "control/add-field", body | ({"values": value} if value else {}))


@app.command("delete-field")
def delete_field(entity: Entity, name: str, port: Port = DEFAULT_PORT) -> None:
    """Remove a user field."""
    _call(port, "control/delete-field", {"entity": entity, "name": name})


@app.command("add-process")
def add_process(
    title: str,
    type_id: Annotated[int | None, typer.Option(help="entityTypeId; a free one if not given.")] = None,
    items: Annotated[int, typer.Option(help="Generated rows.")] = 0,
    port: Port = DEFAULT_PORT,
) -> None:
    """Create a smart process."""
    _call(port, "control/add-process", {"title": title, "type_id": type_id, "items": items})


@app.command("update-process")
def update_process(type_id: int, values: Values = None, port: Port = DEFAULT_PORT) -> None:
    """Change a smart process: --set title=... --set isSourceEnabled=Y."""
    _call(port, "control/update-process", {"type_id": type_id, "changes": _pairs(values)})


@app.command("delete-process")
def delete_process(type_id: int, port: Port = DEFAULT_PORT) -> None:
    """Remove a smart process that has no items."""
    _call(port, "control/delete-process", {"type_id": type_id})


@app.command()
def faults(
    file: Annotated[
        Path | None, typer.Option(help="JSON file with a list of rules to add.", exists=True)
    ] = None,
    rule: Annotated[
        list[str] | None, typer.Option(help='Rule such as \'{"action": "reset", "request": 3}\'.')
    ] = None,
    clear: Annotated[bool, typer.Option(help="Drop the present rules first.")] = False,
    port: Port = DEFAULT_PORT,
) -> None:
    """Show, add or clear fault rules."""
    rules = json.loads(file.read_text(encoding="utf-8")) if file else []
    rules += [json.loads(text) for text in rule or ()]
    _call(port, "control/faults", {"add": rules, "clear": clear})


@app.command()
def settings(values: Values = None, port: Port = DEFAULT_PORT) -> None:
    """Show settings, or change some: --set latency=0.2 --set rate_limit=[250,5]."""
    _call(port, "control/settings", _pairs(values))


@app.command("advance-clock")
def advance_clock(
    seconds: Annotated[float, typer.Argument(help="How far to move.")],
    factor: Annotated[float | None, typer.Option(help="New virtual seconds per real second.")] = None,
    port: Port = DEFAULT_PORT,
) -> None:
    """Move the portal clock forward."""
    _call(port, "control/clock", {"advance": seconds, "factor": factor})


@app.command("issue-token")
def issue_token(port: Port = DEFAULT_PORT) -> None:
    """Issue an OAuth token pair of the invented application."""
    _call(port, "control/issue-token")


@app.command("expire-token")
def expire_token(
    refresh: Annotated[bool, typer.Option(help="Also revoke refresh tokens.")] = False,
    port: Port = DEFAULT_PORT,
) -> None:
    """Expire access tokens now."""
    _call(port, "control/expire-token", {"refresh": refresh})


@app.command()
def stats(port: Port = DEFAULT_PORT) -> None:
    """Requests, rows, refusals, operating seconds."""
    _call(port, "stats")


@app.command()
def counts(port: Port = DEFAULT_PORT) -> None:
    """Live rows of each entity touched so far."""
    _call(port, "control/counts")


@app.command("reset-stats")
def reset_stats(port: Port = DEFAULT_PORT) -> None:
    """Start counting anew."""
    _call(port, "control/reset-stats")


@app.command("reset-limits")
def reset_limits(port: Port = DEFAULT_PORT) -> None:
    """Forget bucket levels and operating budgets."""
    _call(port, "control/reset-limits")
