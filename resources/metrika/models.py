"""A trained classifier: read from a file without running what it holds unless that is trusted, and asked.

A pickle (`.joblib`) runs code when it is read, so one is read only if its sha256 stands in the manifest. A
`.skops` file holds data and names of types; those of LightGBM, scikit-learn and numpy are accepted.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.errors import PermanentSourceError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LIBRARIES = ("lightgbm", "sklearn", "numpy")
CONTAINERS = {"collections.OrderedDict", "collections.defaultdict"}
PICKLES = (".joblib", ".pkl", ".pickle")
SAFE = ".skops"


class ModelError(PermanentSourceError):
    """A model that is missing, refused, or cannot be asked; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Model:
    """A classifier that is ready to be asked.

    `features` are the names of its columns, in its order; `version` is the first 12 digits of the file's
    sha256; `notes` are what its library warned of while it was read.
    """

    file: Path
    features: tuple[str, ...]
    version: str
    notes: tuple[str, ...]
    _ask: Callable[[NDArray[np.float64]], NDArray[np.float64]]

    def check(self, known: Iterable[str]) -> None:
        """ModelError that names the features which the model wants and `known` does not have."""
        if missing := sorted(set(self.features) - set(known)):
            raise ModelError(
                f"{self.file} wants the features {', '.join(missing)}, which are not computed; "
                f"there are {', '.join(known)}."
            )

    def probabilities(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """P(class 1) of each row, float64. `rows`: one column a name of `features`, in that order."""
        if rows.shape[1] != len(self.features):
            raise ModelError(f"{self.file} takes {len(self.features)} columns, {rows.shape[1]} were given.")
        return self._ask(rows) if len(rows) else rows[:, 0]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_model(file: Path, trusted: frozenset[str]) -> Model:
    """The model of a file. `trusted` are the sha256 sums of the pickles that may be read.

    ModelError for a pickle that is not listed, before anything of it runs, and for what is no classifier.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ModelError(
            f"The model {file} cannot be read: {error.strerror or type(error).__name__}."
        ) from None
    found = digest(content)
    if file.suffix != SAFE and found not in trusted:
        raise ModelError(
            f"{file} is a pickle, which runs code when it is read, and its sha256 {found} is not listed. "
            f"If you trust where it came from: svod metrika trust {file}"
        )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            thing = _read_skops(file, content) if file.suffix == SAFE else _read_pickle(content)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"{file} is no model that can be read here: {type(error).__name__}: {_short(error)}"
            ) from None
    notes = tuple(dict.fromkeys(str(w.message).splitlines()[0] for w in said))
    features = feature_names(thing, file)
    return Model(file, features, found[:12], notes, _asking(thing, features, file))


def _read_pickle(content: bytes) -> Any:
    import joblib

    return joblib.load(io.BytesIO(content))


def _read_skops(file: Path, content: bytes) -> Any:
    import skops.io

    untrusted = skops.io.get_untrusted_types(data=content)
    if refused := [name for name in untrusted if not _harmless(name)]:
        raise ModelError(f"{file} holds types that are not of {', '.join(LIBRARIES)}: {', '.join(refused)}.")
    return skops.io.loads(content, trusted=untrusted)


def _harmless(name: str) -> bool:
    """A class of the known libraries. Their functions are not: some run the code that they are given."""
    module, _, attribute = name.rpartition(".")
    if name in CONTAINERS:
        return True
    if module.split(".")[0] not in LIBRARIES or "__" in module:
        return False
    try:
        return isinstance(getattr(importlib.import_module(module), attribute), type)
    except (ImportError, AttributeError):
        return False


def feature_names(thing: Any, file: Path) -> tuple[str, ...]:
    """The names that a classifier was trained with, in its order; ModelError if it has none."""
    booster = getattr(thing, "booster_", None)
    names: Sequence[str] | None = booster.feature_name() if booster is not None else None
    for attribute in ("feature_name_", "feature_names_in_"):
        if names is None:
            names = getattr(thing, attribute, None)
    if names is None or not len(names):
        raise ModelError(
            f"{file} does not tell the names of its features: train it on a table with named columns."
        )
    return tuple(str(name) for name in names)


def _asking(
    thing: Any, features: tuple[str, ...], file: Path
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """How P(class 1) is asked for: the column of `predict_proba` that `classes_` gives to class 1."""
    if not callable(getattr(thing, "predict_proba", None)):
        raise ModelError(f"{file} holds a {type(thing).__name__}, which has no predict_proba.")
    classes: list[Any] = list(getattr(thing, "classes_", ()))
    if 1 not in classes:
        raise ModelError(f"{file} does not know the class 1; its classes are {classes}.")
    column = classes.index(1)
    booster = getattr(thing, "booster_", None)
    if booster is not None and len(classes) == 2 and not callable(getattr(thing, "objective_", None)):
        # what predict_proba of LightGBM itself asks, without two copies of the table
        return booster.predict if column == 1 else lambda rows: 1 - booster.predict(rows)

    def ask(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        import numpy as np
        import pandas as pd

        return np.asarray(thing.predict_proba(pd.DataFrame(rows, columns=list(features))), np.float64)[
            :, column
        ]

    return ask


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]


__all__ = ["PICKLES", "SAFE", "Model", "ModelError", "digest", "feature_names", "read_model"]
