"""MTS Link assets: one a method of the endpoint table, all made by one factory."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from etl_assets.loading import (
    FEED_TAG,
    OWNERS,
    Bounds,
    Loaded,
    check_specs,
    column_schema,
    load_incremental,
    load_snapshot,
    report,
)
from etl_assets.mts_link.endpoints import ENDPOINTS, PRIVACY, Endpoint
from etl_assets.mts_link.loads import (
    REST,
    Source,
    load_children,
    load_schedule,
    newer_than_all,
    retire_unseen,
)
from etl_assets.mts_link.parents import ASSETS, DATABASE
from etl_assets.mts_link.plan import Mode
from etl_assets.mts_link.reading import FolderReader, ListReader, Unreadable, WindowReader
from etl_assets.mts_link.settings import MtsLinkSettings
from etl_assets.mts_link.tables import SESSIONS, RowMaker, table_of
from etl_assets.partitions import daily, window_of
from resources.clickhouse import WarehouseResource
from resources.mts_link import MtsLinkResource

GROUPS = {
    "addressbook": "Адресная книга",
    "chats": "Чаты и курсы",
    "events": "Мероприятия",
    "files": "Файлы и записи",
    "organisation": "Организация и настройки",
    "tests": "Тесты и голосования",
}
PERSONAL = frozenset({"staff", "attendance", "chats", "transcripts", "contacts", "tests", "courses"})
CADENCE, BY_HAND = "mts_link/cadence", "svod/by_hand"
NIGHTLY = "nightly"  # the value of FEED_TAG in the run that also looks back
SESSIONS_OF = "organization_events_schedule"
RETRY = dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)


def asset_key(endpoint: Endpoint) -> dg.AssetKey:
    return dg.AssetKey([DATABASE, endpoint.name])


def description(endpoint: Endpoint, settings: MtsLinkSettings) -> str:
    """What the asset page says: meaning, grain, key, freshness, source, class of data."""
    privacy = PRIVACY[endpoint.privacy]
    cron = settings.hourly if endpoint.hourly else settings.nightly
    lines = [
        f"{endpoint.about}\n",
        f"**Grain** one row per {', '.join(endpoint.key)}; `bi.{endpoint.name}` shows the current rows.  ",
    ]
    if endpoint.parent:
        lines.append(
            f"**Fan-out** one question for each row of `{DATABASE}/{ASSETS[endpoint.parent]}`; asked again "
            f"when the row changes, and every night for {settings.lookback_days} days after its end. "
            f"Refusals are in `{DATABASE}._errors`.  "
        )
    if endpoint.partitioned:
        what = "day of the parent" if endpoint.parent else f"day of `{endpoint.day}`"
        lines.append(f"**Partition** {what}, {settings.zone}.  ")
    lines += [
        f"**Freshness** `{cron}`.  ",
        f"**Source** `{endpoint.source}`.  ",
        f"**Class** `{endpoint.privacy}`: {privacy.about}"
        + ("." if endpoint.privacy in settings.classes else "; **off**, until MTS_LINK_CLASSES names it."),
    ]
    return "\n".join(lines)


def build_asset(endpoint: Endpoint, settings: MtsLinkSettings) -> dg.AssetsDefinition:
    """The asset `mts_link/<endpoint>`."""
    key = asset_key(endpoint)
    on = endpoint.privacy in settings.classes
    parent = ASSETS.get(endpoint.parent)
    tags = {"source": DATABASE, "mts_link/group": endpoint.group, "mts_link/class": endpoint.privacy}
    tags |= {"pii": ""} if endpoint.privacy in PERSONAL else {}
    tags |= {CADENCE: "hourly" if endpoint.hourly else NIGHTLY}
    tags |= {} if on and endpoint.name != "user_profile" else {BY_HAND: ""}

    @dg.asset(
        key=key,
        deps=[dg.AssetKey([DATABASE, parent])] if parent else None,
        partitions_def=daily(settings.start_date, settings.zone) if endpoint.partitioned else None,
        backfill_policy=dg.BackfillPolicy.single_run() if endpoint.partitioned else None,
        group_name=DATABASE,
        kinds={DATABASE, "clickhouse"},
        owners=OWNERS,
        pool=DATABASE,
        tags=tags,
        metadata={
            "dagster/table_name": f"{DATABASE}.{endpoint.name}",
            "dagster/column_schema": column_schema(table_of(endpoint, settings.zone)),
            "group": GROUPS[endpoint.group],
        },
        description=description(endpoint, settings),
        check_specs=[*check_specs(key), *_parents_spec(endpoint)],
        op_tags={"dagster/priority": "-1" if endpoint.parent else "0"},
        retry_policy=RETRY,
        freshness_policy=_freshness(endpoint) if on else None,
    )
    def _asset(
        context: dg.AssetExecutionContext, mts_link: MtsLinkResource, warehouse: WarehouseResource
    ) -> dg.MaterializeResult:
        if not on:
            return skipped(
                endpoint, f"The class {endpoint.privacy} is off: MTS_LINK_CLASSES does not name it."
            )
        if endpoint.name == "user_profile" and not mts_link.oauth_token:
            return skipped(endpoint, "MTS_LINK_OAUTH_TOKEN is not set, and an API key is refused here.")
        return load_endpoint(context, endpoint, settings, mts_link, warehouse)

    return _asset


def _freshness(endpoint: Endpoint) -> dg.FreshnessPolicy:
    fail, warn = (6, 3) if endpoint.hourly else (50, 26)
    return dg.FreshnessPolicy.time_window(
        fail_window=timedelta(hours=fail), warn_window=timedelta(hours=warn)
    )


def _parents_spec(endpoint: Endpoint) -> list[dg.AssetCheckSpec]:
    if not endpoint.parent:
        return []
    return [
        dg.AssetCheckSpec(
            "parents",
            asset=asset_key(endpoint),
            description="Every row that was asked for was answered; the others are in mts_link._errors.",
        )
    ]


def skipped(endpoint: Endpoint, why: str) -> dg.MaterializeResult:
    """A load that reads nothing, and says why."""
    specs = [*check_specs(asset_key(endpoint)), *_parents_spec(endpoint)]
    checks = [
        dg.AssetCheckResult(check_name=spec.name, passed=True, description="Nothing was read.")
        for spec in specs
    ]
    return dg.MaterializeResult(metadata={"skipped": why}, check_results=checks)


def load_endpoint(
    context: dg.AssetExecutionContext,
    endpoint: Endpoint,
    settings: MtsLinkSettings,
    mts_link: MtsLinkResource,
    warehouse: WarehouseResource,
) -> dg.MaterializeResult:
    """Read one method into its table, as far as the run asks for it."""
    feed = context.run.tags.get(FEED_TAG)
    mode: Mode = "asked" if feed is None else NIGHTLY if feed == NIGHTLY or not endpoint.hourly else "hourly"
    asset = context.asset_key.to_user_string()
    mark = warehouse.watermark(asset) if feed is not None else None
    client = mts_link.client
    if feed not in (None, NIGHTLY) and not endpoint.hourly and mark and client.now() - mark < REST:
        return skipped(endpoint, f"Read once a night; the last time was {mark:%Y-%m-%d %H:%M} UTC.")
    zone = ZoneInfo(settings.zone)
    oldest = {name: client.now() - timedelta(days=days) for name, days in settings.retention.items()}
    maker = RowMaker(endpoint, mts_link.scrubber, zone, settings.classes, oldest)
    source = Source(endpoint, settings, client, maker, zone)
    wanted = Bounds(*window_of(context)) if endpoint.partitioned and feed is None else Bounds()
    if endpoint.parent:
        result = load_children(context, source, warehouse, mode, wanted)
        return _told(context, maker, result)
    if endpoint.window and endpoint.window.whole_at_night and mode == NIGHTLY:
        mark = None
    if endpoint.strategy == "window" and mark:
        back = timedelta(days=_lookback(endpoint, settings, mode))
        wanted = Bounds(mark - back, overlap=back)
    try:
        loaded = _load_list(context, source, warehouse, wanted)
    except Unreadable as why:
        return skipped(endpoint, str(why))
    day = endpoint.day if loaded.result.rows else None  # the plot of an hour without news is the last one
    result = report(context, warehouse, loaded, day_column=day, zone=settings.zone)
    return _told(context, maker, result)


def _lookback(endpoint: Endpoint, settings: MtsLinkSettings, mode: Mode) -> int:
    assert endpoint.window is not None
    usual = endpoint.window.lookback_days
    return max(usual, settings.lookback_days) if mode == "nightly" else usual


def _load_list(
    context: dg.AssetExecutionContext, source: Source, warehouse: WarehouseResource, wanted: Bounds
) -> Loaded:
    """One method that is asked as a whole, or period by period."""
    endpoint, client, maker, log = source.endpoint, source.client, source.maker, context.log.info
    table = table_of(endpoint, source.settings.zone)
    if endpoint.name == SESSIONS_OF:
        return load_schedule(context, source, warehouse, wanted)
    if endpoint.strategy == "window":
        maker.floor = newer_than_all(warehouse, table)
        reader = WindowReader(endpoint, client, maker, log, zone=source.zone)

        def after(bounds: Bounds, source_time: datetime) -> None:
            retire_unseen(warehouse, table, endpoint.day or "", bounds, reader.first_read)

        return load_incremental(context, warehouse, table, reader, wanted, after)
    if endpoint.strategy == "folders":
        return load_snapshot(context, warehouse, table, FolderReader(endpoint, client, maker, log))
    extra = source.settings.contacts_filter if endpoint.name == "contacts_search" else {}
    return load_snapshot(context, warehouse, table, ListReader(endpoint, client, maker, log, extra=extra))


def _told(
    context: dg.AssetExecutionContext, maker: RowMaker, result: dg.MaterializeResult
) -> dg.MaterializeResult:
    """The result with the fields that are new to us: their names, never their values."""
    if not maker.unknown:
        return result
    names = ", ".join(sorted(maker.unknown)[:50])
    context.log.info("Fields that have no column stand in `raw`: %s", names)
    return dg.MaterializeResult(
        metadata={**(result.metadata or {}), "fields_in_raw_only": names}, check_results=result.check_results
    )


def build_assets(
    settings: MtsLinkSettings, endpoints: Iterable[Endpoint] = ENDPOINTS
) -> list[dg.AssetsDefinition]:
    """All assets of the endpoint table."""
    return [build_asset(e, settings) for e in endpoints]


def table_specs(settings: MtsLinkSettings) -> list[dg.AssetSpec]:
    """What loads keep in step by themselves: the table of sessions, and the `bi` views."""
    sessions = dg.AssetSpec(
        key=asset_key(SESSIONS),
        deps=[dg.AssetKey([DATABASE, SESSIONS_OF])],
        group_name=DATABASE,
        kinds={DATABASE, "clickhouse"},
        owners=OWNERS,
        description=SESSIONS.about,
        metadata={
            "dagster/table_name": f"{DATABASE}.{SESSIONS.name}",
            "dagster/column_schema": column_schema(table_of(SESSIONS, settings.zone)),
        },
    )
    return [sessions, *(view_spec(e) for e in (*ENDPOINTS, SESSIONS))]


def view_spec(endpoint: Endpoint) -> dg.AssetSpec:
    """`bi.<endpoint>`: the current rows of one table."""
    return dg.AssetSpec(
        key=["bi", endpoint.name],
        deps=[asset_key(endpoint)],
        group_name="bi",
        kinds={"clickhouse", "view"},
        owners=OWNERS,
        description=f"{endpoint.about}\n\nCurrent rows of `{DATABASE}.{endpoint.name}`: one a key. "
        "The load itself keeps the view in step with the table.",
        metadata={"dagster/table_name": f"bi.{endpoint.name}"},
    )
