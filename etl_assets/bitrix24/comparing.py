"""Comparing an entity with the portal: rows that are gone are marked, rows that are missing are loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from etl_assets.bitrix24.assets import Bitrix24Settings
from etl_assets.bitrix24.deletions import Marks, Source
from etl_assets.bitrix24.entities import ENTITIES, Entity, smart_process
from etl_assets.bitrix24.facts import RunFacts
from etl_assets.bitrix24.readers import READERS
from etl_assets.bitrix24.reading import EntityReader
from etl_assets.bitrix24.reconcile import Differences, Range, differences
from etl_assets.bitrix24.structure import DATABASE, list_call, table_of
from resources.bitrix24 import PAGE, Bitrix24Client, CommandError, ListCall
from resources.clickhouse import Table, WarehouseResource
from resources.clickhouse.table import quote
from resources.errors import PermanentSourceError

SCREEN_RANGES = PAGE - 1  # with the range above them, the commands of one request
RANGES_PER_QUERY = 2000
RIGHTS_NOTE = "bitrix24/rights"


@dataclass(slots=True)
class Compared:
    """What one comparison found and did."""

    entity: str
    rows_there: int = 0
    rows_here: int = 0
    marked: int = 0
    restored: int = 0
    loaded: int = 0
    waiting: int = 0
    requests: int = 0
    note: str = ""


@dataclass(slots=True)
class Sides:
    """The portal's list method against the entity's `bi` view."""

    client: Bitrix24Client
    call: ListCall
    warehouse: WarehouseResource
    view: str
    key: str

    def there(self, ranges: Sequence[Range]) -> list[tuple[list[int], int]]:
        found: dict[int, tuple[list[int], int]] = {}
        for index, ids, total in self.client.ids(self.call, [self._filter(r) for r in ranges]):
            found[index] = ids, total
        return [found[i] for i in range(len(ranges))]

    def _filter(self, wanted: Range) -> dict[str, int]:
        lo, hi = wanted
        below = {} if hi is None else {f"<={self.call.cursor}": hi}
        return {f">{self.call.cursor}": lo} | below

    def present(self, ids: Sequence[int]) -> set[int]:
        """Those of the ids that the portal has."""
        chunks = [list(ids[at : at + PAGE]) for at in range(0, len(ids), PAGE)]
        name = f"{self.call.among}{self.call.cursor}"
        found: set[int] = set()
        for index, listed, _ in self.client.ids(self.call, [{name: c} for c in chunks]):
            if not set(listed) <= set(chunks[index]):
                raise PermanentSourceError(
                    f"Bitrix24 {self.call.method}: the portal ignores the filter `{name}`: rows came that "
                    "were not asked for."
                )
            found.update(listed)
        return found

    def here(self, ranges: Sequence[Range]) -> list[tuple[int, int]]:
        counted: dict[int, tuple[int, int]] = {}
        for part in _parts(ranges):
            shown = f"{self._lowest(part)} AS lo, count(), toInt64(floor(avg(id)))"
            sql = f"SELECT {shown} {self._rows(part)} GROUP BY lo"
            counted |= {lo: (int(rows), int(mean)) for lo, rows, mean in self.warehouse.query(sql)}
        return [counted.get(lo, (0, lo)) for lo, _ in ranges]

    def ids_here(self, ranges: Sequence[Range]) -> list[list[int]]:
        found: dict[int, list[int]] = {lo: [] for lo, _ in ranges}
        for part in _parts(ranges):
            lows = ", ".join(str(lo) for lo, _ in part)
            sql = f"SELECT {self._lowest(part)} AS lo, id {self._rows(part)} AND lo IN ({lows}) ORDER BY id"
            for lo, id_ in self.warehouse.query(sql):
                found[lo].append(int(id_))
        return [found[lo] for lo, _ in ranges]

    def edges(self) -> list[int]:
        """Ids that cut the view into ranges of about as many rows, the highest id last."""
        levels = ", ".join(str(n / SCREEN_RANGES) for n in range(1, SCREEN_RANGES))
        sql = f"SELECT quantilesGK(1000, {levels})(id), max(id) FROM ({self._ids})"
        cuts, highest = self.warehouse.query(sql)[0]
        return sorted({*map(int, cuts), int(highest)} - {0}) if highest else []

    @property
    def _ids(self) -> str:
        return f"SELECT toInt64OrZero({quote(self.key)}) AS id FROM {self.view}"

    def _rows(self, ranges: Sequence[Range]) -> str:
        ends = [hi for _, hi in ranges]
        upto = "" if None in ends else f" AND id <= {max(hi or 0 for hi in ends)}"
        return f"FROM ({self._ids}) WHERE id > {min(lo for lo, _ in ranges)}{upto}"

    def _lowest(self, ranges: Sequence[Range]) -> str:
        bounds = sorted({bound for r in ranges for bound in r if bound is not None})
        return f"roundDown(id - 1, [{', '.join(map(str, bounds))}])"


def _parts(ranges: Sequence[Range]) -> list[Sequence[Range]]:
    return [ranges[at : at + RANGES_PER_QUERY] for at in range(0, len(ranges), RANGES_PER_QUERY)]


class Comparer:
    """Compares entities with the portal within one run."""

    def __init__(
        self,
        client: Bitrix24Client,
        warehouse: WarehouseResource,
        settings: Bitrix24Settings,
        *,
        confirmed: bool,
        run_id: str,
        log: Callable[[str], None],
    ) -> None:
        """`confirmed`: any share of a table may go at once."""
        self._client, self._warehouse, self._settings = client, warehouse, settings
        self._confirmed, self._run_id, self._log = confirmed, run_id, log
        self._facts = RunFacts(client, warehouse, cached=True)
        self._marks = Marks(warehouse)

    def compare(self, entity: Entity) -> Compared:
        """Count by range, look closer where counts differ, mark what is gone and load what is missing.

        Raises dagster.Failure without having marked anything when a count is refused or odd, or when more
        seems to be gone than may go at once.
        """
        before = self._client.stats.snapshot()
        done = Compared(entity.name)
        if self._warehouse.watermark(f"{DATABASE}/{entity.name}") is None:
            done.note = "not loaded from its beginning yet"
            return done
        for sides in self._sides(entity):
            found = differences(
                sides, sides.edges(), lambda there, here: self._allow(entity, here - there, here)
            )
            done.rows_there += found.rows_there
            done.rows_here += found.rows_here
            self._apply(entity, sides, found, done)
        done.requests = self._client.stats.since(before).requests
        return done

    def settle(self, entity: Entity, ids: Sequence[int], source: Source) -> Compared:
        """Look at single ids, of which the portal said that something happened to them."""
        done = Compared(entity.name)
        if self._warehouse.watermark(f"{DATABASE}/{entity.name}") is None:
            done.note = "not loaded from its beginning yet"
            return done
        present = {i for sides in self._sides(entity) for i in sides.present(ids)}
        done.marked = self._marks.mark(self._table(entity), sorted(set(ids) - present), source, self._now())
        return done

    def _sides(self, entity: Entity) -> Iterator[Sides]:
        """The lists that make the entity's table up, each against its own rows."""
        if entity.strategy == "object":  # the last known field list is enough to count, and costs no request
            parts = [(list_call(entity, self._facts.last_known(entity)), "1")]
        else:
            parts = self._reader(entity).parts()
        for call, rows in parts:
            view = f"bi.{quote(entity.name)} WHERE {rows}"
            yield Sides(self._client, call.ids_only(), self._warehouse, view, entity.key[0])

    def _reader(self, entity: Entity) -> EntityReader:
        return READERS[entity.strategy](entity, self._facts, self._warehouse, self._log)

    def _table(self, entity: Entity) -> Table:
        structure = self._facts.structure(entity)
        settings = self._settings
        types = settings.types.get(entity.name, {})
        table, _ = self._warehouse.ensure(table_of(entity, structure, settings.zone, types))
        return table

    def _now(self) -> datetime:
        return self._client.server_time()

    def _allow(self, entity: Entity, gone: int, here: int) -> None:
        """Raise if so many of the rows here seem to be gone. A single row is never too many."""
        if self._confirmed or gone <= 1 or gone * 100 <= here * self._settings.deleted_share_pct:
            return
        raise PermanentSourceError(
            f"{entity.name}: {gone} of {here} rows are not on the portal any more ({gone / here:.0%}). "
            "That looks like lost rights of the webhook's user rather than deletions, so nothing was marked. "
            "Give the rights back; or, if the rows were deleted, confirm it: "
            f"`svod reconcile {entity.name} --confirm`. The limit is BITRIX24_DELETED_SHARE_PCT."
        )

    def _apply(self, entity: Entity, sides: Sides, found: Differences, done: Compared) -> None:
        if not found:
            return
        present = sides.present(found.gone)
        gone = [i for i in found.gone if i not in present]
        at = self._now()
        self._allow(entity, len(gone), found.rows_here)
        gone = self._gone_twice(entity, gone, done) if entity.doubtful else gone
        table = self._table(entity)
        done.marked = self._marks.mark(table, gone, "reconcile", at)
        if found.missing or found.missing_ranges:
            done.loaded = self._heal(entity, table, found.missing, found.missing_ranges)
            done.restored = self._marks.restore(table, self._now(), found.missing)
            done.restored += self._marks.restore(table, self._now())

    def _gone_twice(self, entity: Entity, gone: Sequence[int], done: Compared) -> list[int]:
        """Those that were gone at the comparison before, too."""
        name = f"bitrix24/gone/{entity.name}"
        text, _ = self._warehouse.notes([name]).get(name, ("[]", None))
        earlier = set(json.loads(text))
        self._warehouse.note(name, json.dumps(sorted(gone)))
        twice = [i for i in gone if i in earlier or self._confirmed]
        done.waiting = len(gone) - len(twice)
        return twice

    def _heal(self, entity: Entity, table: Table, ids: Sequence[int], ranges: Sequence[Range]) -> int:
        """Load rows by id; their owners' children notice them by the load log."""
        reader = self._reader(entity)
        began = self._now()
        with self._warehouse.load(table, asset=f"{DATABASE}/{entity.name}", run_id=self._run_id) as load:
            for batch in reader.chosen(ids, ranges):
                load.add(batch.body, batch.count, batch.read_at)
            spent = reader.spent()
            result = load.finish(
                kind="heal",
                source_time=began,
                requests=spent.requests,
                commands=spent.commands,
                waited_s=spent.waited_s,
                api_s=spent.api_s,
            )
        return result.rows


