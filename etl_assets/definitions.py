"""The one Definitions: a table of contents of the product."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from etl_assets import bitrix24, metrika, mts_link, mts_vats, ttm
from etl_assets.bitrix24.checks import build_checks
from etl_assets.bitrix24.settings import bitrix24_resource, bitrix24_settings
from etl_assets.metrika.checks import build_checks as build_metrika_checks
from etl_assets.metrika.level4_settings import level4_settings
from etl_assets.metrika.service_jobs import (
    build_results,
    scoring_service_resource,
    task_job,
    uploads,
    uploads_job,
)
from etl_assets.metrika.settings import configured as metrika_configured
from etl_assets.metrika.settings import metrika_resource, metrika_settings
from etl_assets.metrika.training import build_promotion
from etl_assets.mts_link.settings import mts_link_resource, mts_link_settings
from etl_assets.mts_vats.devices import change_devices_job
from etl_assets.mts_vats.settings import configured as mts_vats_configured
from etl_assets.mts_vats.settings import mts_vats_resource
from etl_assets.settings import given, text, warehouse_resource
from etl_assets.ttm.checks import build_checks as build_ttm_checks
from etl_assets.ttm.settings import database_resource, hub_resource, ttm_settings
from resources.http import install_log_redaction
from resources.scoring_service.resource import NEEDS, TaskMetrikaResource
from schedules.bitrix24 import build_schedules
from schedules.metrika import build_schedules as build_metrika_schedules
from schedules.mts_link import build_schedules as build_mts_link_schedules
from schedules.mts_vats import build_schedules as build_mts_vats_schedules
from schedules.ttm import build_schedules as build_ttm_schedules
from sensors.bitrix24_events import build_received_sensor
from sensors.bitrix24_events import build_sensor as build_events_sensor
from sensors.bitrix24_smart_processes import build_sensors as build_bitrix24_sensors
from sensors.metrika_conversions import build_sensor as build_conversions_sensor
from sensors.metrika_scoring_service import build_sensors as build_scoring_sensors
from sensors.mts_link_records import new_records
from sensors.ttm_stopped_tickets import build_sensor

PROJECT = Path(__file__).resolve().parents[1]


def build_defs(overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Everything that Dagster shows and runs. `overrides` replaces resources by name, for tests.

    Every source is here, configured or not; one without its credentials starts nothing by itself.
    """
    install_log_redaction()
    resources: dict[str, Any] = {"warehouse": warehouse_resource(dg.EnvVar("CLICKHOUSE_URL"))}
    sources = [
        _bitrix24(resources),
        _metrika(resources),
        _scoring(resources),
        _mts_link(resources),
        _mts_vats(resources),
        _ttm(resources),
    ]
    embedded = text("CLICKHOUSE_URL", "").startswith("chdb:")
    house = dg.Definitions(
        resources={**resources, **(overrides or {})},
        # The embedded engine belongs to one process, so its steps share one.
        executor=dg.in_process_executor if embedded else dg.multiprocess_executor,
    )
    return dg.Definitions.merge(house, *sources, dg.load_from_defs_folder(path_within_project=PROJECT))


def _bitrix24(resources: dict[str, Any]) -> dg.Definitions:
    settings = bitrix24_settings()
    resources["bitrix24"] = bitrix24_resource(later=True)
    jobs, schedules = build_schedules(settings)
    return dg.Definitions(
        assets=[
            *bitrix24.build_assets(settings),
            bitrix24.build_deleted_objects(settings),
            bitrix24.build_health(settings),
            *bitrix24.view_specs(),
        ],
        asset_checks=build_checks(),
        jobs=jobs,
        schedules=schedules,
        sensors=[
            *build_bitrix24_sensors(settings.running),
            build_events_sensor(given("BITRIX24_APP_CLIENT_ID")),
            build_received_sensor(given("BITRIX24_EVENTS_TOKEN")),
        ],
    )


def _metrika(resources: dict[str, Any]) -> dg.Definitions:
    settings, configured = metrika_settings(), metrika_configured()
    resources["metrika"] = metrika_resource(dg.EnvVar("METRIKA_TOKEN") if given("METRIKA_TOKEN") else "")
    jobs, schedules = build_metrika_schedules(settings, running=configured)
    return dg.Definitions(
        assets=[*metrika.build_assets(settings), *metrika.view_specs()],
        asset_checks=build_metrika_checks(settings),
        jobs=[*jobs, build_promotion(level4_settings())],
        schedules=schedules,
        sensors=[build_conversions_sensor(settings, running=configured)],
    )


def _scoring(resources: dict[str, Any]) -> dg.Definitions:
    """What Dagster does for the scoring service; its tasks load and score with their own tokens."""
    resources["metrika"] = TaskMetrikaResource.like(resources["metrika"])
    resources["scoring_service"] = scoring_service_resource()
    return dg.Definitions(
        assets=[build_results(metrika_settings().partitions), uploads],
        jobs=[task_job, uploads_job],
        sensors=build_scoring_sensors(running=given(*NEEDS)),
    )


def _mts_link(resources: dict[str, Any]) -> dg.Definitions:
    settings = mts_link_settings()
    resources["mts_link"] = mts_link_resource(later=True)
    jobs, schedules = build_mts_link_schedules(settings)
    return dg.Definitions(
        assets=[*mts_link.build_assets(settings), *mts_link.table_specs(settings)],
        jobs=jobs,
        schedules=schedules,
        sensors=[new_records],
    )


def _ttm(resources: dict[str, Any]) -> dg.Definitions:
    settings = ttm_settings()
    resources |= {"ttm_hub": hub_resource(), "ttm_database": database_resource(settings)}
    jobs, schedules = build_ttm_schedules(settings)
    stopped, sensor = build_sensor(settings)
    return dg.Definitions(
        assets=[*ttm.build_assets(settings), *ttm.view_specs()],
        asset_checks=build_ttm_checks(settings),
        jobs=[*jobs, stopped],
        schedules=schedules,
        sensors=[sensor],
    )


def _mts_vats(resources: dict[str, Any]) -> dg.Definitions:
    resources["mts_vats"] = mts_vats_resource()
    jobs, schedules = build_mts_vats_schedules(running=mts_vats_configured())
    return dg.Definitions(
        assets=[*mts_vats.build_assets(), *mts_vats.view_specs()],
        jobs=[*jobs, change_devices_job],
        schedules=schedules,
    )


defs = build_defs()
