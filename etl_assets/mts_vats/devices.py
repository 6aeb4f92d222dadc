"""Switching, adding and removing SIP devices: a job of its own, a dry run unless told otherwise."""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import dagster as dg
from pydantic import Field

from etl_assets.mts_vats.history import Row
from etl_assets.mts_vats.reading import batch, number
from etl_assets.mts_vats.tables import DATABASE, DEVICE_CHANGES, TRUNKS
from etl_assets.settings import switch, text
from resources.clickhouse import WarehouseResource
from resources.clickhouse.table import DELETED
from resources.errors import PermanentSourceError, TransientSourceError
from resources.mts_vats import MtsVatsClient, MtsVatsResource
from resources.mts_vats.answers import full_phone
from resources.mts_vats.devices import Change, DeviceState, Switch, change_device

JOB = "mts_vats_change_devices"
ALLOW = "MTS_VATS_ALLOW_WRITES"
MADE = ("planned", "unchanged", "done")


class Act(StrEnum):
    """What is done with a device."""

    on = "on"
    off = "off"
    add = "add"
    remove = "remove"


class DeviceChangeConfig(dg.Config):
    """Whose devices, and what is done with them."""

    action: Act = Field(description="on, off: switch the installed device; add, remove: install one or none.")
    phones: list[str] = Field(description="Phone numbers of trunks that have been loaded.")
    cabinet: str = Field(default="", description="The cabinet; may be empty if there is one.")
    dry_run: bool = Field(default=True, description=f"Only show. False needs {ALLOW}=true as well.")


@dg.op(
    name="change_devices",
    pool=DATABASE,
    tags={"source": "mts_vats"},
    description="Reads each form, shows or makes the change, reads the form again and compares.",
)
def change_devices(
    context: dg.OpExecutionContext,
    config: DeviceChangeConfig,
    mts_vats: MtsVatsResource,
    warehouse: WarehouseResource,
) -> None:
    """One phone after the other; one that fails stops none of the others, and the op fails at its end."""
    cabinet, guesses = _cabinet(config, mts_vats), _switch()
    if not config.dry_run and not switch(ALLOW):
        raise dg.Failure(
            f"Changes need {ALLOW}=true; without it only dry runs are made.", allow_retries=False
        )
    phones = _phones(config.phones)
    abonents = _abonents(warehouse, cabinet, phones)
    rows = []
    with mts_vats.client(cabinet, secrets=False) as client:
        for phone in phones:
            audit = _Audit(context, warehouse, config, cabinet, phone, abonents[phone])
            rows.append(_change(audit, client, guesses))
    _show(context, rows)


change_devices_job = dg.GraphDefinition(name=JOB, node_defs=[change_devices]).to_job(
    description="Switches, adds or removes SIP devices of listed phones; a dry run unless told otherwise.",
    executor_def=dg.in_process_executor,
)


class _Audit:
    """The row of one phone in mts_vats.device_changes: written before anything is sent, and at the end."""

    def __init__(
        self,
        context: dg.OpExecutionContext,
        warehouse: WarehouseResource,
        config: DeviceChangeConfig,
        cabinet: str,
        phone: str,
        abonent: int,
    ) -> None:
        self.config, self.phone, self.abonent = config, phone, abonent
        self._context, self._warehouse = context, warehouse
        self._row: Row = {
            "change_id": f"{context.run_id}/{cabinet}/{phone}",
            "requested_at": datetime.now(UTC),
            "run_id": context.run_id,
            "cabinet": cabinet,
            "abonent_id": abonent,
            "phone": phone,
            "action": config.action.value,
            "is_dry_run": int(config.dry_run),
        }

    def sending(self, before: DeviceState) -> None:
        self._write("sending", {"device_before": int(before.device), "enabled_before": int(before.enabled)})

    def ended(self, change: Change) -> Row:
        after = change.after
        states = {
            "device_before": int(change.before.device),
            "enabled_before": int(change.before.enabled),
            "device_after": number(after.device) if after else None,
            "enabled_after": number(after.enabled) if after else None,
        }
        return self._write(change.outcome, {"detail": change.detail, **states})

    def failed(self, why: str) -> Row:
        return self._write("refused", {"detail": why})

    def _write(self, outcome: str, more: dict[str, Any]) -> Row:
        row = {**self._row, **more, "outcome": outcome}
        table, _ = self._warehouse.ensure(DEVICE_CHANGES)
        asset = f"{DATABASE}/{DEVICE_CHANGES.name}"
        made = batch([row], datetime.now(UTC))
        with self._warehouse.load(table, asset=asset, run_id=self._context.run_id) as load:
            load.add(made.body, made.count, made.read_at)
            load.flush()
        self._context.log.info(
            "%s %s: %s %s", self.config.action.value, self.phone, outcome, row.get("detail", "")
        )
        return row


