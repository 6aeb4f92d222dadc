"""Comparing an entity with the portal: rows that are gone are marked, rows that are missing are loaded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

import dagster as dg
import orjson

from etl_assets.bitrix24.assets import Bitrix24Settings
from etl_assets.bitrix24.deletions import Marks, Source, listed_ids
from etl_assets.bitrix24.entities import ENTITIES, Entity, smart_process
from etl_assets.bitrix24.facts import RunFacts
from etl_assets.bitrix24.overlooked import Overlooked
from etl_assets.bitrix24.readers import READERS
from etl_assets.bitrix24.reading import NOT_HERE, EntityReader, code_of
from etl_assets.bitrix24.reconcile import Differences, Range, differences, ranges_of, swept
from etl_assets.bitrix24.structure import DATABASE, list_call, table_of
from resources.bitrix24 import PAGE, Bitrix24Client, CommandError, ListCall, Window, failure
from resources.bitrix24.client import Counted, OddCounts, Uncounted
from resources.clickhouse import Table, WarehouseResource
from resources.clickhouse.table import quote
from resources.errors import PermanentSourceError, TransientSourceError

SCREEN_RANGES = PAGE - 2  # with the range above them and what changed lately, the commands of one request
SCREEN_ROWS = 10  # of a range at least, so that small tables share a request
LARGE = 100_000  # rows of a table that is worth a request of its own
FEWER_RANGES = 40  # of smaller ones: five of them share four requests
SWEEP_ROWS = 100_000  # of a range, whose ids are compared at once
FEW = 20  # so many rows of one funnel are no sign of lost rights, whatever their share
RANGES_PER_QUERY = 2000
RIGHTS_NOTE = "bitrix24/rights"
FUNNELS = "funnels of "
DEALS, SMART_INVOICES = 2, 31  # with the smart processes above them, the types that have funnels


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

    def counting(self, wanted: Range) -> ListCall:
        """The call whose total is the number of rows in a range."""
        return self.call.filtered(self._filter(wanted))

    def there(self, ranges: Sequence[Range]) -> list[tuple[list[int], int]]:
        found: dict[int, tuple[list[int], int]] = {}
        for index, ids, total in self.client.ids(self.call, [self._filter(r) for r in ranges]):
            found[index] = ids, total
        return [found[i] for i in range(len(ranges))]

    def _filter(self, wanted: Range) -> dict[str, int]:
        lo, hi = wanted
        below = {} if hi is None else {f"<={self.call.cursor}": hi}
        return {f">{self.call.cursor}": lo} | below

    def listed(self, wanted: Range) -> set[int]:
        """All ids of a range on the portal, read without a count."""
        scan = self.client.scan(self.call.filtered(self._filter(wanted)))
        return {i for batch in scan for i in self._ids_in(batch.body)}

    def _ids_in(self, body: bytes) -> Iterator[int]:
        return (int(orjson.loads(line)[self.call.id_key]) for line in body.split(b"\n"))

    def present(self, ids: Sequence[int]) -> set[int]:
        """Those of the ids that the portal has, by pages that agree with their counts."""
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

    def absent(self, ids: Sequence[int], witness: int | None) -> set[int]:
        """Those of the ids that the portal counts no row of: a row that it hides, or leaves out, is counted.

        Each count includes the witness, the highest row that was just listed: without it the portal counts
        nothing at all, and only what it lists is left to go by. Then rows above the witness prove nothing.
        """
        if witness is None:
            return set(ids).difference(self._shown(ids))
        chunks = [ids[at : at + PAGE - 1] for at in range(0, len(ids), PAGE - 1)]
        totals = self._totals([[*chunk, witness] for chunk in chunks])
        if 0 in totals:
            return {i for i in ids if i < witness} - self._witnessed(chunks, witness)
        doubtful = [i for chunk, rows in zip(chunks, totals, strict=True) if rows > 1 for i in chunk]
        singly = self._totals([[i, witness] for i in doubtful])
        return set(ids) - {i for i, rows in zip(doubtful, singly, strict=True) if rows > 1}

    def _totals(self, among: Sequence[Sequence[int]]) -> list[int]:
        name = f"{self.call.among}{self.call.cursor}"
        calls = [self.call.filtered({name: list(ids)}) for ids in among]
        return known(self.client.totals(calls))

    def _witnessed(self, chunks: Sequence[Sequence[int]], witness: int) -> set[int]:
        found = Counter(self._shown([i for chunk in chunks for i in (*chunk, witness)]))
        if found[witness] != len(chunks):
            raise TransientSourceError(
                f"Bitrix24 {self.call.method}: the row {witness}, listed a moment ago, is missing from an "
                "answer: it was cut short, or the rights have changed. Nothing was marked."
            )
        return set(found)

    def _shown(self, ids: Sequence[int]) -> list[int]:
        return [i for batch in self.client.by_ids(self.call, ids) for i in self._ids_in(batch.body)]

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

    def among(self, ids: Sequence[int]) -> list[int]:
        """Those of the ids that the view shows."""
        shown: list[int] = []
        for listed in listed_ids(ids):
            sql = f"SELECT toInt64OrZero({quote(self.key)}) {self._from} AND {quote(self.key)} IN ({listed})"
            shown += [int(row[0]) for row in self.warehouse.query(sql)]
        return sorted(shown)

    def count(self) -> int:
        return int(self.warehouse.query(f"SELECT count() {self._from}")[0][0])

    def by_funnel(self, ids: Sequence[int] | None = None) -> Iterator[tuple[str, int]]:
        """(funnel, rows of the view), of these ids only; a funnel may come several times."""
        key = quote(self.key)
        for condition in ["1"] if ids is None else [f"{key} IN ({listed})" for listed in listed_ids(ids)]:
            shown = "SELECT toString(ifNull(CATEGORY_ID, '')) AS funnel, count()"
            found = self.warehouse.query(f"{shown} {self._from} AND {condition} GROUP BY funnel")
            yield from ((funnel, int(rows)) for funnel, rows in found)

    def edges(self, rows_each: int) -> list[int]:
        """Ids that cut the view into ranges of `rows_each` rows, or more if that made more than
        `SCREEN_RANGES`; the highest id last."""
        levels = ", ".join(str(n / SCREEN_RANGES) for n in range(1, SCREEN_RANGES))
        sql = f"SELECT quantilesGK(1000, {levels})(id), max(id), count() FROM ({self._ids})"
        cuts, highest, rows = self.warehouse.query(sql)[0]
        if not highest:
            return []
        wanted = min(SCREEN_RANGES if rows >= LARGE else FEWER_RANGES, -(-int(rows) // rows_each))
        chosen = [int(cuts[SCREEN_RANGES * n // wanted - 1]) for n in range(1, wanted)]
        return sorted({*chosen, int(highest)} - {0})

    @property
    def _from(self) -> str:
        return f"FROM {self.view}"

    @property
    def _ids(self) -> str:
        return f"SELECT toInt64OrZero({quote(self.key)}) AS id {self._from}"

    def _rows(self, ranges: Sequence[Range]) -> str:
        ends = [hi for _, hi in ranges]
        upto = "" if None in ends else f" AND id <= {max(hi or 0 for hi in ends)}"
        return f"FROM ({self._ids}) WHERE id > {min(lo for lo, _ in ranges)}{upto}"

    def _lowest(self, ranges: Sequence[Range]) -> str:
        bounds = sorted({bound for r in ranges for bound in r if bound is not None})
        return f"roundDown(id - 1, [{', '.join(map(str, bounds))}])"


def known(totals: Sequence[int | CommandError]) -> list[int]:
    """The counts. Raises the first refusal."""
    refused = next((t for t in totals if isinstance(t, CommandError)), None)
    if refused:
        raise failure(refused)
    return [t for t in totals if not isinstance(t, CommandError)]


def _parts(ranges: Sequence[Range]) -> list[Sequence[Range]]:
    return [ranges[at : at + RANGES_PER_QUERY] for at in range(0, len(ranges), RANGES_PER_QUERY)]


@dataclass(slots=True)
class Screen:
    """Rows of one list by range, as both sides count them."""

    sides: Sides
    ranges: list[Range]
    here: list[int]
    there: list[int | CommandError] = field(default_factory=list)


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
        self._screens: dict[str, list[Screen]] = {}
        self._parts: dict[str, list[tuple[ListCall, str]]] = {}
        self._overlooked: dict[str, Overlooked] = {}
        self._taken_in: dict[str, Compared | dg.Failure] = {}

    def openings(self, entities: Sequence[Entity], *, sweep: bool) -> list[tuple[ListCall, Window]]:
        """Begin with what counts cannot show: its first pages, for a request that is made anyway."""
        for entity in entities:
            mark = self._warehouse.watermark(f"{DATABASE}/{entity.name}")
            with suppress(dg.Failure):  # the comparison itself tells of it
                calls = [call for call, _ in self._parts_of(entity)] if mark else []
                if mark:
                    self._overlooked[entity.name] = Overlooked(self._warehouse, entity, calls, mark)
        begun = self._overlooked.values()
        return [p for over in begun for p in (*over.openings, *(over.changed if sweep else ()))]

    def take_in(self, entities: Sequence[Entity]) -> None:
        """Load rows that came back or changed while nobody saw it, so that counts tell of the others."""
        for entity in entities:
            done = Compared(entity.name)
            try:
                overlooked = self._overlooked.get(entity.name)
                if overlooked and (ids := overlooked.ids(self._client)):
                    self._load(entity, ids, [], done)
                    self._screens.pop(entity.name, None)  # it was counted without them
                self._taken_in[entity.name] = done
            except dg.Failure as failed:  # its comparison raises it
                self._taken_in[entity.name] = failed

    def screen(self, entities: Sequence[Entity]) -> None:
        """Count all of them by range in as few requests as possible; `compare` starts from that."""
        try:
            self._screens = self._screened(entities)
        except dg.Failure as failed:  # of one of them, perhaps: then each is counted by itself
            self._log(f"Counting all at once failed: {failed.description}")

    def compare(self, entity: Entity) -> Compared:
        """Count by range, look closer where counts differ, mark what is gone and load what is missing.

        A list that the portal does not count is swept. Raises dagster.Failure without having marked anything
        when a count is refused or odd, or when more seems to be gone than may go at once.
        """
        return self._attend(entity, self._compare)

    def sweep(self, entity: Entity) -> Compared:
        """The same by all ids of the portal, 2,500 a request, without any count."""
        return self._attend(entity, self._sweep)

    def settle(self, entity: Entity, ids: Sequence[int], source: Source) -> Compared:
        """Look at single ids, of which the portal said that something happened to them."""

        def work(entity: Entity, done: Compared) -> None:
            parts = list(self._sides(entity))
            present = {i for sides in parts for i in self._present(sides, ids)}
            for sides in parts:
                gone = sides.among(sorted(set(ids) - present))
                if gone:
                    self._mark(entity, sides, gone, source, done)

        return self._attend(entity, work)

    def _attend(self, entity: Entity, work: Callable[[Entity, Compared], None]) -> Compared:
        before, begun = self._client.stats.snapshot(), self._taken_in.pop(entity.name, None)
        done = begun if isinstance(begun, Compared) else Compared(entity.name)
        if not self._loaded(entity):
            done.note = "not loaded from its beginning yet"
            return done
        try:
            if isinstance(begun, dg.Failure):
                raise begun
            work(entity, done)
        except dg.Failure as failed:
            if not (entity.name.startswith("crm_dynamic_items_") and code_of(failed) == "NOT_FOUND"):
                raise
            done.note = "the portal no longer has this smart process; its table stays as it is"
        if overlooked := self._overlooked.pop(entity.name, None):
            overlooked.settled()
        done.requests = self._client.stats.since(before).requests
        return done

    def _loaded(self, entity: Entity) -> bool:
        return self._warehouse.watermark(f"{DATABASE}/{entity.name}") is not None

    def _screened(self, entities: Sequence[Entity]) -> dict[str, list[Screen]]:
        found: dict[str, list[Screen]] = {}
        for entity in filter(self._loaded, entities):
            try:
                found[entity.name] = [self._counted_here(sides) for sides in self._sides(entity)]
            except dg.Failure as failed:
                if len(entities) == 1:
                    raise
                self._log(f"{entity.name} is counted by itself: {failed.description}")
        screens = [screen for of_one in found.values() for screen in of_one]
        changed = {name: over.changed for name in found if (over := self._overlooked.get(name))}
        asked: list[Counted] = [s.sides.counting(wanted) for s in screens for wanted in s.ranges]
        asked += [part for parts in changed.values() for part in parts]
        totals = iter(self._client.totals(asked))
        for screen in screens:
            screen.there = [next(totals) for _ in screen.ranges]
        for name, parts in changed.items():
            if parts:
                self._overlooked[name].counted([next(totals) for _ in parts])
        return found

    def _counted_here(self, sides: Sides) -> Screen:
        ranges = ranges_of(sides.edges(SCREEN_ROWS))
        return Screen(sides, ranges, [rows for rows, _ in sides.here(ranges)])

    def _compare(self, entity: Entity, done: Compared) -> None:
        try:
            for screen in self._screens.pop(entity.name, None) or self._screened([entity])[entity.name]:
                self._look_closer(entity, screen, done)
        except Uncounted:
            self._sweep(entity, done)
        except OddCounts as odd:
            raise TransientSourceError(
                f"{odd.description} {entity.name} can be compared without counts: "
                f"`svod reconcile {entity.name} --sweep`."
            ) from None

    def _look_closer(self, entity: Entity, screen: Screen, done: Compared) -> None:
        counts = known(screen.there)
        here, there = sum(screen.here), sum(counts[:-1])  # the last range is of rows that are new there
        if here and not there:
            screen.sides.there([(0, None)])  # raises if rows are listed and not counted
        self._allow(entity, here - there, here)
        done.rows_here, done.rows_there = done.rows_here + here, done.rows_there + there
        pairs = zip(screen.ranges, screen.here, counts, strict=True)
        differing = [r for r, ours, theirs in pairs if ours != theirs]
        found = differences(screen.sides, differing) if differing else Differences()
        if found.gone:
            found.gone = sorted(set(found.gone) - screen.sides.present(found.gone))
        self._apply(entity, screen.sides, found, done)

    def _sweep(self, entity: Entity, done: Compared) -> None:
        done.note, done.rows_here, done.rows_there = "every id was read", 0, 0
        for sides in self._sides(entity):
            here, found, witness = sides.count(), Differences(), None
            for wanted in ranges_of(sides.edges(SWEEP_ROWS)[:-1]):
                ids = sides.listed(wanted)
                witness = max(ids, default=witness)
                done.rows_there += len(ids)
                swept(ids, sides.ids_here([wanted])[0], wanted, found)
                self._allow(entity, len(found.gone), here)
            done.rows_here += here
            unlisted = found.gone
            found.gone = sorted(sides.absent(unlisted, witness)) if unlisted else []
            if len(unlisted) > len(found.gone):
                done.note += f"; {len(unlisted) - len(found.gone)} rows are not listed, but not surely gone"
            self._apply(entity, sides, found, done)

    def _present(self, sides: Sides, ids: Sequence[int]) -> set[int]:
        try:
            return sides.present(ids)
        except Uncounted:
            return set(ids) - sides.absent(ids, None)

    def _sides(self, entity: Entity) -> Iterator[Sides]:
        """The lists that make the entity's table up, each against its own rows."""
        for call, rows in self._parts_of(entity):
            view = f"bi.{quote(entity.name)} WHERE {rows}"
            yield Sides(self._client, call.ids_only(), self._warehouse, view, entity.key[0])

    def _parts_of(self, entity: Entity) -> list[tuple[ListCall, str]]:
        if entity.name not in self._parts:
            # Of an object the last known field list is enough to count, and needs no request.
            known = entity.strategy == "object" and list_call(entity, self._facts.last_known(entity))
            self._parts[entity.name] = [(known, "1")] if known else self._reader(entity).parts()
        return self._parts[entity.name]

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
        raise self._too_many(entity, gone, f"{here} rows ({gone / here:.0%})")

    def _allow_funnels(self, entity: Entity, sides: Sides, gone: Sequence[int]) -> None:
        """Raise if so many rows of one funnel seem to be gone, though few of the table: rights are given by
        funnel."""
        if self._confirmed or len(gone) <= FEW:
            return
        going = Counter[str]()
        for funnel, rows in sides.by_funnel(gone):
            going[funnel] += rows
        totals = dict(sides.by_funnel())
        for funnel, rows in going.items():
            if rows > FEW and rows * 100 > totals[funnel] * self._settings.deleted_share_pct:
                raise self._too_many(entity, rows, f"{totals[funnel]} rows of the funnel {funnel}")

    def _too_many(self, entity: Entity, gone: int, of: str) -> PermanentSourceError:
        return PermanentSourceError(
            f"{entity.name}: {gone} of {of} are not on the portal any more. That looks like lost rights of "
            "the webhook's user rather than deletions, so nothing was marked. Give the rights back; or, if "
            f"the rows were deleted, confirm it: `svod reconcile {entity.name} --confirm`. The limit is "
            "BITRIX24_DELETED_SHARE_PCT."
        )

    def _apply(self, entity: Entity, sides: Sides, found: Differences, done: Compared) -> None:
        """Act on differences whose `gone` the portal has confirmed."""
        if found.gone:
            self._mark(entity, sides, found.gone, "reconcile", done)
        elif entity.doubtful:
            self._gone_twice(entity, [], done)
        if found.missing or found.missing_ranges:
            self._load(entity, found.missing, found.missing_ranges, done)

    def _load(self, entity: Entity, ids: Sequence[int], ranges: Sequence[Range], done: Compared) -> None:
        table = self._table(entity)
        done.loaded += self._heal(entity, table, ids, ranges)
        done.restored += self._marks.restore(table, self._now(), ids)
        done.restored += self._marks.restore(table, self._now())

    def _mark(
        self, entity: Entity, sides: Sides, gone: Sequence[int], source: Source, done: Compared
    ) -> None:
        """Mark rows that the portal, asked for them, does not have."""
        at = self._now()
        self._allow(entity, len(gone), sides.count())
        table = self._table(entity)
        if "CATEGORY_ID" in {c.name for c in table.columns}:
            self._allow_funnels(entity, sides, gone)
        if entity.doubtful and source == "reconcile":
            gone = self._gone_twice(entity, gone, done)
        done.marked += self._marks.mark(table, gone, source, at)

    def _gone_twice(self, entity: Entity, gone: Sequence[int], done: Compared) -> list[int]:
        """Those that were gone at the comparison before, too."""
        name = f"bitrix24/gone/{entity.name}"
        text, _ = self._warehouse.notes([name]).get(name, ("[]", None))
        earlier = set(json.loads(text))
        if set(gone) != earlier:
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


