"""Bitrix24: CRM objects, smart processes, history and dictionaries, one asset a table."""

from etl_assets.bitrix24.assets import Bitrix24Settings, build_asset, build_assets, view_spec, view_specs
from etl_assets.bitrix24.deleted import build_deleted_objects
from etl_assets.bitrix24.health import build_health

__all__ = [
    "Bitrix24Settings",
    "build_asset",
    "build_assets",
    "build_deleted_objects",
    "build_health",
    "view_spec",
    "view_specs",
]
