"""Yandex.Metrika: raw logs, the visits of level 4 or higher, offline conversions."""

from typing import Any

from etl_assets.metrika import assets, conversions, level4, uploads
from etl_assets.metrika.assets import view_specs
from etl_assets.metrika.settings import MetrikaSettings

__all__ = ["MetrikaSettings", "build_assets", "view_specs"]


def build_assets(settings: MetrikaSettings) -> list[Any]:
    """Everything of this source but the views."""
    return [
        *assets.build_assets(settings),
        *level4.level4_assets(settings.partitions, settings.zone),
        conversions.build_conversions(settings),
        uploads.build_uploads(settings),
    ]
