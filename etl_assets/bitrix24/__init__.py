"""Bitrix24: CRM objects, smart processes, history and dictionaries, one asset a table."""

from etl_assets.bitrix24.assets import Bitrix24Settings, build_asset, build_assets, view_spec, view_specs

__all__ = ["Bitrix24Settings", "build_asset", "build_assets", "view_spec", "view_specs"]
