"""`svod ttm`: what the rules of the SLA say of a ticket, without a ticket system or a database."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, is_dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer

from cli.project import fail

app = typer.Typer(help="Trouble tickets.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Trouble tickets."""


@app.command()
def analyse(
    file: Annotated[Path, typer.Argument(help="JSON file with a ticket or a list of tickets; - for stdin.")],
    day: Annotated[str | None, typer.Option(help="Business day, YYYY-MM-DD: is there a row for it?")] = None,
    business_tz: Annotated[str, typer.Option(help="Zone of days.")] = "Europe/Moscow",
    source_tz: Annotated[str, typer.Option(help="Zone of stamps without one.")] = "UTC",
) -> None:
    """Print what follows from tickets, one JSON object a line: analysis, rows, warnings.

    A ticket that is none gives a line with `error`, and status 1 in the end.
    """
    from resources.ttm.analysis import MalformedTicket, examine
    from resources.ttm.values import Calendar

    try:
        calendar = Calendar(ZoneInfo(business_tz), ZoneInfo(source_tz))
        wanted = date.fromisoformat(day) if day else None
    except (ValueError, OSError, KeyError):  # an unknown zone is a KeyError
        raise fail("Give a day such as 2026-11-20 and zones such as Europe/Moscow.") from None
    malformed = 0
    for ticket in _tickets(file):
        try:
            line = record(examine(ticket, calendar, wanted))
        except MalformedTicket as error:
            malformed, line = malformed + 1, {"error": str(error)}
        print(json.dumps(line, ensure_ascii=False))
    if malformed:
        raise typer.Exit(1)


def _tickets(file: Path) -> list[Any]:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        found = json.loads(text)
    except OSError as error:
        raise fail(f"{file} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise fail(f"{file} is not JSON.") from None
    return found if isinstance(found, list) else [found]


def record(verdict: Any) -> dict[str, Any]:
    """A verdict as JSON values; instants in UTC with `Z`."""
    return {
        "analysis": {**_plain(verdict.analysis), "result": verdict.analysis.result},
        "in_window": verdict.in_window,
        "arrears_row": _plain(verdict.arrears_row),
        "suspended_row": _plain(verdict.suspended_row),
        "warnings": list(verdict.warnings),
    }


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(each) for name, each in asdict(value).items()}
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return value.isoformat() if isinstance(value, date) else value
