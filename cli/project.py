"""Where the project is, and its settings as every command sees them."""

from __future__ import annotations

import os
import re
import shlex
import sys
from base64 import urlsafe_b64encode
from pathlib import Path

import typer
from dotenv import dotenv_values
from rich.console import Console

from cli import local
from resources.postgres import OPERATIONS, EmbeddedPostgres

MARK = "workspace.yaml"

out = Console(width=None if sys.stdout.isatty() else 120)  # a file or a pipe has no width of its own
err = Console(stderr=True)


def fail(text: str) -> typer.Exit:
    """Print one line and give what ends the command with status 1: `raise fail("…")`."""
    err.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
    return typer.Exit(1)


def root() -> Path:
    """The project's folder: the nearest one upwards with a workspace.yaml, else this file's own."""
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[1]):
        if (folder / MARK).exists():
            return folder
    raise fail(f"No {MARK} in this folder or above it: run the command in the project's folder.")


def enter() -> Path:
    """Work in the project's folder, with `.env` in the environment; its values win, as in `dg`."""
    folder = root()
    os.chdir(folder)
    os.environ.update({name: value for name, value in dotenv_values(folder / ".env").items() if value})
    local.take_defaults()
    return folder


def embedded_postgres(folder: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(folder / ".data" / "postgres")


def local_settings(folder: Path) -> dict[str, str]:
    """What an empty setting becomes on one machine without servers."""
    return {
        **local.local_settings(),
        "CLICKHOUSE_URL": f"chdb://{folder / '.data' / 'warehouse'}",
        "DAGSTER_POSTGRES_URL": embedded_postgres(folder).url,
        "SVOD_POSTGRES_URL": embedded_postgres(folder).url_of(OPERATIONS),
        "DAGSTER_HOME": str(folder / ".dagster_home"),
        "SVOD_STATE_DIR": str(folder / ".data"),
        "SCORING_ENCRYPTION_KEY": urlsafe_b64encode(os.urandom(32)).decode(),
    }


def ensure_local(folder: Path) -> list[str]:
    """Have `.env`, DAGSTER_HOME and `.data` for local use. Returns the settings that were filled.

    A setting with a value, in `.env` or in the environment, is left as it is.
    """
    (folder / ".data").mkdir(exist_ok=True)
    path = folder / ".env"
    text = path.read_text() if path.exists() else (folder / ".env.example").read_text()
    present = dotenv_values(path) if path.exists() else {}
    missing = {
        n: v for n, v in local_settings(folder).items() if not present.get(n) and not os.environ.get(n)
    }
    for name, value in missing.items():
        text = _with_setting(text, name, value)
    if missing or not path.exists():
        _write_private(path, text)
    home = folder / ".dagster_home"
    if (os.environ.get("DAGSTER_HOME") or str(home)) == str(home) and not (home / "dagster.yaml").exists():
        home.mkdir(exist_ok=True)
        (home / "dagster.yaml").symlink_to(Path("..") / "dagster.yaml")
    os.environ.update(missing)
    local.take_defaults()
    return list(missing)


def _with_setting(text: str, name: str, value: str) -> str:
    quoted = shlex.quote(value) if re.search(r"[\s#$]", value) else value
    line = f"{name}={quoted}"
    empty = re.compile(rf"^{name}=[ \t]*(''|\"\")?[ \t]*$", re.MULTILINE)
    if empty.search(text):
        return empty.sub(lambda _: line, text)
    return f"{text.rstrip()}\n{line}\n"


def _write_private(path: Path, text: str) -> None:
    """Replace the file in one step, readable by its owner only: a webhook is a password."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)
