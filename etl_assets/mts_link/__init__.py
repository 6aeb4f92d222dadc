"""MTS Link: meetings, webinars, chats, courses, tests and files of one organisation."""

from etl_assets.mts_link.assets import build_assets, table_specs

__all__ = ["build_assets", "table_specs"]
