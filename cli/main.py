"""The `svod` command. Commands import what they need when they run, so that `svod --help` is instant."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.formats import Format
from cli.metrika import app as metrika
from cli.mts_vats import app as vats
from cli.project import embedded_postgres, ensure_local, enter, fail, out
from cli.ttm import app as ttm
from resources.postgres import PostgresError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # they may hold a secret
    help="Company systems in one ClickHouse warehouse, loaded with Dagster.",
)
app.add_typer(metrika, name="metrika")
app.add_typer(ttm, name="ttm")
app.add_typer(vats, name="vats")


@app.command()
def env() -> None:
    """Write .env for local use; fills only what is empty."""
    filled = ensure_local(enter())
    out.print(
        f".env: filled {', '.join(filled)}" if filled else ".env: nothing to fill, everything has a value"
    )


@app.command()
def up() -> None:
    """Start the embedded PostgreSQL, so that dagster and dg commands work."""
    folder = enter()
    ensure_local(folder)
    try:
        started = embedded_postgres(folder).start()
    except PostgresError as error:
        raise fail(str(error)) from None
    out.print("PostgreSQL started." if started else "PostgreSQL is running already.")


@app.command()
def down() -> None:
    """Stop the embedded PostgreSQL."""
    try:
        stopped = embedded_postgres(enter()).stop()
    except PostgresError as error:
        raise fail(str(error)) from None
    out.print("PostgreSQL stopped." if stopped else "PostgreSQL is not running.")


@app.command()
def dev(
    port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000,
    deals: Annotated[int, typer.Option(help="Deals in the sandbox portal.")] = 20_000,
) -> None:
    """Dagster UI and daemon, embedded PostgreSQL and sandbox where .env names them; Ctrl-C stops all."""
    from cli.dev import dev as run

    run(port, deals)


@app.command()
def query(
    sql: str,
    form: Annotated[
        Format, typer.Option("--format", help="table shows the first 1000 rows, csv and json all.")
    ] = Format.table,
) -> None:
    """Run one SQL statement in the warehouse and print its rows."""
    from cli.query import query as run

    run(sql, form)


@app.command()
def demo(
    deals: Annotated[int, typer.Option(help="Deals in the sandbox portal.")] = 20_000,
    source: Annotated[
        str | None, typer.Option(help="One source only; all that are set up by default.")
    ] = None,
) -> None:
    """Load the sources into the warehouse through Dagster; run again, only what changed."""
    from cli.demo import demo as run

    run(deals, source)


@app.command()
def backfill(
    asset: Annotated[str, typer.Argument(help="Asset key, such as bitrix24/crm_deal.")],
    first: Annotated[str | None, typer.Option("--from", help="First day; the very first by default.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last day, inclusive; today by default.")] = None,
    chunk: Annotated[str, typer.Option(help="Days of one run: 90d, 4w.")] = "90d",
    force: Annotated[bool, typer.Option("--force", help="Load chunks again that are done already.")] = False,
    deals: Annotated[int, typer.Option(help="Deals in the sandbox portal.")] = 20_000,
) -> None:
    """Load a range of days in chunks; run again, it goes on where it stopped."""
    from cli.backfill import backfill as run

    run(asset, first, last, chunk, force, deals)


@app.command()
def authorize(
    code: Annotated[str, typer.Argument(help="What the portal gives after «Allow»; it lives half a minute.")],
) -> None:
    """Give the Bitrix24 application its first tokens, for settings without BITRIX24_APP_REFRESH_TOKEN."""
    from cli.authorize import authorize as run

    run(code)


@app.command()
def reconcile(
    entities: Annotated[
        list[str] | None, typer.Argument(help="Tables such as crm_deal; all that can be counted by default.")
    ] = None,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Believe a mass deletion or a loss of rights, this once.")
    ] = False,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Read all ids instead of counting them: slower, and surer.")
    ] = False,
    deals: Annotated[int, typer.Option(help="Deals in the sandbox portal.")] = 20_000,
) -> None:
    """Compare Bitrix24 with the warehouse: mark rows that are gone there, load rows that are missing here."""
    from cli.reconcile import reconcile as run

    run(entities or [], confirm, sweep, deals)


@app.command(
    "mts-link",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    help="MTS Link into JSON files: [GROUP] [EXTRACTOR] [--list] [--all] [--<parameter> VALUE …].",
)
def mts_link(context: typer.Context) -> None:
    """One method into a JSON file."""
    from cli.mts_link import run

    raise typer.Exit(run(None, context.args))


@app.command()
def doctor() -> None:
    """Check every setting and every system behind it, one line each."""
    from cli.doctor import doctor as run

    run()
