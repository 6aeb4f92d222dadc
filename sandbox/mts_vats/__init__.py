"""An emulated MTS VATS cabinet on loopback.

from sandbox.mts_vats import CabinetConfig, serve

with serve(CabinetConfig(trunks=200)) as cabinet:
    print(cabinet.base_url)
"""

from sandbox.mts_vats.cabinet import CabinetConfig, Trunk, VirtualCabinet
from sandbox.mts_vats.server import serve

__all__ = ["CabinetConfig", "Trunk", "VirtualCabinet", "serve"]
