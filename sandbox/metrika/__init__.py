"""An emulated Yandex.Metrika on loopback.

from sandbox.metrika import TOKEN, MetrikaConfig, serve

with serve(MetrikaConfig(visits_per_day=50)) as metrika:
    print(metrika.url)
"""

from sandbox.metrika.config import COUNTERS, LEAD_GOAL, LEAD_TARGET, TOKEN, MetrikaConfig
from sandbox.metrika.server import serve
from sandbox.metrika.service import Metrika

__all__ = ["COUNTERS", "LEAD_GOAL", "LEAD_TARGET", "TOKEN", "Metrika", "MetrikaConfig", "serve"]
