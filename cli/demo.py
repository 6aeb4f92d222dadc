"""`svod demo`: load the sources once through Dagster and show what came, in one command."""

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
from cli.local import SANDBOXES, Sandbox
from cli.project import ensure_local, enter, fail, out
from cli.query import warehouse
from cli.runs import Outcome, follow
from cli.services import Interrupted, local_systems, postgres, stop_signals

LOADED = """SELECT asset, kind, rows, rejected, requests, duration_s FROM svod.load_log
WHERE run_id = {run:String} ORDER BY finished_at"""
SKIPPED = {"archived", "svod/by_hand"}  # tags of assets that only an explicit wish loads
NEXT = """Look at it:  [bold]svod query "SHOW TABLES FROM bi"[/]
Browse it:   [bold]make dev[/], then http://localhost:3000"""


def demo(deals: int, source: str | None) -> None:
    """Everything of a source, or of all, into the warehouse: the first time all of it, then what changed."""
    folder = enter()
    ensure_local(folder)
    if source and source not in {s.source for s in SANDBOXES}:
        raise fail(f"There is no source {source}: {', '.join(s.source for s in SANDBOXES)}.")
    chosen = [s for s in SANDBOXES if s.source == source or (source is None and s.configured)]
    try:
        with stop_signals(), postgres(folder), local_systems(deals, {s.source for s in chosen}):
            complete = [_load(folder, each) for each in chosen]
    except Interrupted:
        raise fail(
            "Stopped. Run the command again: what is loaded stays, the rest goes on from there."
        ) from None
    if not all(complete):
        raise fail("Not everything was loaded; the reasons are above.")
    out.print(NEXT)


def _load(folder: Path, source: Sandbox) -> bool:
    """One run for each way in which the source's assets are partitioned."""
    if source.source == "bitrix24":
        with out.status("Asking the portal for its smart processes"):
            _refresh_smart_processes(folder)
    with dg.DagsterInstance.get() as instance:
        complete = [
            _print_loaded(
                request.run_id, follow(request, instance, f"{source.source}, {len(request.assets)} assets")
            )
            for request in _requests(source)
        ]
    return all(complete)


def _requests(source: Sandbox) -> list[Request]:
    graph = definitions().resolve_asset_graph()
    runs: dict[dg.PartitionsDefinition[str] | None, list[str]] = {}
    for key in sorted(dg.AssetSelection.groups(source.source).materializable().resolve(graph)):
        node = graph.get(key)
        if not SKIPPED & set(node.tags):
            runs.setdefault(node.partitions_def, []).append(key.to_user_string())
    windows = [d for d in runs if isinstance(d, dg.TimeWindowPartitionsDefinition)]
    if not windows:  # snapshots only
        return [Request(str(uuid.uuid4()), runs[None], feed=True)]
    runs[windows[0]] += runs.pop(None, [])
    requests = []
    for definition in windows:
        days = definition.get_partition_keys()[-source.days :]
        requests.append(Request(str(uuid.uuid4()), runs[definition], days[0], days[-1], feed=True))
    return requests


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
