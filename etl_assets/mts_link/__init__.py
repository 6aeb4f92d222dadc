"""MTS Link: meetings, webinars, chats, courses, tests and files of one organisation."""

import dagster as dg

from etl_assets.mts_link.assets import build_assets as build_tables
from etl_assets.mts_link.assets import table_specs
from etl_assets.mts_link.marts import build_marts
from etl_assets.mts_link.record_files import record_files
from etl_assets.mts_link.retention import build_retention
from etl_assets.mts_link.settings import MtsLinkSettings


def build_assets(settings: MtsLinkSettings) -> list[dg.AssetsDefinition]:
    """Tables, analyses over them, files of records, and what deletes old rows."""
    return [*build_tables(settings), *build_marts(settings), record_files, build_retention(settings)]


__all__ = ["build_assets", "table_specs"]
