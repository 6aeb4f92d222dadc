"""Which pages to ask for next: id windows, keyset chains and their leftovers, with no I/O.

The id range that is still unread is a set of segments (lo, hi]; `hi` None means open-ended. A segment shrinks
only by pages that were delivered in order, so the segments at any moment are exactly what a resumed scan must
read.

- windows: while ids look dense, 50 ids per command, independent of each other. A short page proves nothing
  (the method may hide rows after cutting the page), so what follows its last id is asked again until it is
  empty.
- chains: command k continues after the last row of command k-1 through a `$result` reference. They have no
  upper bound: a row above `hi` proves that the segment is complete, and is dropped, because the next segment
  has it. After the first page that is not full the rest of a chain is meaningless (its references do not
  resolve).
- singles: one page per segment and request, where references turn out not to be honoured.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from resources.bitrix24.calls import PAGE
from resources.bitrix24.envelope import Page

Mode = Literal["windows", "chains", "singles"]


class OrderIgnored(Exception):
    """Rows did not come in increasing id order after the cursor: keyset reading is impossible here."""


@dataclass(slots=True, eq=False)
class Segment:
    """Ids in (lo, hi] not read yet. `density` is rows per id as far as known, `asked` the pages in flight."""

    lo: int
    hi: int | None
    density: float = 1.0
    bounded: bool = False  # asked with an upper bound, one page at a time
    asked: int = 0
    ramp: int = 1
    fails: int = 0
    doubts: int = 0

    def pages(self) -> int:
        """Pages expected in it, one more where that is a guess."""
        if self.bounded:
            return 1
        if self.hi is None:
            return self.ramp
        return math.ceil((self.hi - self.lo) * self.density / PAGE) + 1


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """One command: the page after `lo`, or after the previous command's last row if `lo` is None."""

    segment: Segment
    lo: int | None
    hi: int | None


@dataclass(frozen=True, slots=True)
class Slice:
    """The first `count` rows of a page."""

    page: Page
    count: int