def counted_entities(warehouse: WarehouseResource) -> list[Entity]:
    """The entities whose rows can be counted: those of the table, and the smart processes that are here."""
    found = warehouse.query(
        "SELECT name FROM system.tables "
        "WHERE database = {d:String} AND match(name, '^crm_dynamic_items_[0-9]+$')",
        {"d": DATABASE},
    )
    numbers = sorted(int(name.rpartition("_")[2]) for (name,) in found)
    return [*(e for e in ENTITIES if e.reconciled), *(smart_process(n, "") for n in numbers)]


def rights(client: Bitrix24Client) -> dict[str, list[str]]:
    """What the credential may see, as sets of names; what the portal does not tell is left out."""
    asked = [("profile", {}), ("scope", {}), ("crm.category.list", {"entityTypeId": 2})]
    profile, scopes, funnels = client.call_many(asked)
    found: dict[str, list[str]] = {}
    if isinstance(profile, dict):
        found["rights"] = ["administrator"] if profile.get("ADMIN") in (True, "Y", "1", "true") else []
    if isinstance(scopes, list):
        found["scopes"] = sorted(map(str, scopes))
    if not isinstance(funnels, CommandError) and isinstance(funnels, dict):
        listed = funnels.get("categories") or []
        found["funnels of deals"] = sorted(str(row.get("id")) for row in listed if isinstance(row, dict))
    return found


def lost_rights(now: dict[str, list[str]], before: dict[str, list[str]]) -> list[str]:
    """What the credential could see before and cannot see now, in words."""
    return [
        f"{kind}: {', '.join(sorted(set(before[kind]) - set(now[kind])))}"
        for kind in before
        if kind in now and set(before[kind]) - set(now[kind])
    ]


def guard_rights(client: Bitrix24Client, warehouse: WarehouseResource, *, confirmed: bool) -> None:
    """Raise if the credential sees less than at the comparison before, unless that is `confirmed`."""
    now = rights(client)
    text, _ = warehouse.notes([RIGHTS_NOTE]).get(RIGHTS_NOTE, ("{}", None))
    before = json.loads(text)
    lost = lost_rights(now, before)
    if lost and not confirmed:
        raise PermanentSourceError(
            f"The webhook's user sees less than at the last comparison ({'; '.join(lost)}), so rows that are "
            "missing may be hidden rather than deleted, and nothing was marked. Give the rights back, or "
            "confirm the change: `svod reconcile --confirm`."
        )
    if now != before:
        warehouse.note(RIGHTS_NOTE, json.dumps(before | now))
