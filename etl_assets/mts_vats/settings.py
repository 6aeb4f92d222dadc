"""The settings of this source, from the environment."""

from __future__ import annotations

from etl_assets.settings import switch, text, whole
from resources.mts_vats import MtsVatsResource
from resources.mts_vats.settings import configured


def mts_vats_resource() -> MtsVatsResource:
    """The cabinets. Logins and passwords are not read here: the resource looks them up when it is used."""
    return MtsVatsResource(
        concurrency=whole("MTS_VATS_CONCURRENCY", 1, least=1, most=8),
        page_size=whole("MTS_VATS_PAGE_SIZE", 100, least=1, most=1000),
        filters=text("MTS_VATS_FILTERS", ""),
        read_passwords=switch("MTS_VATS_READ_PASSWORDS"),
        allow_empty=switch("MTS_VATS_ALLOW_EMPTY"),
    )


__all__ = ["configured", "mts_vats_resource"]
