"""The comparison by counts finds exactly the ids in which two sides differ, in few questions."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl_assets.bitrix24.reconcile import PAGE, Differences, Range, differences, ranges_of, swept

COMMANDS = 50  # of one request


@dataclass
class Lists:
    """Two sorted lists of ids, and how often they were asked."""

    portal: list[int]
    warehouse: list[int]
    commands: int = 0
    requests: int = 0
    drift: list[list[int]] = field(default_factory=list)

    def there(self, ranges: Sequence[Range]) -> list[tuple[list[int], int]]:
        self.commands += len(ranges)
        self.requests += -(-len(ranges) // COMMANDS)
        answers = [(found[:PAGE], len(found)) for r in ranges for found in [within(self.portal, r)]]
        if self.drift:
            self.portal = self.drift.pop()
        return answers

    def here(self, ranges: Sequence[Range]) -> list[tuple[int, int]]:
        counted = [within(self.warehouse, r) for r in ranges]
        return [
            (len(ids), sum(ids) // len(ids) if ids else r[0]) for ids, r in zip(counted, ranges, strict=True)
        ]

    def ids_here(self, ranges: Sequence[Range]) -> list[list[int]]:
        return [within(self.warehouse, r) for r in ranges]

    def compare(self) -> Differences:
        size = len(self.warehouse)
        ranges = ranges_of(self.warehouse[size * n // 49 - 1] for n in range(1, 50) if size * n // 49)
        counts = zip(ranges, self.there(ranges), self.here(ranges), strict=True)
        if differing := [r for r, (_, there), (here, _) in counts if there != here]:
            return differences(self, differing)
        return Differences()


def within(ids: list[int], wanted: Range) -> list[int]:
    lo, hi = wanted
    return ids[bisect_right(ids, lo) : len(ids) if hi is None else bisect_right(ids, hi)]


def missing_of(found: Differences, portal: list[int]) -> set[int]:
    return {*found.missing, *(i for r in found.missing_ranges for i in within(portal, r))}


ids = st.lists(st.integers(1, 3000), unique=True, max_size=400).map(sorted)


@settings(max_examples=150, deadline=None)
@given(ids, ids)
def test_what_is_found_differs_and_nothing_is_found_where_both_agree(portal: list[int], warehouse: list[int]):
    found = Lists(portal, warehouse).compare()
    assert set(found.gone) <= set(warehouse) - set(portal)
    assert missing_of(found, portal) - {i for r in found.missing_ranges for i in within(portal, r)} <= set(
        portal
    ) - set(warehouse)
    assert bool(found) or len(portal) == len(warehouse)


@settings(max_examples=100, deadline=None)
@given(ids, st.data())
def test_deletions_alone_are_found_exactly(warehouse: list[int], data: st.DataObject):
    gone = set(data.draw(st.lists(st.sampled_from(warehouse), unique=True))) if warehouse else set()
    found = Lists([i for i in warehouse if i not in gone], warehouse).compare()
    assert (set(found.gone), found.missing, found.missing_ranges) == (gone, [], [])


@settings(max_examples=100, deadline=None)
@given(ids, st.data())
def test_missing_rows_alone_are_found_exactly_wherever_they_are(portal: list[int], data: st.DataObject):
    missing = set(data.draw(st.lists(st.sampled_from(portal), unique=True))) if portal else set()
    found = Lists(portal, [i for i in portal if i not in missing]).compare()
    assert found.gone == []
    assert missing <= missing_of(found, portal)


@pytest.mark.parametrize("deleted", [0, 1, 300])
def test_a_million_rows_take_a_few_dozen_requests(deleted: int):
    random = Random(deleted)
    warehouse = sorted(random.sample(range(1, 1_040_000), 1_000_000))
    gone = set(random.sample(warehouse, deleted))
    sides = Lists([i for i in warehouse if i not in gone], warehouse)
    assert set(sides.compare().gone) == gone
    assert sides.requests <= {0: 1, 1: 15, 300: 55}[deleted]


def test_rows_that_vanish_while_counting_are_candidates_and_no_more():
    warehouse = list(range(1, 5001))
    later = warehouse[:2500] + warehouse[2600:]
    sides = Lists([i for i in warehouse if i != 100], warehouse, drift=[later, warehouse, later])
    assert set(sides.compare().gone) <= {100, *range(2501, 2601)}


@settings(max_examples=100, deadline=None)
@given(ids, ids)
def test_a_sweep_finds_exactly_how_two_sides_differ(portal: list[int], warehouse: list[int]):
    found, sides = Differences(), Lists(portal, warehouse)
    for wanted in ranges_of(warehouse[99::100]):
        swept(set(within(portal, wanted)), within(warehouse, wanted), wanted, found)
    assert set(found.gone) == set(warehouse) - set(portal)
    assert missing_of(found, sides.portal) == set(portal) - set(warehouse)
