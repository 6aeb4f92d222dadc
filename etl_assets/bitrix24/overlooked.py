"""Rows that counts cannot show: one that came back while another one went, one whose change nobody saw.

Restoring a row moves no change time. What was changed just before it was deleted, and restored when no load
looks back so far any more, would stay as it was read before; and where one row came back and another one
went, the counts agree.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice

import orjson

from etl_assets.bitrix24.deletions import MARKS
from etl_assets.bitrix24.entities import Entity
from etl_assets.loading import OVERLAP
from resources.bitrix24 import PAGE, Bitrix24Client, CommandError, ListCall, Window
from resources.clickhouse import WarehouseResource
from resources.clickhouse.table import literal, quote

IN_THE_BIN = timedelta(days=60)  # the portal keeps deleted rows for 30 days, longer if there are many
AT_FIRST = timedelta(days=3)
KEPT = 2  # comparisons that are noted
IDS_PER_QUERY = 5000

Part = tuple[ListCall, Window]


class Overlooked:
    """One entity's rows to be looked at by id, though the counts of its ids agree.

    Marked rows fit a page as a rule, so the opening pages of many entities share a request. Rows that changed
    lately are counted first, and read only where both sides count differently.
    """

    def __init__(
        self,
        warehouse: WarehouseResource,
        entity: Entity,
        calls: Sequence[ListCall],
        now: datetime,
    ) -> None:
        """`calls` are the lists that make the entity's table up; `now` is its watermark."""
        self._warehouse, self._entity, self._now = warehouse, entity, now
        self._note = f"bitrix24/compared/{entity.name}"
        text, _ = warehouse.notes([self._note]).get(self._note, ("[]", None))
        self._before: list[str] = json.loads(text)
        self._marked = [(call.among_ids(ids), Window()) for call in calls for ids in self._chunks()]
        changing = bool(entity.modified) and not entity.lookback
        self._changed = [(call.times_only(), Window(self._since())) for call in calls if changing]

    @property
    def openings(self) -> list[Part]:
        """The scans that `ids` will make whatever the counts."""
        return self._marked

    @property
    def changed(self) -> list[Part]:
        """The lists of rows that changed lately, to be counted."""
        return self._changed

    def counted(self, there: Sequence[int | CommandError]) -> None:
        """How many rows of each list in `changed` the portal counts: no more than here are not read again.

        Where rows that went make up for one that was overlooked, the next comparison sees it: they are marked
        by then.
        """
        time = quote(self._entity.modified or "")
        since = f"fromUnixTimestamp64Milli(toInt64({int(self._since().timestamp())}000), 'UTC')"
        sql = f"SELECT count() FROM bi.{quote(self._entity.name)} WHERE {time} >= {since}"
        here = int(self._warehouse.query(sql)[0][0])
        if sum(t for t in there if isinstance(t, int)) <= here and all(isinstance(t, int) for t in there):
            self._changed = []

    def ids(self, client: Bitrix24Client) -> list[int]:
        """Marked rows that the portal lists again, and rows that are not here as they were changed there."""
        found = {number for part in self._marked for number, _ in _listed(client, part)}
        for part in self._changed:
            listed = _listed(client, part)
            while some := dict(islice(listed, IDS_PER_QUERY)):
                here = self._here(some)
                found |= {number for number, at in some.items() if at and here.get(number) != at}
        return sorted(found)

    def settled(self) -> None:
        """Note that the entity was compared: the next comparison looks back no further than needed."""
        self._warehouse.note(self._note, json.dumps([*self._before, self._now.isoformat()][-KEPT:]))

    def _since(self) -> datetime:
        """The comparison before the last one: a row may have been gone just while the last one looked."""
        known = datetime.fromisoformat(self._before[0]) if len(self._before) == KEPT else None
        return ((known or self._now - AT_FIRST) - OVERLAP).replace(microsecond=0)

    def _chunks(self) -> Iterator[list[int]]:
        found = self._warehouse.query(
            f"SELECT DISTINCT toInt64OrZero(id) AS number FROM {MARKS.sql_name} FINAL "
            "WHERE entity = {e:String} AND restored_at IS NULL AND detected_at > {since:DateTime64(3)} "
            "ORDER BY number",
            {"e": self._entity.name, "since": self._now - IN_THE_BIN},
        )
        ids = [number for (number,) in found]
        yield from (ids[at : at + PAGE] for at in range(0, len(ids), PAGE))

    def _here(self, ids: dict[int, int | None]) -> dict[int, int]:
        key, time = quote(self._entity.key[0]), quote(self._entity.modified or "")
        rows = self._warehouse.query(
            f"SELECT toInt64OrZero({key}), toUnixTimestamp64Milli({time}) FROM bi.{quote(self._entity.name)} "
            f"WHERE {key} IN ({', '.join(literal(str(i)) for i in ids)}) AND {time} IS NOT NULL"
        )
        return {int(number): int(milliseconds) // 1000 for number, milliseconds in rows}


def _listed(client: Bitrix24Client, part: Part) -> Iterator[tuple[int, int | None]]:
    """(id, Unix seconds of the change) of every row that the portal lists."""
    call, window = part
    for batch in client.scan(call, window):
        for row in map(orjson.loads, batch.body.split(b"\n")):
            yield int(row[call.id_key]), _seconds(row.get(call.modified_key or call.modified or ""))


def _seconds(text: object) -> int | None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return int(moment.timestamp()) if moment.tzinfo else None
