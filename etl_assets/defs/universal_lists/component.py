"""The universal lists of the portal."""

import dagster as dg

from etl_assets.bitrix24.settings import bitrix24_resource, bitrix24_settings
from etl_assets.bitrix24.universal_lists import UniversalLists


@dg.component_instance
def universal_lists(context: dg.ComponentLoadContext) -> UniversalLists:
    return UniversalLists(settings=bitrix24_settings, portal=bitrix24_resource)
