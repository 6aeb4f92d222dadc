"""Where models live: the old script's file names, a manifest of trusted pickles, thresholds, versions.

A folder holds:

    ml/level4_desktop_slot.joblib      a model that was given; the old names and their order
    ml/level4_thresholds.json          {"desktop": 0.48, "mobile": 0.36}
    ml/models.sha256                   the pickles that may be read, as `sha256sum` writes them
    ml/versions/20261121T093000-1a2b/  a trained version: models, thresholds, manifest, training.json
    ml/current                         the name of the version in use; without it, the given models are
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resources.metrika.models import SAFE, Model, ModelError, digest, read_model

STEMS = ("level4_{}_slot_enhanced", "level4_{}_slot", "level4_{}")
SUFFIXES = (SAFE, ".joblib")
THRESHOLDS_FILE = "level4_thresholds.json"
THRESHOLDS: Mapping[str, float] = {"desktop": 0.48, "mobile": 0.36}
UNNAMED_THRESHOLD = 0.5  # of a model that the thresholds file does not name
MANIFEST = "models.sha256"
VERSIONS, CURRENT, ABOUT = "versions", "current", "training.json"
OLD_FOLDERS = (Path("ML"), Path("ml"), Path())  # where the old script, and its repository, kept them
_LINE = re.compile(r"(?P<sum>[0-9a-fA-F]{64}) [ *](?P<name>.+)")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,79}")


@dataclass(frozen=True, slots=True)
class Chosen:
    """A model with its threshold: a visit is selected when its probability is greater."""

    name: str
    model: Model
    threshold: float
    version: str | None

    @property
    def label(self) -> str:
        """Names the model in the warehouse: the trained version or the file, and the sum of its content."""
        return f"{self.version or self.model.file.name}@{self.model.version}"


@dataclass(frozen=True, slots=True)
class ModelsDirectory:
    """The folders that are searched for models, in order; trained versions are kept in the first.

    `manifest` is the one file that lists trusted pickles; by default each folder has its own.
    """

    folders: tuple[Path, ...]
    manifest: Path | None = None

    @classmethod
    def at(
        cls, folder: str | None, manifest: str | None = None, state_dir: str | None = None
    ) -> ModelsDirectory:
        """The folder of METRIKA_MODELS_DIR.

        Without it trained versions are in the state directory, and given models, as of old, in ML/, ml/ or
        the working folder.
        """
        own = Path(manifest) if manifest else None
        if folder:
            return cls((Path(folder),), own)
        state = (Path(state_dir, "metrika_models"),) if state_dir else ()
        old = tuple(f for f in OLD_FOLDERS if _as_spelt(f))
        # versions never go into the working folder itself
        return cls((*state, *old) if state or len(old) > 1 else (Path("ml"), *old), own)

    @property
    def home(self) -> Path:
        return self.folders[0]

    # Finding

    def current(self) -> str | None:
        """The version in use; None if the given models are."""
        try:
            version = (self.home / CURRENT).read_text().strip()
        except FileNotFoundError:
            return None
        if not _VERSION.fullmatch(version):
            raise ModelError(f"{self.home / CURRENT} does not name a version.")
        if not (self.home / VERSIONS / version).is_dir():
            raise ModelError(
                f"The version in use, {version}, is not in {self.home / VERSIONS}: promote another."
            )
        return version

    def _searched(self) -> list[tuple[Path, str | None]]:
        """(folder, version) in the order of search."""
        version = self.current()
        own = [(self.home / VERSIONS / version, version)] if version else []
        return [*own, *((folder, None) for folder in self.folders)]

    def file(self, name: str) -> tuple[Path, str | None] | None:
        """The file of the model `name`, and its version if it is a trained one; None if there is none."""
        for folder, version in self._searched():
            for stem in STEMS:
                for suffix in SUFFIXES:
                    if (path := folder / f"{stem.format(name)}{suffix}").is_file():
                        return path, version
        return None

    @property
    def empty(self) -> bool:
        """Whether there is no model at all."""
        return not any(self.file(name) for name in THRESHOLDS)

    def load(self, name: str) -> Chosen:
        """The model `name` with its threshold; ModelError if it is missing, not trusted or no classifier."""
        found = self.file(name)
        if found is None:
            names = ", ".join(f"{stem.format(name)}{suffix}" for stem in STEMS for suffix in SUFFIXES)
            raise ModelError(
                f"There is no {name} model in {', '.join(f'{f}/' for f in self.folders)}: put one there "
                f"({names}), set METRIKA_MODELS_DIR, or train one (asset metrika/level4_models)."
            )
        path, version = found
        return Chosen(name, read_model(path, self.trusted()), self.threshold(name), version)

    def threshold(self, name: str) -> float:
        """From the first thresholds file, 0.5 where it does not name the model; the default without one."""
        for folder, version in self._searched():
            values = read_thresholds(folder / THRESHOLDS_FILE)
            if values is None or (version and name not in values):
                continue  # a version speaks only of what it trained
            return values.get(name, UNNAMED_THRESHOLD)
        return THRESHOLDS.get(name, UNNAMED_THRESHOLD)

    # Trust

    def trusted(self) -> frozenset[str]:
        """The sha256 sums of the pickles that may be read."""
        files = [self.manifest] if self.manifest else [f / MANIFEST for f, _ in self._searched()]
        return frozenset(total for file in files for total in read_manifest(file))

    def trust(self, file: Path) -> str:
        """List a pickle as trusted; its sha256."""
        try:
            total = digest(file.read_bytes())
        except OSError as error:
            raise ModelError(f"{file} cannot be read: {error.strerror or type(error).__name__}.") from None
        manifest = self.manifest or self._folder_of(file) / MANIFEST
        if total not in read_manifest(manifest):
            try:
                with manifest.open("a+b") as out:
                    at_line = out.tell() == 0 or manifest.read_bytes().endswith(b"\n")
                    out.write(f"{'' if at_line else chr(10)}{total}  {file.name}\n".encode())
            except OSError as error:
                raise ModelError(
                    f"{manifest} cannot be written: {error.strerror}. "
                    "METRIKA_MODELS_MANIFEST may name another file."
                ) from None
        return total

    def _folder_of(self, file: Path) -> Path:
        """The searched folder that the file is in; the first one for a file from elsewhere."""
        here = file.resolve().parent
        return next((f for f, _ in self._searched() if f.resolve() == here), self.home)

    # Versions

    def versions(self) -> list[str]:
        """Names of the trained versions, oldest first."""
        folder = self.home / VERSIONS
        return (
            sorted(p.name for p in folder.iterdir() if _VERSION.fullmatch(p.name)) if folder.is_dir() else []
        )

    def add_version(self, version: str, files: Mapping[str, bytes], about: Mapping[str, Any]) -> Path:
        """Keep a trained version, whole or not at all. `files` are models by file name, and thresholds."""
        target = self.home / VERSIONS / version
        fresh = target.with_name(f".{version}.new")
        sums = "".join(f"{digest(content)}  {name}\n" for name, content in sorted(files.items()))
        told = json.dumps(about, indent=2, ensure_ascii=False, sort_keys=True)
        try:
            fresh.mkdir(parents=True)
            for name, content in {**files, MANIFEST: sums.encode(), ABOUT: told.encode()}.items():
                (fresh / name).write_bytes(content)
            fresh.rename(target)
        except OSError as error:
            raise ModelError(
                f"{target} cannot be written: {error.strerror or type(error).__name__}."
            ) from None
        return target

    def promote(self, version: str | None) -> None:
        """Use a trained version from now on; None: the given models again."""
        pointer = self.home / CURRENT
        if version is None:
            with suppress(FileNotFoundError):
                pointer.unlink()
            return
        if version not in self.versions():
            known = ", ".join(self.versions()) or "none"
            raise ModelError(
                f"There is no version {version!r} in {self.home / VERSIONS}; there are: {known}."
            )
        fresh = pointer.with_name(f".{CURRENT}.new")
        fresh.write_text(f"{version}\n")
        os.replace(fresh, pointer)


def _as_spelt(folder: Path) -> bool:
    """Whether a folder of exactly this name is there, also where the disk does not tell ML from ml."""
    return folder == Path() or (folder.is_dir() and folder.name in os.listdir(folder.parent))


def read_manifest(file: Path) -> set[str]:
    """sha256 sums of a file such as `sha256sum` writes; none if there is no file."""
    try:
        lines = file.read_text().splitlines()
    except FileNotFoundError:
        return set()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"The manifest {file} cannot be read: {type(error).__name__}.") from None
    sums = set()
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line.rstrip())
        if not found:
            raise ModelError(f"{file}, line {number}: not a sha256 sum, two spaces and a file name.")
        sums.add(found["sum"].lower())
    return sums


def read_thresholds(file: Path) -> dict[str, float] | None:
    """name -> threshold; None if there is no file. ModelError for what is no JSON object of numbers."""
    try:
        values = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"The thresholds {file} are no JSON: {type(error).__name__}.") from None
    if not isinstance(values, dict):
        raise ModelError(f'The thresholds {file} must be a JSON object such as {{"desktop": 0.48}}.')
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ModelError(f"The threshold {name!r} in {file} must be a number from 0 to 1.")
    return {name: float(value) for name, value in values.items()}
