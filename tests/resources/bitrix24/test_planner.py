"""Every id that exists throughout a scan is delivered, whatever happens in between."""

import random
from bisect import bisect_right, insort
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from resources.bitrix24.calls import PAGE
from resources.bitrix24.envelope import Page
from resources.bitrix24.planner import Ask, KeysetPlanner, Mode, OrderIgnored, Slice


@dataclass
class SimulatedPortal:
    """A sorted set of ids that answers batches as the portal does, and may change while it is read."""

    ids: list[int]
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    short: float = 0.0
    changing: bool = False
    references: bool = True
    commands: int = 0
    removed: set[int] = field(default_factory=set)

    def answer(self, asks: list[Ask]) -> list[Page | None]:
        pages: list[Page | None] = []
        for ask in asks:
            self.commands += 1
            before = pages[-1] if pages else None
            if ask.lo is not None:
                above = ask.lo
            else:  # an unresolved reference is an empty value: the list begins again
                full = before is not None and len(before.ids) == PAGE
                above = before.ids[-1] if before is not None and full and self.references else 0
            pages.append(self.page(above, ask.hi))
            if self.changing:
                self.change()
        return pages

    def page(self, above: int, upto: int | None) -> Page:
        start = bisect_right(self.ids, above)
        found = self.ids[start : start + PAGE]
        found = [n for n in found if upto is None or n <= upto]
        if found and self.rng.random() < self.short:  # some rows hidden after the page was cut, never all
            found = found[: self.rng.randint(1, len(found))]
        return Page(found, [Raw(b"{}")] * len(found), [None] * len(found))

    def change(self) -> None:
        if self.ids and self.rng.random() < 0.3:
            self.removed.add(self.ids.pop(self.rng.randrange(len(self.ids))))
        if self.rng.random() < 0.3:
            number = self.ids[-1] + 1 if self.ids else 1
            if number not in self.removed:
                insort(self.ids, number)


def drive(
    planner: KeysetPlanner,
    portal: SimulatedPortal,
    slots: int,
    rng: random.Random,
    stop_after: int = 10**9,
    room: int = PAGE,
) -> tuple[set[int], int]:
    """Read with `slots` batches answered in any order; returns (ids delivered, requests)."""
    pending: list[tuple[list[Ask], list[Page | None]]] = []
    delivered: set[int] = set()
    requests = 0
    while not planner.done and requests < stop_after:
        while len(pending) < slots:
            asks = planner.plan(room, len(pending))
            if not asks:
                break
            assert len(asks) <= room
            requests += 1
            assert requests < 9000, "the planner does not come to an end"
            pending.append((asks, portal.answer(asks)))
        asks, pages = pending.pop(rng.randrange(len(pending)))
        if rng.random() < 0.1:  # the portal executed only the first commands
            keep = rng.randrange(len(pages))
            pages = [page if index < keep else None for index, page in enumerate(pages)]
        if rng.random() < 0.1:  # or refused one in the middle
            pages[rng.randrange(len(pages))] = None
        delivered |= ids_of(planner.absorb(asks, pages))
    return delivered, requests


def ids_of(slices: list[Slice]) -> set[int]:
    return {number for item in slices for number in item.page.ids[: item.count]}


def planner_for(ids: list[int], mode: Mode, slots: int) -> KeysetPlanner:
    top = max(ids, default=0)
    density = len(ids) / top if top else 1.0
    segments: list[tuple[int, int | None]] = [(0, top), (top, None)] if top else [(0, None)]
    return KeysetPlanner(segments, mode=mode, density=density, in_flight=slots)


modes = st.sampled_from(["windows", "chains", "singles"])


@settings(max_examples=120, deadline=None)
@given(
    mode=modes,
    slots=st.integers(1, 4),
    size=st.integers(0, 6000),
    gaps=st.sampled_from([0.0, 0.01, 0.1, 0.7, 0.99]),
    short=st.sampled_from([0.0, 0.0, 0.05, 0.5]),
    changing=st.booleans(),
    references=st.booleans(),
    room=st.sampled_from([3, 10, PAGE]),
    stops=st.lists(st.integers(1, 8), max_size=3),
    seed=st.integers(0, 10**6),
)
def test_every_lasting_id_is_delivered_also_after_resumes(
    mode, slots, size, gaps, short, changing, references, room, stops, seed
):
    rng = random.Random(seed)
    ids = [n for n in range(1, size + 1) if rng.random() >= gaps]
    portal = SimulatedPortal(list(ids), rng, short, changing, references)
    planner = planner_for(ids, mode, slots)
    delivered: set[int] = set()
    for stop_after in [*stops, 10**9]:  # a killed process loses the batches in flight
        delivered |= drive(planner, portal, slots, rng, stop_after, room)[0]
        left = [(int(lo or 0), hi) for lo, hi in planner.remaining()]
        planner = KeysetPlanner(left, mode=planner.mode, density=planner.density, in_flight=slots)
    assert set(ids) - portal.removed <= delivered


@pytest.mark.parametrize(("gaps", "most"), [(0.0, 80), (0.05, 82), (0.1, 82)])
def test_few_requests_are_wasted(gaps, most):
    rng = random.Random(5)
    ids = [n for n in range(1, int(200_000 / (1 - gaps)) + 1) if rng.random() >= gaps][:200_000]
    portal = SimulatedPortal(ids)
    top = ids[-1]
    planner = KeysetPlanner(
        [(ids[49], top), (top, None)],
        mode="chains" if gaps else "windows",
        density=len(ids) / top,
        in_flight=4,
    )
    requests = 0
    pending: list[tuple[list[Ask], list[Page | None]]] = []
    delivered = set(ids[:50])
    while not planner.done:
        while len(pending) < 4 and (asks := planner.plan(PAGE, len(pending))):
            pending.append((asks, portal.answer(asks)))
            requests += 1
        delivered |= ids_of(planner.absorb(*pending.pop(0)))
    assert delivered == set(ids)
    assert requests <= most


def test_windows_give_way_to_chains_where_ids_are_missing():
    ids = [n for n in range(1, 40_000) if n % 3]
    planner = KeysetPlanner([(0, ids[-1])], mode="windows", in_flight=4)
    delivered, requests = drive(planner, SimulatedPortal(ids), 4, random.Random(3))
    assert delivered == set(ids)
    assert planner.mode == "chains"
    assert requests < 30


def test_unhonoured_references_are_noticed():
    ids = list(range(1, 20_001, 2))
    planner = KeysetPlanner([(0, ids[-1])], mode="chains", density=0.5, in_flight=2)
    delivered, _ = drive(planner, SimulatedPortal(ids, references=False), 2, random.Random(3))
    assert delivered == set(ids)
    assert planner.mode == "singles"
    assert planner.notes


@pytest.mark.parametrize("numbers", [[5, 4, 6], [5, 5, 6], [1, 2, 3]])
def test_a_page_out_of_order_is_asked_again_once(numbers):
    planner = KeysetPlanner([(3, 40)], mode="chains", in_flight=1)
    page = Page(numbers, [Raw(b"{}")] * 3, [None] * 3)
    asks = planner.plan(1, 0)
    assert planner.absorb(asks, [page]) == []
    assert planner.remaining() == [[3, 40]]
    with pytest.raises(OrderIgnored):
        planner.absorb(planner.plan(1, 0), [page])
