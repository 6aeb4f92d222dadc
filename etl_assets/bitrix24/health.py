"""The asset `bitrix24/health`: how each entity is, in one table and one picture."""

import base64
import io
from datetime import UTC, datetime

import dagster as dg
import orjson

from etl_assets.bitrix24.assets import Bitrix24Settings
from etl_assets.bitrix24.comparing import counted_entities
from etl_assets.bitrix24.entities import ENTITIES, FEED, WORK, Entity
from etl_assets.bitrix24.structure import DATABASE
from etl_assets.loading import OWNERS, column_schema
from resources.bitrix24 import Bitrix24Client, Bitrix24Resource, CommandError
from resources.clickhouse import Column, Table, WarehouseResource
from resources.clickhouse.table import quote
from resources.clickhouse.values import FLOAT64, INSTANT, INTEGER, TEXT

HEALTH = Table(
    database=DATABASE,
    name="health",
    columns=(
        Column("checked_at", "checked_at", INSTANT, "When, by the portal's clock", required=True),
        Column("entity", "entity", TEXT, "Table", required=True),
        Column("rows_here", "rows_here", INTEGER, "Rows of the view"),
        Column("rows_there", "rows_there", INTEGER, "Rows that the portal counts; empty where it does not"),
        Column("lag_s", "lag_s", INTEGER, "Seconds since which changes may be missing"),
        Column("loaded_at", "loaded_at", INSTANT, "Last load"),
        Column("changed_at", "changed_at", INSTANT, "Last load that brought a row"),
        Column("loads_24h", "loads_24h", INTEGER, "Loads of a day"),
        Column("requests_24h", "requests_24h", INTEGER, "HTTP requests of a day"),
        Column("waited_s_24h", "waited_s_24h", FLOAT64, "Seconds waited for the portal's limits in a day"),
        Column("rejected_24h", "rejected_24h", INTEGER, "Rows of a day with a value that did not fit"),
        Column("operating_s", "operating_s", FLOAT64, "Execution time used up of the method, seconds of 480"),
    ),
    key=("checked_at", "entity"),
    comment="How each entity of Bitrix24 is, hour by hour",
)
KEY = dg.AssetKey([DATABASE, HEALTH.name])
LAG_LIMIT_S = {FEED: 3600, WORK: 3 * 3600}
DAILY_LIMIT_S = 50 * 3600
LOG = """SELECT splitByChar('/', asset)[2], dateDiff('second', max(watermark), now64(3, 'UTC')),
  max(finished_at), maxIf(finished_at, rows > 0), countIf(recent), sumIf(requests, recent),
  sumIf(waited_s, recent), sumIf(rejected, recent), countIf(watermark IS NOT NULL)
FROM (SELECT *, finished_at > now() - INTERVAL 1 DAY AS recent FROM svod.load_log)
WHERE startsWith(asset, 'bitrix24/') GROUP BY asset ORDER BY asset"""


def build_health(settings: Bitrix24Settings) -> dg.AssetsDefinition:
    @dg.asset(
        key=KEY,
        group_name=DATABASE,
        kinds={"bitrix24", "clickhouse"},
        owners=OWNERS,
        pool=DATABASE,
        tags={"source": "bitrix24"},
        metadata={"dagster/table_name": HEALTH.full_name, "dagster/column_schema": column_schema(HEALTH)},
        description=f"{HEALTH.comment}: rows here and there, lag, last change, requests and waits of a day, "
        "use of the portal's budget.\n\n**Grain** one row per checked_at, entity.  \n"
        "**Freshness** `50 * * * *`.  \n**Source** the load log and the portal's counts.",
        op_tags={"dagster/priority": "-3"},  # after everything else of the same run
        check_specs=[
            dg.AssetCheckSpec("no_lag", asset=KEY, description="Every entity was loaded when it should be."),
            dg.AssetCheckSpec("as_many_rows", asset=KEY, description="As many rows as the portal counts."),
        ],
    )
    def health(
        context: dg.AssetExecutionContext, bitrix24: Bitrix24Resource, warehouse: WarehouseResource
    ) -> dg.MaterializeResult:
        rows = measure(bitrix24.client, warehouse)
        table, _ = warehouse.ensure(HEALTH)
        at = bitrix24.client.server_time()
        with warehouse.load(table, asset=KEY.to_user_string(), run_id=context.run.run_id) as load:
            stamped = [orjson.dumps({"checked_at": at.isoformat(), **row}) for row in rows]
            load.add(b"\n".join(stamped), len(stamped), at)
            load.finish(kind="increment", source_time=at)
        return reported(rows, settings)

    return health


