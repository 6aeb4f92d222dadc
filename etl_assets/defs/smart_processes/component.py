"""The smart processes of the portal."""

import dagster as dg

from etl_assets.bitrix24.settings import bitrix24_resource, bitrix24_settings
from etl_assets.bitrix24.smart_processes import SmartProcesses


@dg.component_instance
def smart_processes(context: dg.ComponentLoadContext) -> SmartProcesses:
    return SmartProcesses(settings=bitrix24_settings, portal=bitrix24_resource)
