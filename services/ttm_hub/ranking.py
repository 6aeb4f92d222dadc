"""The least loaded connector, found without looking at all of them."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.ttm_hub.state import Connector

Entry = tuple[float, int, int, "Connector"]
"""(load, when used last, number of the entry, connector)"""


class Ranking:
    """Connectors with a free slot by load, then by least recent use. Truthy while there is one.

    Each change of a connector adds an entry and makes its older one stale; stale ones are dropped when they
    come to the top.
    """

    def __init__(self, methods: Iterable[str]) -> None:
        self._methods = tuple(methods)
        self._heap: list[Entry] = []
        self._current: dict[Connector, int] = {}
        self._offers: dict[Connector, tuple[str, ...]] = {}
        self._offered: Counter[str] = Counter()
        self._number = itertools.count()

    def update(self, connector: Connector) -> None:
        """Its slots or its state have changed."""
        offers = tuple(m for m in self._methods if connector.offers(m))
        before = self._offers.get(connector, ())
        if offers != before:
            self._offered.subtract(before)
            self._offered.update(offers)
        if offers:
            self._offers[connector] = offers
        else:
            self._offers.pop(connector, None)
        self._current.pop(connector, None)
        if offers and connector.free:
            number = self._current[connector] = next(self._number)
            heapq.heappush(self._heap, (connector.load, connector.used, number, connector))
            if len(self._heap) > 4 * len(self._current) + 64:
                self._heap = [entry for entry in self._heap if self._current.get(entry[3]) == entry[2]]
                heapq.heapify(self._heap)

    def __bool__(self) -> bool:
        return bool(self._current)

    def offered(self, method: str) -> bool:
        """Whether any connector may be given such a task, now or when it has a free slot."""
        return self._offered[method] > 0

    def best(self, method: str) -> Connector | None:
        """The one to be given such a task now; None if no free one offers the method."""
        if not self.offered(method):
            return None
        passed, found = list[Entry](), None
        while self._heap and found is None:
            entry = self._heap[0]
            if self._current.get(entry[3]) != entry[2]:
                heapq.heappop(self._heap)
            elif method in self._offers[entry[3]]:
                found = entry[3]
            else:
                passed.append(heapq.heappop(self._heap))
        for entry in passed:
            heapq.heappush(self._heap, entry)
        return found