def measure(client: Bitrix24Client, warehouse: WarehouseResource) -> list[dict[str, object]]:
    """One row per entity that was ever loaded; the portal is asked for all counts at once."""
    log = {row[0]: row[1:] for row in warehouse.query(LOG)}
    views = {name for (name,) in warehouse.query("SELECT name FROM system.tables WHERE database = 'bi'")}
    names = sorted(set(log) & views - {HEALTH.name})
    there = _counts(client, [e for e in counted_entities(warehouse) if e.name in names])
    used = client.stats.operating
    methods = {e.name: e.method for e in ENTITIES}
    rows = []
    for name in names:
        lag, loaded, changed, loads, requests, waited, rejected, marked = log[name]
        here = int(warehouse.query(f"SELECT count() FROM bi.{quote(name)}")[0][0])
        rows.append(
            {
                "entity": name,
                "rows_here": here,
                "rows_there": there.get(name),
                "lag_s": int(lag) if marked else None,
                "loaded_at": _iso(loaded),
                "changed_at": _iso(changed),
                "loads_24h": int(loads),
                "requests_24h": int(requests),
                "waited_s_24h": round(float(waited), 1),
                "rejected_24h": int(rejected),
                "operating_s": used.get(methods.get(name, "crm.item.list")),
            }
        )
    return rows


def _counts(client: Bitrix24Client, entities: list[Entity]) -> dict[str, int]:
    """What the portal counts, of entities that are one list; a refusal leaves its entity out."""
    asked: list[tuple[str, dict[str, object]]] = []
    listed = [e for e in entities if e.strategy == "object"]
    for entity in listed:
        params: dict[str, object] = {"select": ["ID"]}
        if entity.universal:
            params = {"entityTypeId": entity.entity_type_id, "select": ["id"]}
        asked.append((entity.method, params))
    totals = client.totals(asked)
    return {e.name: t for e, t in zip(listed, totals, strict=True) if not isinstance(t, CommandError)}


def _iso(at: datetime | None) -> str | None:
    if at is None or at.year < 1972:
        return None
    return (at.replace(tzinfo=UTC) if at.tzinfo is None else at).isoformat()


def reported(rows: list[dict[str, object]], settings: Bitrix24Settings) -> dg.MaterializeResult:
    """The table, the picture and the checks of one measurement."""
    crons = {e.name: settings.cron(e) for e in ENTITIES}
    late = [r for r in rows if _late(r, crons.get(str(r["entity"]), FEED))]
    fewer = [r for r in rows if isinstance(there := r["rows_there"], int) and there != r["rows_here"]]
    return dg.MaterializeResult(
        metadata={
            "entities": len(rows),
            "entities_late": len(late),
            "requests_24h": sum(int(str(r["requests_24h"])) for r in rows),
            "waited_s_24h": sum(float(str(r["waited_s_24h"])) for r in rows),
            "health": dg.MetadataValue.md(_table(rows)),
            "lag": dg.MetadataValue.md(_plot(rows)),
        },
        check_results=[_check("no_lag", late), _check("as_many_rows", fewer)],
    )


def _late(row: dict[str, object], cron: str) -> bool:
    lag = row["lag_s"]
    return bool(cron) and isinstance(lag, int) and lag > LAG_LIMIT_S.get(cron, DAILY_LIMIT_S)


def _check(name: str, wrong: list[dict[str, object]]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name,
        passed=not wrong,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"entities": ", ".join(str(r["entity"]) for r in wrong) or "none"},
    )


def _table(rows: list[dict[str, object]]) -> str:
    names = [c.name for c in HEALTH.columns if c.name != "checked_at"]
    head = f"| {' | '.join(names)} |\n|{'---|' * len(names)}\n"
    lines = ("| " + " | ".join("" if r[n] is None else str(r[n]) for n in names) + " |" for r in rows)
    return head + "\n".join(lines)


def _plot(rows: list[dict[str, object]]) -> str:
    """Lag in minutes, the latest entities first; markdown with an inline PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # imported late: it takes half a second
    from matplotlib.figure import Figure

    lags = sorted((int(str(r["lag_s"])) / 60, str(r["entity"])) for r in rows if r["lag_s"] is not None)[-25:]
    figure = Figure(figsize=(7, 0.6 + 0.2 * len(lags)), dpi=80)
    axes = figure.subplots()
    axes.barh([name for _, name in lags], [minutes for minutes, _ in lags], color="#4c78a8")
    axes.set_xlabel("minutes behind the portal")
    figure.tight_layout()
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return f"![lag by entity](data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()})"
