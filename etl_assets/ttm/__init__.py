"""The ticket system TTM: overdue tickets by business day, suspended tickets now."""

from etl_assets.ttm.assets import build_assets, view_specs

__all__ = ["build_assets", "view_specs"]
