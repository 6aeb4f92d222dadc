"""Which visits are of level 4 or higher: the rule 180-5-5, else the model of the visit's device.

ClickHouse computes and selects; Python only asks the models, batch by batch. Features come from
`metrika.visit_features`, probabilities go to `metrika.visit_scores`, selected visits to
`metrika.level4_visits`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

from resources.clickhouse import WarehouseResource
from resources.metrika.features import DEVICES, FEATURES
from resources.metrika.models_directory import Chosen, ModelsDirectory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DATABASE = "metrika"
RULE = "visit_duration >= 180 AND page_views >= 5 AND slots >= 5"
BATCH_ROWS = 100_000


@dataclass
class Models:
    """The models of a directory, each read when the first visit needs it, and then kept."""

    directory: ModelsDirectory
    _read: dict[str, Chosen] = field(default_factory=dict)

    def of(self, name: str) -> Chosen:
        """ModelError if there is none, it may not be read, or it wants a feature that is not computed."""
        if name not in self._read:
            chosen = self.directory.load(name)
            chosen.model.check(FEATURES)
            self._read[name] = chosen
        return self._read[name]

    def used(self) -> list[Chosen]:
        """Those that were needed so far."""
        return list(self._read.values())


@dataclass(frozen=True, slots=True)
class Scored:
    """Visits of one device with their probabilities, in the order of their ids."""

    device: int
    chosen: Chosen
    visit_id: NDArray[np.uint64]
    score: NDArray[np.float64]

    def columns(self, counter: int, day: date) -> dict[str, Any]:
        """As the columns of `metrika.visit_scores`."""
        rows = len(self.score)
        return {
            "counter_id": [counter] * rows,
            "date": [day] * rows,
            "visit_id": self.visit_id,
            "device": [self.device] * rows,
            "score": self.score,
            "threshold": [self.chosen.threshold] * rows,
            "model_version": [self.chosen.label] * rows,
        }


def scored(
    warehouse: WarehouseResource,
    counter: int,
    day: date,
    models: Models,
    *,
    without_hits: bool = True,
    database: str = DATABASE,
) -> Iterator[Scored]:
    """Ask the models for the visits of a counter's day that the rule does not select.

    Visits of other devices than desktop and mobile are for the rule alone. `without_hits`: also those none of
    whose events is in the log, which no model saw in its training; the old script scored them too.
    """
    import numpy as np

    known = "" if without_hits else " AND known_hits > 0"
    for device, name in DEVICES.items():
        after, rows = "", BATCH_ROWS
        while rows == BATCH_ROWS:
            where = f"counter_id = {counter} AND date = '{day}' AND device = {device}{known}{after}"
            found = _batch(warehouse, database, where)
            rows = len(found)
            if not rows:
                break
            chosen = models.of(name)
            table = np.column_stack([found[FEATURES[feature]] for feature in chosen.model.features])
            yield Scored(device, chosen, found["visit_id"], chosen.model.probabilities(table))
            after = f" AND visit_id > {found['visit_id'][-1]}"


def _batch(warehouse: WarehouseResource, database: str, where: str) -> NDArray[Any]:
    """visit_id and all features as float64, by visit id."""
    columns = ", ".join(f"toFloat64({column}) AS {column}" for column in FEATURES.values())
    sql = (
        f"SELECT visit_id, {columns} FROM {database}.visit_features WHERE {where} AND NOT ({RULE}) "
        f"ORDER BY visit_id LIMIT {BATCH_ROWS} SETTINGS prefer_column_name_to_alias = 1"
    )
    with warehouse.session("reading the features of visits") as client:
        return client.query_np(sql)


def selected_rows(
    warehouse: WarehouseResource, counter: int, day: date, zone: str, database: str = DATABASE
) -> list[dict[str, Any]]:
    """The visits of level 4 or higher as the old script wrote them, in the order of the log.

    `{visitId, clientId, dateTime, visitDuration}`: ids as text, the time as the log has it, which is that of
    the counter's zone.
    """
    sql = f"""
SELECT toString(visit_id), toString(client_id), formatDateTime(date_time, '%F %T', {{zone:String}}),
  visit_duration
FROM {database}.level4_visits WHERE counter_id = {counter} AND date = '{day}' ORDER BY row_number, visit_id"""
    names = ("visitId", "clientId", "dateTime", "visitDuration")
    return [dict(zip(names, row, strict=True)) for row in warehouse.query(sql, {"zone": zone})]


def selection_sql(counter: int, day: date, database: str = DATABASE) -> str:
    """SELECT of the visits of level 4 or higher, by the columns of `metrika.level4_visits`.

    A visit that the rule selects has no score; one that a model selects has more than its threshold. To be
    run with the SETTINGS of features.
    """
    here = f"counter_id = {counter} AND date = '{day}'"
    return f"""
SELECT
  f.counter_id AS counter_id, f.date AS date, f.visit_id AS visit_id, f.client_id AS client_id,
  f.row_number AS row_number,
  f.date_time AS date_time, f.visit_duration AS visit_duration, f.device AS device,
  if(f.is_rule, NULL, s.score) AS score, if(f.is_rule, 'rule', 'model') AS reason, f.slots AS slots,
  if(f.is_rule, '', s.model_version) AS model_version
FROM (SELECT *, {RULE} AS is_rule FROM {database}.visit_features WHERE {here}) AS f
LEFT ANY JOIN (
  SELECT visit_id, score, model_version FROM {database}.visit_scores WHERE {here} AND score > threshold
) AS s ON s.visit_id = f.visit_id
WHERE f.is_rule OR s.model_version != ''"""
