"""MTS VATS: SIP trunks of the cabinets, and since when each is as it is."""

from etl_assets.mts_vats.assets import build_assets, view_specs

__all__ = ["build_assets", "view_specs"]
