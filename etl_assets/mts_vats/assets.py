"""MTS VATS assets: trunks as they are, and since when; one step reads the cabinets and loads both."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from etl_assets.loading import (
    OWNERS,
    Bounds,
    Loaded,
    check_specs,
    column_schema,
    load_incremental,
    report,
)
from etl_assets.mts_vats.history import COMPARED, Key, Row, changes, went_off
from etl_assets.mts_vats.reading import RowReader, TrunkReader
from etl_assets.mts_vats.tables import DATABASE, TABLES, TRUNK_STATES, TRUNKS
from resources.clickhouse import Table, WarehouseResource
from resources.clickhouse.table import DELETED
from resources.errors import PermanentSourceError
from resources.mts_vats import MtsVatsResource

TRUNKS_KEY, STATES_KEY = dg.AssetKey([DATABASE, "trunks"]), dg.AssetKey([DATABASE, "trunk_states"])
SHOWN = 20  # trunks or reasons in a message
CRON = "7 * * * *"

_ABOUT = {
    TRUNKS_KEY: (
        "SIP trunks of the cabinets: phone, SIP login, line, device, state.\n\n"
        "**Grain** one row per cabinet and abonent; a trunk that is no longer listed gets a tombstone, and "
        "`bi.trunks` shows those that exist.  \n"
        "**Snapshot**: each run reads the whole list and the form of every abonent.  \n"
        f"**Freshness** `{CRON}`.  \n"
        "**Source** `AbonentBrowserGwtService.list`, `DispatcherGwtService.getForm` (GWT-RPC of "
        "the cabinet's own page). SIP passwords are kept only with `MTS_VATS_READ_PASSWORDS`: encrypted, and "
        "not in `bi`."
    ),
    STATES_KEY: (
        "Since when a trunk is as it is: active, marked, device, enabled, line, login, phone.\n\n"
        "**Grain** one row per cabinet, abonent and `valid_from`; a row only when something changed, "
        "`changed` says what. `valid_to` is empty in the row that holds now.  \n"
        "**Gone** trunks have the state `gone`. A cabinet that could not be read changes nothing here.  \n"
        f"**Freshness** `{CRON}`.  \n**Source** what `{DATABASE}.trunks` was and is."
    ),
}


def _spec(key: dg.AssetKey, table: Table, deps: list[dg.AssetKey]) -> dg.AssetSpec:
    return dg.AssetSpec(
        key=key,
        deps=deps,
        group_name=DATABASE,
        kinds={"mts_vats", "clickhouse"},
        owners=OWNERS,
        tags={"source": "mts_vats", "pii": ""},
        description=_ABOUT[key],
        metadata={"dagster/table_name": table.full_name, "dagster/column_schema": column_schema(table)},
        freshness_policy=dg.FreshnessPolicy.time_window(
            fail_window=timedelta(hours=6), warn_window=timedelta(hours=2)
        ),
    )


_CHECKS = (
    *check_specs(TRUNKS_KEY),
    dg.AssetCheckSpec("complete", asset=TRUNKS_KEY, description="Every listed trunk could be read."),
    dg.AssetCheckSpec(
        "explained", asset=TRUNKS_KEY, description="Every combination of the list's flags is a known state."
    ),
    dg.AssetCheckSpec(
        "known_shapes",
        asset=TRUNKS_KEY,
        description="Forms have the classes that are known; otherwise they are read by patterns.",
    ),
    *check_specs(STATES_KEY),
    dg.AssetCheckSpec(
        "no_trunk_went_off", asset=STATES_KEY, description="No trunk that was on went off or was removed."
    ),
)


@dataclass
class _Result:
    """What one cabinet brought; `failure` instead, if it could not be read."""

    cabinet: str
    loaded: Loaded | None = None
    failure: str | None = None
    broken: Mapping[int, str] = field(default_factory=dict)
    unexplained: set[tuple[int, ...]] = field(default_factory=set)
    routes: set[str] = field(default_factory=set)


def build_assets() -> list[dg.AssetsDefinition]:
    """`mts_vats/trunks` and `mts_vats/trunk_states`."""

    @dg.multi_asset(
        name="mts_vats",
        specs=[_spec(TRUNKS_KEY, TRUNKS, []), _spec(STATES_KEY, TRUNK_STATES, [TRUNKS_KEY])],
        check_specs=_CHECKS,
        can_subset=True,
        pool=DATABASE,
        retry_policy=dg.RetryPolicy(
            max_retries=2, delay=60, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
        ),
    )
    def _assets(
        context: dg.AssetExecutionContext, mts_vats: MtsVatsResource, warehouse: WarehouseResource
    ) -> Iterator[dg.MaterializeResult]:
        for result in load_cabinets(context, mts_vats, warehouse):
            yield from _selected(context, result)

    return [_assets]


def _selected(
    context: dg.AssetExecutionContext, result: dg.MaterializeResult
) -> Iterator[dg.MaterializeResult]:
    """The result, if it is asked for. The other table is loaded all the same: they belong together."""
    assert result.asset_key is not None
    if result.asset_key not in context.selected_asset_keys:
        context.log_event(dg.AssetMaterialization(result.asset_key, metadata=result.metadata))
        return
    wanted = {key.name for key in context.selected_asset_check_keys if key.asset_key == result.asset_key}
    checks = [check for check in result.check_results or [] if check.check_name in wanted]
    yield dg.MaterializeResult(asset_key=result.asset_key, metadata=result.metadata, check_results=checks)


def view_specs() -> list[dg.AssetSpec]:
    """The `bi` views, which loads keep in step with their tables."""
    return [
        dg.AssetSpec(
            key=["bi", table.name],
            deps=[dg.AssetKey([DATABASE, table.name])],
            group_name="bi",
            kinds={"clickhouse", "view"},
            owners=OWNERS,
            description=f"{table.comment}.\n\nCurrent rows of `{table.full_name}`, without passwords.",
            metadata={"dagster/table_name": f"bi.{table.name}"},
        )
        for table in TABLES
    ]


def load_cabinets(
    context: dg.AssetExecutionContext, mts_vats: MtsVatsResource, warehouse: WarehouseResource
) -> Iterator[dg.MaterializeResult]:
    """Load every cabinet and its history; what one cannot give stops none of the others.

    Raises dagster.Failure at the end, when all that could be read is in, naming what could not.
    """
    names = mts_vats.names()
    vault = mts_vats.vault()
    warehouse.warm_up()
    results = [_load_cabinet(context, mts_vats, warehouse, name, vault) for name in names]
    read = [r for r in results if r.loaded]
    if read:
        listed_at = {r.cabinet: r.loaded.source_time for r in read if r.loaded}
        written, opened, loaded = _load_states(context, warehouse, listed_at)
        yield _trunks_report(context, warehouse, results)
        yield _states_report(context, warehouse, loaded, went_off(written, opened))
    failures = [r.failure for r in results if r.failure]
    failures += [_incomplete(r) for r in read if r.broken]
    if failures:
        raise dg.Failure("\n".join(failures), allow_retries=False)


def _load_cabinet(
    context: dg.AssetExecutionContext,
    mts_vats: MtsVatsResource,
    warehouse: WarehouseResource,
    name: str,
    vault: Any,
) -> _Result:
    with mts_vats.client(name) as client:
        reader = TrunkReader(client, vault)

        def retire(bounds: Bounds, source_time: datetime) -> None:
            table, _ = warehouse.plan(TRUNKS)
            had = 0 if reader.count or mts_vats.allow_empty else _live(warehouse, name)
            if had:
                raise PermanentSourceError(
                    f"Cabinet {name} lists no trunks, and had {had}. Nothing was taken away; if it is empty "
                    "indeed, set MTS_VATS_ALLOW_EMPTY=true."
                )
            warehouse.retire_children(table, "cabinet", [name], source_time, {})

        began = time.monotonic()
        try:
            loaded = load_incremental(context, warehouse, TRUNKS, reader, Bounds(), retire, key=TRUNKS_KEY)
        except dg.Failure as failure:
            if getattr(failure, "allow_retries", False) and len(mts_vats.names()) == 1:
                raise
            return _Result(name, failure=failure.description or "")
        context.log.info(
            "Cabinet %s: %d trunks, %d requests, %d logins, %d retries, %.1f s",
            *(name, reader.count, client.counters.requests, client.counters.logins),
            *(client.counters.retries, time.monotonic() - began),
        )
        return _Result(name, loaded, None, reader.broken, reader.unexplained, reader.routes)


def _live(warehouse: WarehouseResource, cabinet: str) -> int:
    sql = f"SELECT count() FROM {TRUNKS.sql_name} FINAL WHERE cabinet = {{c:String}} AND {DELETED} = 0"
    return int(warehouse.query(sql, {"c": cabinet})[0][0])


# History


def _load_states(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, listed_at: Mapping[str, datetime]
) -> tuple[list[Row], Mapping[Key, Row], Loaded]:
    """(rows written, the open rows before, the load) of the cabinets whose lists were read."""
    cabinets = list(listed_at)
    opened = _opened(warehouse, cabinets)
    written = changes(_current(warehouse, cabinets), opened, listed_at)
    reader = RowReader(written, max(listed_at.values()))
    loaded = load_incremental(context, warehouse, TRUNK_STATES, reader, Bounds(), key=STATES_KEY)
    return written, opened, loaded


def _current(warehouse: WarehouseResource, cabinets: list[str]) -> dict[Key, Row | None]:
    """The trunks that these cabinets list; None for one whose form could not be read."""
    rows = warehouse.query(
        f"SELECT cabinet, abonent_id, {', '.join(COMPARED)}, status, toUnixTimestamp64Milli(read_at) "
        f"FROM {TRUNKS.sql_name} FINAL WHERE cabinet IN {{c:Array(String)}} AND {DELETED} = 0",
        {"c": cabinets},
    )
    return {
        (cabinet, abonent): None if status == "error" else {**_values(compared), "seen_at": _instant(read)}
        for cabinet, abonent, *compared, status, read in rows
    }


def _opened(warehouse: WarehouseResource, cabinets: list[str]) -> dict[Key, Row]:
    if not warehouse.columns(TRUNK_STATES):
        return {}
    values = ", ".join(COMPARED)
    rows = warehouse.query(
        f"SELECT cabinet, abonent_id, {values}, is_on, changed, toUnixTimestamp64Milli(valid_from) "
        f"FROM {TRUNK_STATES.sql_name} FINAL WHERE cabinet IN {{c:Array(String)}} AND valid_to IS NULL",
        {"c": cabinets},
    )
    return {
        (cabinet, abonent): {
            **_values(compared),
            "is_on": on,
            "changed": list(changed),
            "valid_from": _instant(since),
        }
        for cabinet, abonent, *compared, on, changed, since in rows
    }


def _values(compared: list[Any]) -> Row:
    row = dict(zip(COMPARED, compared, strict=True))
    row["marks"] = tuple(row["marks"])
    return row


def _instant(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


# What the UI shows


def _trunks_report(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, results: list[_Result]
) -> dg.MaterializeResult:
    loads = [r.loaded for r in results if r.loaded]
    shown = report(context, warehouse, loads[-1], asset=TRUNKS_KEY)
    rows = warehouse.query(
        f"SELECT cabinet, state, count(), countIf(is_on = 1), countIf(status != 'ok') FROM {TRUNKS.sql_name} "
        f"FINAL WHERE {DELETED} = 0 GROUP BY cabinet, state ORDER BY cabinet, state"
    )
    lines = ["| cabinet | state | trunks | on | without a form |", "|---|---|--:|--:|--:|"]
    lines += [f"| {cabinet} | {state} | {n} | {on} | {bare} |" for cabinet, state, n, on, bare in rows]
    metadata = {
        **(shown.metadata or {}),
        "rows_loaded": sum(load.result.rows for load in loads),
        "http_requests": sum(load.spent.requests for load in loads),
        "seconds_of_requests": round(sum(load.spent.api_s for load in loads), 3),
        "trunks_by_state": dg.MetadataValue.md("\n".join(lines)),
    }
    checks = [c for c in shown.check_results or [] if c.check_name != "rejected_rows"]
    rejected = sum(load.result.rejected for load in loads)
    warn = dg.AssetCheckSeverity.WARN
    broken = [_incomplete(r) for r in results if r.broken] + [r.failure for r in results if r.failure]
    unexplained = sorted({flags for r in results for flags in r.unexplained})
    scanned = any("scan" in r.routes for r in results)
    flags, missing = str(unexplained) if unexplained else "none", "\n".join(broken) or "none"
    checks += [
        _check("rejected_rows", not rejected, warn, {"rows_rejected": rejected}),
        _check("complete", not broken, dg.AssetCheckSeverity.ERROR, {"missing": missing}),
        _check("explained", not unexplained, warn, {"w4 w6 w7 w9": flags}),
        _check("known_shapes", not scanned, warn, {"decoded_by": "scan" if scanned else "schema"}),
    ]
    return dg.MaterializeResult(asset_key=TRUNKS_KEY, metadata=metadata, check_results=checks)


def _check(
    name: str, passed: bool, severity: dg.AssetCheckSeverity, metadata: dict[str, Any]
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=TRUNKS_KEY, check_name=name, passed=passed, severity=severity, metadata=metadata
    )


def _states_report(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, loaded: Loaded, off: list[Row]
) -> dg.MaterializeResult:
    shown = report(context, warehouse, loaded, asset=STATES_KEY, day_column="valid_from")
    lines = [
        f"{r['cabinet']}: {r['line'] or r['abonent_id']}, {', '.join(r['changed'])}" for r in off[:SHOWN]
    ]
    lines += [f"and {len(off) - SHOWN} more"] if len(off) > SHOWN else []
    check = dg.AssetCheckResult(
        asset_key=STATES_KEY,
        check_name="no_trunk_went_off",
        passed=not off,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(off)} trunks went off" if off else None,
        metadata={"went_off": "\n".join(lines) or "none"},
    )
    return dg.MaterializeResult(
        asset_key=STATES_KEY, metadata=shown.metadata, check_results=[*(shown.check_results or []), check]
    )


def _incomplete(result: _Result) -> str:
    some = [f"{id_} ({why.rstrip('.')})" for id_, why in list(result.broken.items())[:SHOWN]]
    some += [f"and {len(result.broken) - SHOWN} more"] if len(result.broken) > SHOWN else []
    said = f"{len(result.broken)} trunks could not be read"
    return f"Cabinet {result.cabinet}: {said}: {'; '.join(some)}."