def rights(
    client: Bitrix24Client, funnels_of: Mapping[str, int], openings: Sequence[tuple[ListCall, Window]] = ()
) -> dict[str, list[str]]:
    """What the credential may see, as sets of names; what the portal does not tell is left out.

    `funnels_of`: table -> entityTypeId. `openings` travel in the same request.
    """
    asked = [("crm.category.list", {"entityTypeId": n}) for n in funnels_of.values()]
    profile, scopes, *funnels = client.call_many([("profile", {}), ("scope", {}), *asked], openings)
    found: dict[str, list[str]] = {}
    if isinstance(profile, dict):
        found["rights"] = ["administrator"] if profile.get("ADMIN") in (True, "Y", "1", "true") else []
    if isinstance(scopes, list):
        found["scopes"] = sorted(map(str, scopes))
    for table, answer in zip(funnels_of, funnels, strict=True):
        if isinstance(answer, dict):
            listed = answer.get("categories") or []
            found[FUNNELS + table] = sorted(str(row.get("id")) for row in listed if isinstance(row, dict))
        elif isinstance(answer, CommandError) and answer.code not in NOT_HERE:
            found[FUNNELS + table] = []
    return found


def lost_rights(now: Mapping[str, list[str]], before: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """What the credential could see before and cannot see now."""
    both = {kind: sorted(set(before[kind]) - set(now[kind])) for kind in before if kind in now}
    return {kind: lost for kind, lost in both.items() if lost}


def guard_rights(
    client: Bitrix24Client,
    warehouse: WarehouseResource,
    *,
    confirmed: bool,
    openings: Sequence[tuple[ListCall, Window]] = (),
) -> None:
    """Raise if the credential sees less than at the comparison before, unless that is `confirmed`.

    `openings` travel in the same request.
    """
    tables = {e.name: e.entity_type_id for e in counted_entities(warehouse)}
    funnels_of = {t: n for t, n in tables.items() if n and (n == DEALS or n >= SMART_INVOICES)}
    now = rights(client, funnels_of, openings)
    text, _ = warehouse.notes([RIGHTS_NOTE]).get(RIGHTS_NOTE, ("{}", None))
    before = json.loads(text)
    lost = {k: v for k, v in lost_rights(now, before).items() if _matters(warehouse, k, v)}
    if lost and not confirmed:
        said = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in lost.items())
        raise PermanentSourceError(
            f"The webhook's user sees less than at the last comparison ({said}), so rows that are missing "
            "may be hidden rather than deleted, and nothing was marked. Give the rights back, or confirm the "
            "change: `svod reconcile --confirm`."
        )
    if now != before:
        warehouse.note(RIGHTS_NOTE, json.dumps(before | now))


def _matters(warehouse: WarehouseResource, kind: str, lost: Sequence[str]) -> bool:
    """Whether rows are at stake: a funnel without any may have been deleted."""
    if not kind.startswith(FUNNELS):
        return True
    view = f"bi.{quote(kind.removeprefix(FUNNELS))}"
    sql = f"SELECT count() FROM {view} WHERE has({{lost:Array(String)}}, toString(ifNull(CATEGORY_ID, '')))"
    return bool(warehouse.query(sql, {"lost": list(lost)})[0][0])
