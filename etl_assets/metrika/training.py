"""Training of the level 4 models on what the warehouse holds, and their promotion."""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
from pydantic import Field

from etl_assets.loading import OWNERS
from etl_assets.metrika.fields import DATABASE
from etl_assets.metrika.level4_settings import Learner, Level4Settings
from etl_assets.metrika.training_fit import (
    Examples,
    TooFewExamples,
    Trained,
    files_of,
    plot,
    quality_table,
    train,
)
from resources.clickhouse import WarehouseResource
from resources.errors import PermanentSourceError
from resources.metrika import MetrikaResource
from resources.metrika.features import DEVICES, FEATURES
from resources.metrika.models_directory import ModelsDirectory

MOST_VISITS = 2_000_000  # of a device, the newest: 150 MB
BY_HAND = "svod/by_hand"  # left out where everything is loaded at once
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\.[A-Za-z_][A-Za-z0-9_]*")


class TrainingConfig(dg.Config):
    """What to learn from, and what to do with the result."""

    first_day: str | None = Field(
        default=None, description="First day of visits, ISO; all that are loaded by default."
    )
    last_day: str | None = Field(default=None, description="Last day, inclusive.")
    promote: bool | None = Field(
        default=None,
        description="Use the new version at once. By default only if there is no model at all yet.",
    )


def given(models: ModelsDirectory) -> bool:
    """Whether there is any model, given or trained."""
    return any(models.file(name) for name in DEVICES.values())


def build_models(settings: Level4Settings) -> dg.AssetsDefinition:
    """The asset `metrika/level4_models`."""

    @dg.asset(
        key=[DATABASE, "level4_models"],
        deps=[dg.AssetKey([DATABASE, "visit_features"])],
        group_name=DATABASE,
        kinds={"lightgbm" if settings.learner == "lightgbm" else "sklearn"},
        owners=OWNERS,
        # where models are given, nobody trains others by accident
        tags={"source": DATABASE} | ({BY_HAND: ""} if given(settings.models) else {}),
        description="Модели уровня 4+ для компьютеров и телефонов, обученные на визитах хранилища.\n\n"
        "**Labels** the goal of METRIKA_LABEL_GOAL or the table of METRIKA_LABEL_TABLE.  \n"
        "**Split** by time: 60 % to fit on, 20 % to choose the threshold for the precision "
        "METRIKA_TARGET_PRECISION, 20 % to measure on.  \n"
        "**Result** a new version in METRIKA_MODELS_DIR; `svod metrika promote VERSION` or the job "
        "`metrika_promote_models` puts it into use.",
    )
    def level4_models_asset(
        context: dg.AssetExecutionContext,
        config: TrainingConfig,
        warehouse: WarehouseResource,
        metrika: MetrikaResource,
    ) -> dg.MaterializeResult:
        source = label_sql(settings, warehouse, metrika)
        trained, refused = _train_all(context, settings, warehouse, source, config)
        version = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{context.run.run_id[:8]}"
        first = not given(settings.models)
        settings.models.add_version(version, files_of(trained), _about(settings, config, trained))
        if config.promote or (config.promote is None and first):
            settings.models.promote(version)
        in_use = settings.models.current()
        context.log.info("Version %s is written; in use: %s", version, in_use or "the given models")
        return dg.MaterializeResult(
            metadata={
                "version": version,
                "in_use": in_use or "the given models",
                "folder": str(settings.models.home),
                "quality": dg.MetadataValue.md(quality_table(trained)),
                "curves": dg.MetadataValue.md(plot(trained)),
                **({"not_trained": "; ".join(refused)} if refused else {}),
                **_figures(trained),
            }
        )

    return level4_models_asset


def _train_all(
    context: dg.AssetExecutionContext,
    settings: Level4Settings,
    warehouse: WarehouseResource,
    source: str,
    config: TrainingConfig,
) -> tuple[dict[str, Trained], list[str]]:
    """(name -> model, why the others were not trained); a dagster.Failure if there are none."""
    trained: dict[str, Trained] = {}
    refused: list[str] = []
    for device, name in DEVICES.items():
        examples = _examples(warehouse, source, device, _day(config.first_day), _day(config.last_day))
        try:
            trained[name] = train(examples, settings.learner, settings.target_precision)
        except TooFewExamples as reason:
            refused.append(f"{name}: {reason}")
            context.log.warning("%s is not trained: %s", name, reason)
            continue
        if not trained[name].reached:
            context.log.warning("%s: no threshold reaches the precision %g", name, settings.target_precision)
    if not trained:
        raise PermanentSourceError(
            f"No model could be trained. {'; '.join(refused)}. Load more days, or see METRIKA_LABEL_GOAL."
        )
    return trained, refused


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise PermanentSourceError("first_day and last_day must be days such as 2026-11-01.") from None


def label_sql(settings: Level4Settings, warehouse: WarehouseResource, metrika: MetrikaResource) -> str:
    """SELECT counter_id, date, visit_id, label of the visits whose label is known."""
    if settings.label_table:
        return _labelled(settings.label_table, warehouse)
    if not settings.label_goal:
        raise PermanentSourceError(
            "Nothing says which visits were good: set METRIKA_LABEL_GOAL (a goal's id or identifier) "
            "or METRIKA_LABEL_TABLE."
        )
    goals = ", ".join(map(str, _goal_ids(settings.label_goal, warehouse, metrika)))
    return (
        f"SELECT counter_id, date, visit_id, hasAny(goals_id, [{goals}]) AS label "
        f"FROM {DATABASE}.visits FINAL"
    )


