"""`svod metrika models`, `trust` and `promote`."""

from __future__ import annotations

import os
from pathlib import Path

from rich.table import Table

from cli.project import enter, fail, out
from resources.metrika.features import DEVICES
from resources.metrika.models import ModelError
from resources.metrika.models_directory import SUFFIXES, ModelsDirectory


def enter_with_models() -> Path:
    """Work in the project's folder, with the models of the folder in which the command was given, if any.

    There the old script looked: in ML/, then beside itself. METRIKA_MODELS_DIR is stronger.
    """
    here = Path.cwd()
    project = enter()
    if here != project and not os.environ.get("METRIKA_MODELS_DIR"):
        for folder in (here / "ML", here / "ml", here):
            if any(folder.glob(f"level4_*{suffix}") for suffix in SUFFIXES):
                os.environ["METRIKA_MODELS_DIR"] = str(folder)
                break
    return project


def directory() -> ModelsDirectory:
    """The models of the settings."""
    names = ("METRIKA_MODELS_DIR", "METRIKA_MODELS_MANIFEST", "SVOD_STATE_DIR")
    return ModelsDirectory.at(*(os.environ.get(name) or None for name in names))


def models() -> None:
    """One line a device: the file that is used, its threshold, whether it can be read."""
    enter_with_models()
    found = directory()
    table = Table("device", "file", "threshold", "state")
    try:
        versions, current = found.versions(), found.current()
        for name in DEVICES.values():
            file, state = found.file(name), "ready"
            try:
                found.load(name)
            except ModelError as error:
                state = error.description or "cannot be read"
            table.add_row(name, str(file[0]) if file else "—", f"{found.threshold(name):g}", state)
    except ModelError as error:
        raise fail(error.description or "The models cannot be read.") from None
    out.print(table)
    for version in versions:
        out.print(f"{version}{'  in use' if version == current else ''}", highlight=False)


def trust(file: Path) -> None:
    """Add the file's sha256 to the manifest."""
    enter_with_models()
    try:
        total = directory().trust(file)
    except ModelError as error:
        raise fail(error.description or "The file cannot be read.") from None
    out.print(f"{total}  {file.name} is trusted.", highlight=False, soft_wrap=True)


def promote(version: str | None, given: bool) -> None:
    """Point at a version, or at the given models."""
    enter()
    if given == (version is not None):
        raise fail("Give a version, or --given: `svod metrika models` lists the versions.")
    try:
        directory().promote(version)
    except ModelError as error:
        raise fail(error.description or "It cannot be promoted.") from None
    out.print(f"In use: {version or 'the given models'}.", highlight=False)
