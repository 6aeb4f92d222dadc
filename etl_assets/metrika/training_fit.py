"""Training of one model: split by time, fit, choose the threshold, measure on visits that it never saw."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etl_assets.metrika.drift import inline
from etl_assets.metrika.level4_settings import Learner
from resources.metrika.features import FEATURES
from resources.metrika.models_directory import THRESHOLDS_FILE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FIT, TUNE = 0.6, 0.8  # shares of the visits, by time: fitted on, threshold chosen on; measured on the rest
FEWEST = 20  # visits of each class in each part, below which figures mean nothing
SEED = 42
TREES = 300  # about the old models' size


class TooFewExamples(Exception):
    """Not enough labelled visits; the text says how many there are."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Visits by time: `rows` are the features in the order of FEATURES, `good` is 0 or 1."""

    rows: NDArray[np.float64]
    good: NDArray[np.int64]

    def part(self, start: float, end: float) -> Examples:
        """From one share of the visits to another."""
        first, last = (round(len(self.good) * share) for share in (start, end))
        return Examples(self.rows[first:last], self.good[first:last])

    def require(self, what: str) -> Examples:
        """These, if there are enough of each class."""
        good = int(self.good.sum())
        if min(good, len(self.good) - good) < FEWEST:
            raise TooFewExamples(
                f"{good} good ones of {len(self.good)} visits {what}; {FEWEST} of each kind are needed"
            )
        return self


@dataclass(frozen=True, slots=True)
class Quality:
    """What a model does on the visits that it never saw."""

    visits: int
    good: int
    roc_auc: float
    precision: float
    recall: float


@dataclass(frozen=True, slots=True)
class Trained:
    """A fitted classifier with its threshold.

    `reached`: the target precision was reached where the threshold was chosen. `scores` and `good` are of the
    visits that it was measured on.
    """

    classifier: Any
    threshold: float
    reached: bool
    quality: Quality
    scores: NDArray[np.float64]
    good: NDArray[np.int64]


def train(examples: Examples, learner: Learner, target_precision: float) -> Trained:
    """Fit on the earliest visits, choose the threshold on later ones, measure on the latest.

    Raises TooFewExamples.
    """
    import numpy as np
    import pandas as pd

    fit = examples.part(0, FIT).require("to fit on")
    tune = examples.part(FIT, TUNE).require("to choose the threshold on")
    test = examples.part(TUNE, 1).require("to measure on")
    names = list(FEATURES)
    classifier = _classifier(learner).fit(pd.DataFrame(fit.rows, columns=names), fit.good)

    def ask(part: Examples) -> NDArray[np.float64]:
        return np.asarray(classifier.predict_proba(pd.DataFrame(part.rows, columns=names)))[:, 1]

    threshold, reached = choose_threshold(ask(tune), tune.good, target_precision)
    scores = ask(test)
    return Trained(classifier, threshold, reached, measure(scores, test.good, threshold), scores, test.good)


def _classifier(learner: Learner) -> Any:
    if learner == "lightgbm":
        from lightgbm import LGBMClassifier

        return LGBMClassifier(
            n_estimators=TREES, learning_rate=0.03, num_leaves=31, random_state=SEED, verbose=-1
        )
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=TREES, learning_rate=0.03, random_state=SEED)


def choose_threshold(
    scores: NDArray[np.float64], good: NDArray[np.int64], target: float
) -> tuple[float, bool]:
    """(threshold, whether it reaches the precision `target`): the one that selects most visits.

    Visits with a greater score are selected, so one of 0 never is. Where no threshold reaches the target, the
    one of the best precision.
    """
    import numpy as np

    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(good[order])
    last = np.flatnonzero(np.append(np.diff(ranked) != 0, True) & (ranked > 0))  # equal ones go together
    if not len(last):
        return 0.0, False
    precision = hits[last] / (last + 1)
    enough = np.flatnonzero(precision >= target)
    chosen = int(enough[-1]) if len(enough) else int(np.argmax(precision))
    worst = ranked[last[chosen]]
    below = ranked[last[chosen] + 1] if last[chosen] + 1 < len(ranked) else 0.0
    return float((worst + below) / 2), bool(len(enough))


def measure(scores: NDArray[np.float64], good: NDArray[np.int64], threshold: float) -> Quality:
    from sklearn.metrics import roc_auc_score

    selected = scores > threshold
    right = int((selected & (good == 1)).sum())
    return Quality(
        visits=len(good),
        good=int(good.sum()),
        roc_auc=float(roc_auc_score(good, scores)),
        precision=right / int(selected.sum()) if selected.any() else 0.0,
        recall=right / int(good.sum()),
    )


def files_of(models: Mapping[str, Trained]) -> dict[str, bytes]:
    """The models as `.skops`, which can be read without trust, and their thresholds."""
    import skops.io

    files = {f"level4_{name}_slot.skops": skops.io.dumps(t.classifier) for name, t in models.items()}
    thresholds = {name: t.threshold for name, t in models.items()}
    return {**files, THRESHOLDS_FILE: json.dumps(thresholds, indent=2).encode()}


def quality_table(models: Mapping[str, Trained]) -> str:
    """Markdown, one row a model."""
    head = "| model | visits | good | ROC-AUC | threshold | precision | recall |\n|" + "---|" * 7
    rows = [
        f"| {name} | {q.visits} | {q.good} | {q.roc_auc:.4f} | {t.threshold:.4f} | {q.precision:.3f} | "
        f"{q.recall:.3f} |"
        for name, t in models.items()
        if (q := t.quality)
    ]
    return "\n".join([head, *rows])


def plot(models: Mapping[str, Trained]) -> str:
    """Markdown with an inline PNG: ROC, and precision and recall by threshold."""
    from matplotlib.figure import Figure
    from sklearn.metrics import precision_recall_curve, roc_curve

    figure = Figure(figsize=(7, 2.8 * len(models)), dpi=80)
    for row, (name, trained) in enumerate(models.items()):
        left = figure.add_subplot(len(models), 2, 2 * row + 1)
        false, true, _ = roc_curve(trained.good, trained.scores)
        left.plot(false, true, color="#4f43dd")
        left.plot([0, 1], [0, 1], color="#b9b4ef", linestyle=":")
        left.set_title(f"{name}: ROC, AUC {trained.quality.roc_auc:.3f}", fontsize=8)
        right = figure.add_subplot(len(models), 2, 2 * row + 2)
        precision, recall, cuts = precision_recall_curve(trained.good, trained.scores)
        right.plot(cuts, precision[:-1], color="#4f43dd", label="precision")
        right.plot(cuts, recall[:-1], color="#b9b4ef", label="recall")
        right.axvline(trained.threshold, color="black", linewidth=0.8)
        right.set_title(f"threshold {trained.threshold:.3f}", fontsize=8)
        right.legend(fontsize=7, frameon=False)
        _tidy(left, right)
    return inline(figure, "quality on the latest visits")


def _tidy(*places: Any) -> None:
    for axes in places:
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)


__all__: Sequence[str] = (
    "Examples",
    "Quality",
    "TooFewExamples",
    "Trained",
    "choose_threshold",
    "files_of",
    "measure",
    "plot",
    "quality_table",
    "train",
)
