"""`svod demo`: load a portal once through Dagster and show what came, in one command."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import dagster as dg
from rich.markup import escape
from rich.table import Column, Table

from cli.load import Request, definitions
from cli.project import ensure_local, enter, fail, out
from cli.query import warehouse
from cli.runs import Outcome, follow
from cli.services import Interrupted, postgres, sandbox, stop_signals

LOADED = """SELECT asset, kind, rows, rejected, requests, duration_s FROM svod.load_log
WHERE run_id = {run:String} ORDER BY finished_at"""
NEXT = """Look at it:  [bold]svod query "SELECT * FROM bi.crm_deal LIMIT 5"[/]
Browse it:   [bold]make dev[/], then http://localhost:3000"""


def demo(deals: int, group: str) -> None:
    """Everything of one source into the warehouse: all of it the first time, what changed after that."""
    folder = enter()
    ensure_local(folder)
    try:
        with stop_signals(), postgres(folder), sandbox(deals):
            outcome, run_id = _load(folder, group)
            complete = _print_loaded(run_id, outcome)
    except Interrupted:
        raise fail(
            "Stopped. Run the command again: what is loaded stays, the rest goes on from there."
        ) from None
    if not complete:
        raise fail("Not everything was loaded; the reasons are above.")
    out.print(NEXT)


def _load(folder: Path, group: str) -> tuple[Outcome, str]:
    with out.status("Asking the portal for its smart processes"):
        _refresh_smart_processes(folder)
    with dg.DagsterInstance.get() as instance:
        graph = definitions().resolve_asset_graph()
        keys = sorted(dg.AssetSelection.groups(group).materializable().resolve(graph))
        keys = [key for key in keys if "archived" not in graph.get(key).tags]
        days = [
            d
            for key in keys
            if isinstance(d := graph.get(key).partitions_def, dg.TimeWindowPartitionsDefinition)
        ]
        today = days[0].get_last_partition_key() if days else None
        if not keys or not today:
            raise fail(f"There are no assets of the group {group}.")
        request = Request(str(uuid.uuid4()), [key.to_user_string() for key in keys], today, today, feed=True)
        return follow(request, instance, f"{len(keys)} assets"), request.run_id


def _refresh_smart_processes(folder: Path) -> None:
    """Dagster's own command; what it cannot read now, the run itself reports."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("dg")), "utils", "refresh-defs-state"],
        cwd=folder,
        env=dict(os.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        out.print("[yellow]The portal's smart processes could not be read; the rest is loaded.[/]")


def _print_loaded(run_id: str, outcome: Outcome) -> bool:
    if outcome.said:
        out.print(outcome.said, markup=False)
        return False
    rows = warehouse().query(LOADED, {"run": run_id})
    table = Table(
        Column("asset", no_wrap=True), "load", *("rows", "rejected", "requests", "seconds", "rows/s")
    )
    for column in table.columns[2:]:
        column.justify = "right"
    for asset, kind, count, rejected, requests, seconds in rows:
        speed = f"{count / seconds:,.0f}" if count and seconds else ""
        table.add_row(asset, kind, f"{count:,}", f"{rejected:,}", f"{requests:,}", f"{seconds:.2f}", speed)
    for asset in outcome.failures:
        table.add_row(f"[red]{escape(asset)}[/]", "[red]failed[/]", *[""] * 5)
    total, requests = sum(r[2] for r in rows), sum(r[4] for r in rows)
    table.add_section()
    table.add_row("all", "", f"{total:,}", "", f"{requests:,}", f"{sum(r[5] for r in rows):.2f}", "")
    out.print(table)
    return outcome.success
