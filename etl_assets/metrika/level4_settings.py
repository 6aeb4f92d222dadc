"""Settings of the level 4 scoring, from the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, cast, get_args

import dagster as dg

from etl_assets.settings import number, switch, text
from resources.metrika.features import DeviceRule, FeatureRules
from resources.metrika.models_directory import ModelsDirectory

Learner = Literal["lightgbm", "hist_gradient_boosting"]


@dataclass(frozen=True, slots=True)
class Level4Settings:
    """How visits are measured, scored and learnt from.

    `label_goal` (ids or identifiers, comma-separated) or `label_table` (columns visit_id and label, maybe
    counter_id) say which visits were good: that is what a model is trained to find.
    """

    models: ModelsDirectory
    rules: FeatureRules = field(default_factory=FeatureRules)
    score_without_hits: bool = True
    drift_limit: float = 0.2
    label_goal: str = ""
    label_table: str = ""
    learner: Learner = "lightgbm"
    target_precision: float = 0.8


def level4_settings() -> Level4Settings:
    """Read from METRIKA_*; a dagster.Failure names the one that is malformed."""
    return Level4Settings(
        models=ModelsDirectory.at(
            text("METRIKA_MODELS_DIR", ""), text("METRIKA_MODELS_MANIFEST", ""), text("SVOD_STATE_DIR", "")
        ),
        rules=FeatureRules(
            device=cast(DeviceRule, _choice("METRIKA_DEVICE_RULE", get_args(DeviceRule))),
            next_day=switch("METRIKA_NEXT_DAY_HITS"),
        ),
        score_without_hits=switch("METRIKA_SCORE_WITHOUT_HITS", True),
        drift_limit=number("METRIKA_DRIFT_LIMIT", 0.2, above=0),
        label_goal=text("METRIKA_LABEL_GOAL", ""),
        label_table=text("METRIKA_LABEL_TABLE", ""),
        learner=cast(Learner, _choice("METRIKA_LEARNER", get_args(Learner))),
        target_precision=number("METRIKA_TARGET_PRECISION", 0.8, above=0, most=1),
    )


def _choice(name: str, allowed: tuple[str, ...]) -> str:
    """One of these words, the first by default."""
    value = text(name, allowed[0]).strip().lower()
    if value not in allowed:
        raise dg.Failure(f"{name} must be one of {', '.join(allowed)}.", allow_retries=False)
    return value