class KeysetPlanner:
    """Plans batches of asks and takes their pages in; one thread calls it."""

    def __init__(
        self,
        segments: Iterable[tuple[int, int | None]],
        *,
        mode: Mode,
        density: float = 1.0,
        in_flight: int = 4,
        spread: bool = True,
    ) -> None:
        """`spread` False keeps a segment whole: pages are then read strictly one after another."""
        self.mode: Mode = mode
        self.density = density
        self.notes: list[str] = []
        self._in_flight = in_flight
        self._spread = spread
        self._idle = [Segment(lo, hi, density) for lo, hi in segments]
        self._busy: list[Segment] = []
        self._windows = 0
        self._short_windows = 0
        self._good_links = 0
        self._bad_links = 0
        if mode == "chains":
            self._split_evenly()

    @property
    def done(self) -> bool:
        """True when nothing is left to ask for."""
        return not self._idle and not self._busy

    def remaining(self) -> list[list[int | None]]:
        """[lo, hi] of everything not delivered, merged and sorted."""
        merged: list[list[int | None]] = []
        for segment in sorted((*self._idle, *self._busy), key=lambda s: s.lo):
            if merged and merged[-1][1] == segment.lo:
                merged[-1][1] = segment.hi
            else:
                merged.append([segment.lo, segment.hi])
        return merged

    def most_fails(self) -> int:
        """How often in a row the worst segment was refused."""
        return max((segment.fails for segment in (*self._idle, *self._busy)), default=0)

    def plan(self, room: int, in_flight: int) -> list[Ask]:
        """Up to `room` asks for one batch. Empty: wait for one of the `in_flight` batches (or done).

        A batch that would not be full waits for others in flight: they may leave work that fills it, and
        requests are what the portal rations.
        """
        if self.mode == "singles":
            self._split_for_singles(room)
        elif self.mode == "chains" and in_flight:
            self._split_for_idle_slot(room)
        chosen = self._choose(room)
        if in_flight and sum(pages for _, pages in chosen) < room:
            return []
        return [ask for segment, pages in chosen for ask in self._take(segment, pages)]

    def _choose(self, room: int) -> list[tuple[Segment, int]]:
        chosen: list[tuple[Segment, int]] = []
        for segment in sorted(self._idle, key=self._rank):
            pages = min(room, self._pages(segment))
            if pages <= 0:
                break
            chosen.append((segment, pages))
            room -= pages
        return chosen

    def _pages(self, segment: Segment) -> int:
        if self._windowed(segment):
            assert segment.hi is not None
            return math.ceil((segment.hi - segment.lo) / PAGE)
        return 1 if self.mode == "singles" else segment.pages()

    def _windowed(self, segment: Segment) -> bool:
        return self.mode == "windows" and segment.hi is not None and not segment.bounded

    def _rank(self, segment: Segment) -> tuple[int, float]:
        """Leftovers first, then the longest segment; the open tail last, when the rest is read."""
        if segment.bounded:
            return 0, segment.lo
        return (2, 0) if segment.hi is None else (1, -segment.pages())

    def _take(self, segment: Segment, pages: int) -> list[Ask]:
        if self._windowed(segment):
            return [self._carve(segment) for _ in range(pages)]
        self._idle.remove(segment)
        self._busy.append(segment)
        segment.asked = pages
        upper = segment.hi if segment.bounded else None
        return [Ask(segment, None if index else segment.lo, upper) for index in range(pages)]

    def _carve(self, segment: Segment) -> Ask:
        assert segment.hi is not None
        hi = min(segment.lo + PAGE, segment.hi)
        window = Segment(segment.lo, hi, segment.density, bounded=True, asked=1)
        self._busy.append(window)
        segment.lo = hi
        if segment.lo >= segment.hi:
            self._idle.remove(segment)
        self._windows += 1
        return Ask(window, window.lo, hi)

    def absorb(
        self, asks: Sequence[Ask], pages: Sequence[Page | None], refused: Sequence[bool] = ()
    ) -> list[Slice]:
        """Take in the answers of one planned batch; None = not executed or refused (`refused[i]`).

        Returns the new rows in id order per segment. Raises OrderIgnored.
        """
        delivered: list[Slice] = []
        start = 0
        while start < len(asks):
            stop = start + 1
            while stop < len(asks) and asks[stop].segment is asks[start].segment:
                stop += 1
            segment = asks[start].segment
            slices = self._advance(segment, asks[start:stop], pages[start:stop])
            segment.fails = segment.fails + 1 if any(refused[start:stop]) and not slices else 0
            delivered += slices
            start = stop
        if self.mode == "windows" and self._too_many_short():
            self._leave_windows()
        return delivered

    def _advance(self, segment: Segment, asks: Sequence[Ask], pages: Sequence[Page | None]) -> list[Slice]:
        """Move `segment` past its pages; back to idle unless it is complete."""
        delivered: list[Slice] = []
        complete, began, rows = False, segment.lo, 0
        for ask, page in zip(asks, pages, strict=True):
            if page is None:
                break
            if not page.ids:
                complete = ask.hi is None or ask.hi == segment.hi
                break
            if not page.increasing or (page.ids[0] <= segment.lo and ask.lo is not None):
                self._doubt_order(segment)
                break
            if page.ids[0] <= segment.lo:
                self._doubt_references()
                break
            self._good_links += ask.lo is None
            count = len(page.ids) if segment.hi is None else bisect_right(page.ids, segment.hi)
            if count:
                delivered.append(Slice(page, count))
                rows += count
            if count < len(page.ids) or page.ids[-1] == segment.hi:
                complete = True
                break
            segment.lo = page.ids[-1]
            if len(page.ids) < PAGE:
                self._short_windows += segment.bounded
                break
        else:
            segment.ramp = min(PAGE, 2 * len(pages))
        self._busy.remove(segment)
        segment.asked = 0
        if not complete:
            if rows and segment.lo > began:
                segment.density = rows / (segment.lo - began)
            self._idle.append(segment)
        return delivered

    def _doubt_order(self, segment: Segment) -> None:
        """Ask the same again once: a fault is not a habit."""
        segment.doubts += 1
        if segment.doubts > 1:
            raise OrderIgnored

    def _doubt_references(self) -> None:
        self._bad_links += 1
        if self.mode != "singles" and (self._bad_links > 1 or not self._good_links):
            self.mode = "singles"
            self.notes.append("references between commands of a batch are not honoured: reading page by page")

    def _too_many_short(self) -> bool:
        """True if confirming short windows would cost more than a batch over the rest."""
        left = sum(self._pages(s) for s in self._idle if self._windowed(s))
        return bool(self._windows) and self._short_windows * left > PAGE * self._windows

    def _leave_windows(self) -> None:
        self.mode = "chains"
        self._split_evenly()

    def _split_evenly(self) -> None:
        """Cut the longest segment so that every slot has one, if it is worth several batches."""
        if not self._spread:
            return
        longest = max(
            (s for s in self._idle if s.hi is not None and not s.bounded), key=Segment.pages, default=None
        )
        if longest is None or longest.hi is None:
            return
        parts = min(self._in_flight, longest.pages() // PAGE)
        if parts < 2:
            return
        step, end = (longest.hi - longest.lo) // parts, longest.hi
        longest.hi = longest.lo + step
        for index in range(1, parts):
            lo = longest.lo + index * step
            hi = end if index == parts - 1 else lo + step
            self._idle.append(Segment(lo, hi, longest.density))

    def _split_for_idle_slot(self, room: int) -> None:
        """If idle work does not fill a batch, cut off the far half of the longest segment in flight."""
        if not self._spread or sum(self._pages(s) for s in self._idle) >= room:
            return
        closed = [s for s in self._busy if s.hi is not None and not s.bounded]
        longest = max(closed, key=lambda s: s.pages() - s.asked, default=None)
        if longest is None or longest.hi is None or longest.pages() - longest.asked < 3 * room:
            return
        reach = longest.lo + int(1.2 * longest.asked * PAGE / longest.density)
        middle = (reach + longest.hi) // 2
        if longest.lo < middle < longest.hi:
            self._idle.append(Segment(middle, longest.hi, longest.density))
            longest.hi = middle

    def _split_for_singles(self, room: int) -> None:
        if not self._spread:
            return
        while len(self._idle) < room:
            closed = [s for s in self._idle if s.hi is not None and not s.bounded]
            longest = max(closed, key=Segment.pages, default=None)
            if longest is None or longest.hi is None or longest.pages() < 4:
                return
            middle = (longest.lo + longest.hi) // 2
            self._idle.append(Segment(middle, longest.hi, longest.density))
            longest.hi = middle