def _change(audit: _Audit, client: MtsVatsClient, guesses: Switch) -> Row:
    config = audit.config
    try:
        change = change_device(
            client,
            audit.abonent,
            audit.phone,
            config.action.value,
            guesses,
            dry_run=config.dry_run,
            sending=audit.sending,
        )
    except (PermanentSourceError, TransientSourceError) as failure:
        return audit.failed(failure.description or "")
    return audit.ended(change)


def _cabinet(config: DeviceChangeConfig, mts_vats: MtsVatsResource) -> str:
    names = mts_vats.names()
    if config.cabinet in names:
        return config.cabinet
    if not config.cabinet and len(names) == 1:
        return names[0]
    raise dg.Failure(f"Give one of the cabinets: {', '.join(names)}.", allow_retries=False)


def _switch() -> Switch:
    id_ = text("MTS_VATS_SWITCH_ID", "abonent")
    if id_ not in ("abonent", "sip_obj"):
        raise dg.Failure("MTS_VATS_SWITCH_ID must be abonent or sip_obj.", allow_retries=False)
    return Switch(switch("MTS_VATS_SWITCH_ENABLED"), text("MTS_VATS_SWITCH_METHOD", ""), id_)  # type: ignore[arg-type]


def _phones(given: Sequence[str]) -> list[str]:
    """The phones with 7 before ten digits, each once."""
    phones = {text: full_phone("".join(filter(str.isdigit, text))) for text in given}
    if wrong := [text for text, phone in phones.items() if phone is None]:
        raise dg.Failure(f"No phone of ten digits: {', '.join(wrong[:5])}.", allow_retries=False)
    if not phones:
        raise dg.Failure("Give at least one phone.", allow_retries=False)
    return list(dict.fromkeys(phone for phone in phones.values() if phone))


def _abonents(warehouse: WarehouseResource, cabinet: str, phones: Sequence[str]) -> dict[str, int]:
    """Phone -> abonent, from what was loaded last. Raises dagster.Failure naming unknown phones."""
    found: dict[str, list[int]] = {}
    if warehouse.columns(TRUNKS):
        rows = warehouse.query(
            f"SELECT phone, abonent_id FROM {TRUNKS.sql_name} FINAL "
            f"WHERE {DELETED} = 0 AND cabinet = {{c:String}} AND phone IN {{p:Array(String)}}",
            {"c": cabinet, "p": list(phones)},
        )
        for phone, abonent in rows:
            found.setdefault(phone, []).append(abonent)
    if unknown := [p for p in phones if len(found.get(p, ())) != 1]:
        raise dg.Failure(
            f"Not one trunk each in mts_vats.trunks of cabinet {cabinet}: {', '.join(unknown[:10])}. "
            "Load mts_vats/trunks first.",
            allow_retries=False,
        )
    return {phone: ids[0] for phone, ids in found.items()}


def _show(context: dg.OpExecutionContext, rows: Sequence[Row]) -> None:
    lines = ["| phone | action | outcome | detail |", "|---|---|---|---|"]
    lines += [f"| {r['phone']} | {r['action']} | {r['outcome']} | {r.get('detail', '')} |" for r in rows]
    context.add_output_metadata({"changes": dg.MetadataValue.md("\n".join(lines))})
    if bad := [r for r in rows if r["outcome"] not in MADE]:
        said = "; ".join(f"{r['phone']}: {r['outcome']}, {r.get('detail', '')}" for r in bad[:20])
        raise dg.Failure(
            f"{len(bad)} of {len(rows)} devices were not changed as asked. {said}", allow_retries=False
        )
