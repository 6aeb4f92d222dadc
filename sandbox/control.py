"""What the command lines share: changing an emulator that is running."""

import json
import urllib.error
import urllib.request
from typing import Any

import typer

_TIMEOUT_S = 60


def call(what: str, port: int, operation: str, body: dict[str, Any] | None = None) -> None:
    """Send one operation to `what`, a portal say, and print its answer; status 1 if there is none."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/{operation}",
        json.dumps(body or {}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        typer.echo(json.load(error).get("error", "refused"), err=True)
        raise typer.Exit(1) from None
    except urllib.error.URLError:
        typer.echo(f"no {what} answers on port {port}: start it with `serve`", err=True)
        raise typer.Exit(1) from None
    typer.echo(json.dumps(answer, ensure_ascii=False, indent=2))


def pairs(values: list[str] | None, name: str = "name") -> dict[str, Any]:
    """`NAME=value` arguments; a value that parses as JSON is taken as JSON. The help calls NAME `name`."""
    result: dict[str, Any] = {}
    for item in values or ():
        key, separator, text = item.partition("=")
        if not separator:
            raise typer.BadParameter(f"expected {name}=value, got {item!r}")
        try:
            result[key] = json.loads(text)
        except json.JSONDecodeError:
            result[key] = text
    return result
