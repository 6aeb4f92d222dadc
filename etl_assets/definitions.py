"""The one Definitions: a table of contents of the product."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from etl_assets.bitrix24 import build_assets, view_specs
from etl_assets.bitrix24.checks import build_checks
from etl_assets.settings import bitrix24_resource, bitrix24_settings, text, warehouse_resource
from resources.http import install_log_redaction
from schedules.bitrix24 import build_schedules
from sensors.bitrix24_smart_processes import first_load, new_smart_processes

PROJECT = Path(__file__).resolve().parents[1]


def build_defs(overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Everything that Dagster shows and runs. `overrides` replaces resources by name, for tests."""
    install_log_redaction()
    settings = bitrix24_settings()
    smart_processes = dg.load_from_defs_folder(path_within_project=PROJECT)
    jobs, schedules = build_schedules(settings)
    embedded = text("CLICKHOUSE_URL", "").startswith("chdb:")
    own = dg.Definitions(
        assets=[*build_assets(settings), *view_specs()],
        asset_checks=build_checks(),
        jobs=jobs,
        schedules=schedules,
        sensors=[new_smart_processes, first_load],
        resources={
            "bitrix24": bitrix24_resource(dg.EnvVar("BITRIX24_WEBHOOK_URL")),
            "warehouse": warehouse_resource(dg.EnvVar("CLICKHOUSE_URL")),
            **(overrides or {}),
        },
        # The embedded engine belongs to one process, so its steps share one.
        executor=dg.in_process_executor if embedded else dg.multiprocess_executor,
    )
    return dg.Definitions.merge(own, smart_processes)


defs = build_defs()
