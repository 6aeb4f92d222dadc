"""Which ids differ between two sides that can count them by range: a screen of counts, then bisection.

Pure: no network, no warehouse. A range is (lo, hi], `hi` None meaning without end. Counting costs one command
of a batch, so a million rows with a few hundred differences take some fifty requests, and none take one.
Where rows cannot be counted, or counts may hide one row gone and one missing, `swept` compares ids that were
all read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

PAGE = 50  # a range with no more rows there is known id by id as soon as it is counted

Range = tuple[int, int | None]


class Sides(Protocol):
    """The two sides. Each method answers in the order of the ranges and raises rather than leave one out."""

    def there(self, ranges: Sequence[Range]) -> list[tuple[list[int], int]]:
        """(ids of the first page, number of rows) of each range at the source."""
        ...

    def here(self, ranges: Sequence[Range]) -> list[tuple[int, int]]:
        """(number of rows, their mean id) of each range in the warehouse."""
        ...

    def ids_here(self, ranges: Sequence[Range]) -> list[list[int]]:
        """The ids of each range in the warehouse."""
        ...


@dataclass(slots=True)
class Differences:
    """What to look at: candidates, since both sides may have changed while they were counted.

    `gone`: ids that only the warehouse has. `missing`: ids that only the source has, and `missing_ranges`
    where it has many.
    """

    gone: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    missing_ranges: list[Range] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.gone or self.missing or self.missing_ranges)


@dataclass(slots=True)
class _Node:
    lo: int
    hi: int | None
    here: int
    mean: int
    there: int | None = None  # None: to be asked
    ids: list[int] | None = None

    @property
    def range(self) -> Range:
        return self.lo, self.hi

    def middle(self) -> int:
        """An id that splits the rows about evenly; where the source has far more of them, the range."""
        assert self.hi is not None
        half = (self.lo + self.hi) // 2
        wanted = half if self.here == 0 or (self.there or 0) > 4 * self.here else self.mean
        return wanted if self.lo < wanted < self.hi else half


def ranges_of(edges: Iterable[int]) -> list[Range]:
    """The ranges between the edges, from 0 on, and the one above the last, without end."""
    bounds = sorted({0, *edges})
    return [*pairwise(bounds), (bounds[-1], None)]


def differences(sides: Sides, ranges: Sequence[Range]) -> Differences:
    """Compare both sides within ranges that seem to differ; the last of all, which has no end, may be one."""
    nodes = _counted_here(sides, ranges)
    _ask(sides, nodes)
    found = Differences()
    settled: list[_Node] = []
    while nodes := [n for n in nodes if n.there != n.here]:
        open_nodes: list[_Node] = []
        for node in nodes:
            if node.ids is not None:
                settled.append(node)
            elif node.hi is None or (node.here == 0 and node.there):
                found.missing_ranges.append(node.range)
            else:
                open_nodes.append(node)
        nodes = _halved(sides, open_nodes)
    _compare(sides, settled, found)
    return found


def swept(there: set[int], here: Sequence[int], within: Range, found: Differences) -> None:
    """Add to `found` how all ids of a range differ."""
    found.gone += [i for i in here if i not in there]
    if here:
        found.missing += sorted(there.difference(here))
    elif there:
        found.missing_ranges.append(within)


def _counted_here(sides: Sides, ranges: Sequence[Range]) -> list[_Node]:
    counted = sides.here(ranges) if ranges else []
    return [_Node(lo, hi, rows, mean) for (lo, hi), (rows, mean) in zip(ranges, counted, strict=True)]


def _ask(sides: Sides, nodes: Sequence[_Node]) -> None:
    asked = [n for n in nodes if n.there is None]
    answers = sides.there([n.range for n in asked]) if asked else []
    for node, (ids, total) in zip(asked, answers, strict=True):
        node.there, node.ids = total, ids if total <= PAGE else None


def _halved(sides: Sides, nodes: Sequence[_Node]) -> list[_Node]:
    """Both halves of each node: one is counted at the source, the other is what is left.

    A rest that fits a page is read too: a count that was worked out proves nothing about ids. The same goes
    for one that the rows of both halves, counted at different moments, contradict.
    """
    middles = [n.middle() for n in nodes]
    ranges = [r for n, m in zip(nodes, middles, strict=True) for r in ((n.lo, m), (m, n.hi))]
    halves = _counted_here(sides, ranges)
    lefts, rights = halves[::2], halves[1::2]
    _ask(sides, lefts)
    for node, left, right in zip(nodes, lefts, rights, strict=True):
        rest = (node.there or 0) - (left.there or 0)
        right.there = rest if rest == right.here or rest > PAGE else None
    _ask(sides, rights)
    return halves


def _compare(sides: Sides, nodes: Sequence[_Node], found: Differences) -> None:
    for node, here in zip(nodes, sides.ids_here([n.range for n in nodes]) if nodes else [], strict=True):
        there = set(node.ids or ())
        found.gone += [i for i in here if i not in there]
        found.missing += sorted(there.difference(here))
