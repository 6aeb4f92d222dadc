"""Command line: one sub-command per emulated system."""

import typer

from sandbox.bitrix24.cli import app as bitrix24
from sandbox.metrika.cli import app as metrika
from sandbox.mts_link.cli import app as mts_link
from sandbox.mts_vats.cli import app as mts_vats
from sandbox.ttm.cli import app as ttm

app = typer.Typer(
    help="Emulators of source systems on loopback: try the loaders without credentials.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(bitrix24, name="bitrix24")
app.add_typer(metrika, name="metrika")
app.add_typer(mts_link, name="mts_link")
app.add_typer(mts_vats, name="mts_vats")
app.add_typer(ttm, name="ttm")


@app.callback()
def main() -> None:
    """Emulators of source systems on loopback: try the loaders without credentials."""
