"""An emulated Bitrix24 portal on loopback.

from sandbox.bitrix24 import PortalConfig, serve

with serve(PortalConfig(deals=500)) as portal:
    print(portal.webhook_url)
"""

from sandbox.bitrix24.config import CostModel, PortalConfig
from sandbox.bitrix24.portal import Portal, UnknownEntity
from sandbox.bitrix24.server import serve

__all__ = ["CostModel", "Portal", "PortalConfig", "UnknownEntity", "serve"]
