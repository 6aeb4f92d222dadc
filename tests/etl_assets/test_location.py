"""The whole code location: what a person finds in the catalogue before anything has run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from etl_assets.bitrix24.entities import ENTITIES
from etl_assets.definitions import PROJECT
from tests.etl_assets.house import House, house, key, small_portal

PROCESSES = ("crm_dynamic_items_177", "crm_dynamic_items_1038")
TABLES = (
    "crm_deal",
    "crm_lead",
    "crm_contact",
    "crm_company",
    "crm_quote",
    "crm_smart_invoice",
    "crm_activity",
    "crm_stage_history",
    "crm_productrow",
    "crm_deal_contact",
    "crm_company_contact",
    "crm_contact_company",
    "crm_lead_contact",
    "crm_quote_contact",
    "crm_status",
    "crm_status_type",
    "crm_category",
    "crm_currency",
    "crm_owner_type",
    "crm_userfield",
    "crm_userfield_enum",
    "user",
    "department",
    "crm_invoice_old",
    "crm_requisite",
    "crm_requisite_bank",
    "crm_requisite_preset",
    "crm_requisite_link",
    "crm_address",
    "crm_type",
    "crm_timeline_comment",
    "crm_activity_binding",
    "catalog_catalog",
    "crm_product",
    "crm_product_offer",
    "crm_product_service",
    "catalog_section",
    "catalog_measure",
    "catalog_vat",
    "catalog_price",
    "voximplant_call",
    "task",
    "task_elapsed",
    "task_comment",
    "task_history",
    "task_result",
    "task_checklist",
    "task_stage",
    "sonet_group",
    "workgroup",
    "sonet_group_user",
    "calendar_section",
    "calendar_event",
    "lists_iblock",
    "lists_field",
    "lists_section",
    "openline_config",
    "openline_message",
    "user_userfield",
    "timeman_record",
)
SCHEDULES = {
    "bitrix24_change_feed": "*/5 * * * *",
    "bitrix24_checks": "0 3 * * *",
    "bitrix24_dictionaries": "0 * * * *",
    "bitrix24_health": "50 * * * *",
    "bitrix24_reconciliation": "30 3 * * *",
    "bitrix24_structure": "30 2 * * *",
    "bitrix24_sweep": "30 4 * * 0",
    "bitrix24_children": "30 5 * * 0",
    "bitrix24_work": "*/15 * * * *",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("location"), small_portal(), lasting=True) as place:
        place.refresh_smart_processes()
        yield place


def test_the_location_holds_exactly_these_tables_and_their_views(place: House):
    names = {*TABLES, *PROCESSES}
    graph = place.defs.resolve_asset_graph()
    found = {
        k.to_user_string()
        for k in graph.get_all_asset_keys()
        if any(each.path[0] == "bitrix24" for each in (k, *graph.get(k).parent_keys))
    }
    names |= {"deleted_objects", "health", "field_history"}
    assert {k for k in found if k.startswith("bitrix24/")} == {f"bitrix24/{n}" for n in names}
    assert {f"bi/{n}" for n in names} <= found
    assert {e.name for e in ENTITIES} == set(TABLES)


def test_the_location_holds_exactly_these_schedules_and_sensors(place: House):
    repository = place.defs.get_repository_def()
    crons = {s.name: s.cron_schedule for s in repository.schedule_defs if s.name.startswith("bitrix24")}
    assert crons == SCHEDULES
    for name in ("new_smart_processes", "new_universal_lists", "first_load"):
        sensor = repository.get_sensor_def(name)
        assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
        assert sensor.description


@pytest.mark.parametrize("name", [*TABLES, *PROCESSES])
def test_a_table_says_what_it_is_whose_it_is_and_where_it_comes_from(place: House, name: str):
    node = place.defs.resolve_asset_graph().get(key(name))
    description = node.description or ""
    for part in ("**Grain** one row per ", "**Freshness** `", "**Source** `"):
        assert part in description
    assert node.group_name == "bitrix24"
    assert node.owners == ["team:data-platform"]
    assert node.kinds == {"bitrix24", "clickhouse"}
    assert node.pools == {"bitrix24"}
    assert node.metadata["dagster/table_name"] == f"bitrix24.{name}"
    checks = {c.name for c in place.defs.resolve_asset_graph().get_check_keys_for_assets({key(name)})}
    assert checks >= {"rejected_rows", "schema_drift"}


@pytest.mark.parametrize("name", [*TABLES, *PROCESSES])
def test_a_view_comes_from_its_table(place: House, name: str):
    view = place.defs.resolve_asset_graph().get(dg.AssetKey(["bi", name]))
    assert view.parent_keys == {key(name)}
    assert view.group_name == "bi"
    assert view.description
    assert not view.is_executable


def test_columns_are_known_before_the_first_run_where_nobody_need_be_asked(place: House):
    graph = place.defs.resolve_asset_graph()
    known = {e.name for e in ENTITIES if e.columns} | set(PROCESSES)
    for name in known:
        columns = graph.get(key(name)).metadata["dagster/column_schema"].columns
        assert len(columns) > 2, name
        assert any(c.description for c in columns), name


def test_what_reports_change_has_days_and_a_range_is_one_run(place: House):
    graph = place.defs.resolve_asset_graph()
    for entity in ENTITIES:
        node = graph.get(key(entity.name))
        assert node.is_partitioned == bool(entity.modified), entity.name
        if entity.modified:
            assert node.backfill_policy == dg.BackfillPolicy.single_run()


def test_personal_data_is_tagged(place: House):
    graph = place.defs.resolve_asset_graph()
    assert {n for n in TABLES if "pii" in graph.get(key(n)).tags} == {
        "crm_lead",
        "crm_contact",
        "crm_activity",
        "user",
        "crm_requisite",
        "crm_requisite_bank",
        "crm_address",
        "crm_timeline_comment",
        "voximplant_call",
        "task",
        "task_comment",
        "calendar_event",
        "openline_message",
        "timeman_record",
    }


def test_importing_the_location_reads_no_secret_and_asks_nobody(tmp_path: Path):
    code = (
        "import socket, sys\n"
        "socket.socket.connect = lambda *a: sys.exit('a connection')\n"
        "import etl_assets.definitions as d\n"
        "keys = d.defs.resolve_asset_graph().get_all_asset_keys()\n"
        "print(*(k.path[-1] for k in keys if k.path[0] == 'bitrix24'))"
    )
    secrets = ("BITRIX24_WEBHOOK_URL", "CLICKHOUSE_URL", "DAGSTER_HOME", "DAGSTER_POSTGRES_URL")
    environment = {n: v for n, v in os.environ.items() if n not in secrets} | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert set(done.stdout.split()) >= set(TABLES), done.stderr


def test_dagsters_own_check_of_the_definitions_passes(tmp_path: Path):
    for name in ("etl_assets", "resources", "schedules", "sensors", "pyproject.toml"):
        (tmp_path / name).symlink_to(PROJECT / name)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "DAGSTER_HOME": ""}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("dg")), "check", "defs"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All definitions loaded successfully" in done.stdout
