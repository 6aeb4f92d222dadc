"""Checks that ask the portal or read a whole table: on demand and once a night, not with every load."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from etl_assets.bitrix24.assets import asset_key
from etl_assets.bitrix24.entities import OBJECTS, Entity
from resources.bitrix24 import Bitrix24Resource, CommandError, preflight
from resources.clickhouse import WarehouseResource
from resources.clickhouse.table import quote

COUNTED = OBJECTS


def build_checks() -> list[dg.AssetChecksDefinition]:
    return [completeness, unique_keys, rights]


@dg.multi_asset_check(
    name="bitrix24_completeness",
    can_subset=True,
    specs=[
        dg.AssetCheckSpec("complete", asset=asset_key(e), description="As many rows as the portal counts.")
        for e in COUNTED
    ],
)
def completeness(
    context: dg.AssetCheckExecutionContext, bitrix24: Bitrix24Resource, warehouse: WarehouseResource
) -> Iterator[dg.AssetCheckResult]:
    """Compare row counts with the portal's own, all in one request."""
    entities = _selected(context)
    totals = bitrix24.client.totals([_count_call(e) for e in entities])
    for entity, total in zip(entities, totals, strict=True):
        yield _compared(entity.name, total, warehouse, asset_key(entity))


def _selected(context: dg.AssetCheckExecutionContext) -> list[Entity]:
    wanted = {k.asset_key for k in context.selected_asset_check_keys}
    return [e for e in COUNTED if asset_key(e) in wanted]


def _count_call(entity: Entity) -> tuple[str, dict[str, Any]]:
    if entity.universal:
        return entity.method, {"entityTypeId": entity.entity_type_id, "select": ["id"]}
    return entity.method, {"select": ["ID"]}


def _compared(
    name: str, total: int | CommandError, warehouse: WarehouseResource, key: dg.AssetKey
) -> dg.AssetCheckResult:
    if isinstance(total, CommandError):
        return dg.AssetCheckResult(
            asset_key=key,
            check_name="complete",
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description=total.message,
        )
    if warehouse.watermark(key.to_user_string()) is None:
        text = "Not loaded from its beginning yet: nothing to compare"
        return dg.AssetCheckResult(asset_key=key, check_name="complete", passed=True, description=text)
    here = int(warehouse.query(f"SELECT count() FROM bi.{quote(name)}")[0][0])
    return dg.AssetCheckResult(
        asset_key=key,
        check_name="complete",
        passed=here >= total,
        severity=dg.AssetCheckSeverity.WARN,
        description=None if here >= total else f"{total - here} rows of the portal are missing here",
        metadata={"rows_on_the_portal": total, "rows_here": here},
    )


@dg.multi_asset_check(
    name="bitrix24_unique_keys",
    can_subset=True,
    specs=[
        dg.AssetCheckSpec("unique_key", asset=asset_key(e), description="No key stands twice in the view.")
        for e in COUNTED
    ],
)
def unique_keys(
    context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource
) -> Iterator[dg.AssetCheckResult]:
    """Count rows and distinct keys of the `bi` views."""
    present = {name for (name,) in warehouse.query("SELECT name FROM system.tables WHERE database = 'bi'")}
    for entity in _selected(context):
        rows, keys = (0, 0)
        if entity.name in present:
            key = ", ".join(quote(k) for k in entity.key)
            rows, keys = warehouse.query(f"SELECT count(), uniqExact({key}) FROM bi.{quote(entity.name)}")[0]
        yield dg.AssetCheckResult(
            asset_key=asset_key(entity),
            check_name="unique_key",
            passed=rows == keys,
            metadata={"rows": int(rows), "keys": int(keys)},
        )


@dg.asset_check(
    asset=dg.AssetKey(["bitrix24", "crm_owner_type"]),
    name="webhook_rights",
    description="What the webhook may read: the owner's rights, the scopes and the methods.",
)
def rights(bitrix24: Bitrix24Resource) -> dg.AssetCheckResult:
    """One table of what is missing."""
    rows = preflight(bitrix24.client)
    table = "\n".join(f"| {'✓' if r.ok else '✗'} | {r.subject} | {r.detail} |" for r in rows)
    return dg.AssetCheckResult(
        passed=all(r.ok for r in rows),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"rights": dg.MetadataValue.md(f"| | subject | detail |\n|---|---|---|\n{table}")},
    )
