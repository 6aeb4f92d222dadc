"""`svod metrika`: the old command line of the level 4+ scoring, and its models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # they may hold a token
    help="Yandex.Metrika: score visits, choose models.",
)


@app.command()
def score(
    date: Annotated[str, typer.Option(help="Day in the counter's zone, such as 2026-11-20.")],
    token: Annotated[str, typer.Option(help="OAuth token; METRIKA_TOKEN by default.")] = "",
    counter: Annotated[
        int | None, typer.Option(help="Counter; METRIKA_COUNTERS or METRIKA_COUNTER by default.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for level4_visits_<DATE>.json.")] = Path(),
) -> None:
    """Load a day, select its visits of level 4 or higher, write level4_visits_<DATE>.json."""
    from cli.metrika_score import score as run

    run(date, token, counter, out.resolve())


@app.command("score-files")
def score_files(
    visits: Annotated[list[Path], typer.Option(help="A part of the log of visits; repeatable, in order.")],
    hits: Annotated[list[Path], typer.Option(help="A part of the log of hits; repeatable.")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("level4_visits.json"),
) -> None:
    """Select visits of level 4 or higher from downloaded logs of one day; nothing is stored."""
    from cli.metrika_score import score_files as run

    run([p.resolve() for p in visits], [p.resolve() for p in hits], out.resolve())


@app.command()
def models() -> None:
    """Show which models are used, and the trained versions."""
    from cli.metrika_models import models as run

    run()


@app.command()
def trust(
    file: Annotated[Path, typer.Argument(help="A model that was pickled, such as ml/level4_mobile.joblib.")],
) -> None:
    """List a pickled model as trusted: reading it runs the code that is in it."""
    from cli.metrika_models import trust as run

    run(file.resolve())


@app.command()
def promote(
    version: Annotated[str | None, typer.Argument(help="A version that `svod metrika models` lists.")] = None,
    given: Annotated[bool, typer.Option("--given", help="Use the given models again.")] = False,
) -> None:
    """Use a trained version of the models from now on."""
    from cli.metrika_models import promote as run

    run(version, given)
