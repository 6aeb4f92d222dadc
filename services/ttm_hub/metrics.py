"""Prometheus metrics, read off the broker when they are asked for. No label holds a token or an address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from resources.ttm.protocol import UPSTREAM
from services.ttm_hub.broker import Broker

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Handshakes:
    """How handshakes ended: "ok", or the close code or HTTP status."""

    def __init__(self) -> None:
        self.ended: Counter[tuple[str, str]] = Counter()

    def count(self, role: str, how: str) -> None:
        self.ended[role, how] += 1


class Metrics(Collector):
    """The text of `/metrics`."""

    def __init__(self, broker: Broker, handshakes: Handshakes, connected: Callable[[], int]) -> None:
        self._broker, self._handshakes, self._connected = broker, handshakes, connected
        self._registry = CollectorRegistry()
        seconds = Histogram(
            "ttm_hub_request_seconds",
            "From the acceptance of a request to its end",
            ["method"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        broker.observe = lambda method, elapsed: seconds.labels(method).observe(elapsed)
        self._registry.register(self)

    def text(self) -> str:
        return generate_latest(self._registry).decode()

    def collect(self) -> Iterator[Metric]:
        broker = self._broker
        ended = CounterMetricFamily("ttm_hub_requests", "Ended requests", labels=["method", "outcome"])
        for (method, outcome), count in broker.ended.items():
            ended.add_metric([method, outcome], count)
        yield ended
        handshakes = CounterMetricFamily("ttm_hub_handshakes", "Handshakes", labels=["role", "outcome"])
        for (role, outcome), count in self._handshakes.ended.items():
            handshakes.add_metric([role, outcome], count)
        yield handshakes
        for name, about, count in (
            ("ttm_hub_redispatched", "Attempts given to a connector again", broker.redispatched),
            ("ttm_hub_duplicate_results", "Results of requests that had ended", broker.duplicates),
            (
                "ttm_hub_busy",
                "Requests refused, as there were too many",
                broker.refused_busy,
            ),
        ):
            yield CounterMetricFamily(name, about, value=count)
        for name, about, value in (
            ("ttm_hub_queued", "Requests that wait for a connector", broker.queued),
            ("ttm_hub_in_flight", "Requests that a connector works on", broker.in_flight),
            ("ttm_hub_connections", "Open connections", self._connected()),
        ):
            yield GaugeMetricFamily(name, about, value=value)
        yield from self._connectors()

    def _connectors(self) -> Iterator[Metric]:
        """Sums, not one series an instance: instances come and go."""
        connectors = list(self._broker.connectors.values())
        states = Counter(c.upstream for c in connectors)
        upstream = GaugeMetricFamily(
            "ttm_hub_connectors", "Connectors by the state of their ticket system", labels=["upstream"]
        )
        for state in UPSTREAM:
            upstream.add_metric([state], states[state])
        yield upstream
        yield GaugeMetricFamily(
            "ttm_hub_slots", "Slots of all connectors", value=sum(c.slots for c in connectors)
        )
        held = sum(len(c.held) for c in connectors)
        yield GaugeMetricFamily("ttm_hub_slots_taken", "Slots with a task", value=held)
