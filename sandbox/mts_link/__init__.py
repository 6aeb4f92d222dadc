"""An emulated MTS Link organisation on loopback.

from sandbox.mts_link import OrgConfig, serve

with serve(OrgConfig(sessions=100)) as server:
    print(server.url)
"""

from sandbox.mts_link.config import SIZES, OrgConfig
from sandbox.mts_link.server import Server, serve

__all__ = ["SIZES", "OrgConfig", "Server", "serve"]