def _labelled(name: str, warehouse: WarehouseResource) -> str:
    if not _TABLE.fullmatch(name):
        raise PermanentSourceError("METRIKA_LABEL_TABLE must be database.table.")
    columns = {
        n
        for (n,) in warehouse.query(
            "SELECT name FROM system.columns WHERE concat(database, '.', table) = {t:String}", {"t": name}
        )
    }
    if missing := {"visit_id", "label"} - columns:
        raise PermanentSourceError(f"METRIKA_LABEL_TABLE: {name} has no column {', '.join(sorted(missing))}.")
    keys = [k for k in ("counter_id", "date", "visit_id") if k in columns]
    using = ", ".join(keys)
    return (
        f"SELECT v.counter_id AS counter_id, v.date AS date, v.visit_id AS visit_id, l.good AS label "
        f"FROM {DATABASE}.visit_features AS v INNER JOIN "
        f"(SELECT {using}, max(toInt64(label) > 0) AS good FROM {name} GROUP BY {using}) AS l USING ({using})"
    )


def _goal_ids(wanted: str, warehouse: WarehouseResource, metrika: MetrikaResource) -> list[int]:
    """Ids of goals; an identifier is looked up in the goals of every counter."""
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    found = {int(name) for name in names if name.isdecimal()}
    if identifiers := {name for name in names if not name.isdecimal()}:
        counters = warehouse.query(f"SELECT DISTINCT counter_id FROM {DATABASE}.visits")
        goals = [goal for (counter,) in counters for goal in metrika.client.goals(int(counter))]
        for identifier in sorted(identifiers):
            ids = {
                g.id for g in goals if identifier == g.name or identifier in [url for _, url in g.conditions]
            }
            if not ids:
                raise PermanentSourceError(f"METRIKA_LABEL_GOAL: no counter has a goal {identifier!r}.")
            found |= ids
    return sorted(found)


def _examples(
    warehouse: WarehouseResource, labels: str, device: int, first: date | None, last: date | None
) -> Examples:
    """Labelled visits of a device with at least one known event, by time."""
    import numpy as np

    days = [f"f.date {sign} '{day}'" for sign, day in ((">=", first), ("<=", last)) if day]
    where = " AND ".join([f"f.device = {device}", "f.known_hits > 0", *days])
    columns = ", ".join(f"toFloat64(f.{column}) AS {column}" for column in FEATURES.values())
    sql = (
        f"SELECT toUInt8(l.label) AS label, {columns} FROM {DATABASE}.visit_features AS f "
        f"INNER JOIN ({labels}) AS l USING (counter_id, date, visit_id) WHERE {where} "
        f"ORDER BY f.date_time DESC, f.visit_id DESC LIMIT {MOST_VISITS}"
    )
    with warehouse.session("reading labelled visits") as client:
        found = client.query_np(sql)
    if not len(found):
        return Examples(np.empty((0, len(FEATURES))), np.empty(0, np.int64))
    rows = np.column_stack([found[column] for column in FEATURES.values()])
    return Examples(rows[::-1], found["label"][::-1].astype(np.int64))


def _figures(trained: dict[str, Trained]) -> dict[str, float]:
    """Numbers that the UI can plot over versions."""
    found: dict[str, float] = {}
    for name, model in trained.items():
        found[f"{name}_roc_auc"] = round(model.quality.roc_auc, 5)
        found[f"{name}_precision"] = round(model.quality.precision, 5)
        found[f"{name}_recall"] = round(model.quality.recall, 5)
        found[f"{name}_threshold"] = round(model.threshold, 5)
    return found


def _about(settings: Level4Settings, config: TrainingConfig, trained: dict[str, Trained]) -> dict[str, Any]:
    """What a version tells of itself."""
    import sklearn

    return {
        "trained_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "label": settings.label_table or f"goal {settings.label_goal}",
        "days": [config.first_day, config.last_day],
        "learner": settings.learner,
        "target_precision": settings.target_precision,
        "features": list(FEATURES),
        "scikit_learn": sklearn.__version__,
        "quality": _figures(trained),
    }


def build_promotion(settings: Level4Settings) -> dg.JobDefinition:
    """The job `metrika_promote_models`: put a trained version into use, or the given models again."""

    class Promotion(dg.Config):
        version: str = Field(description="A name from METRIKA_MODELS_DIR/versions; empty: the given models.")

    @dg.op(name="promote_models")
    def promote(context: dg.OpExecutionContext, config: Promotion) -> None:
        before = settings.models.current()
        settings.models.promote(config.version or None)
        context.log.info("In use: %s; before: %s", config.version or "the given models", before)

    @dg.job(name="metrika_promote_models", description="Which trained version of the level 4 models is used.")
    def job() -> None:
        promote()

    return job


__all__: Sequence[str] = ("BY_HAND", "Learner", "TrainingConfig", "build_models", "build_promotion", "given")
