"""Which parents a fan-out asks for now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from etl_assets.loading import Bounds
from etl_assets.mts_link.marks import OK, Mark
from etl_assets.mts_link.parents import Parent, aware

Mode = Literal["hourly", "nightly", "asked"]
LIVELY = 15  # a third of the 40 requests that an hour without changes may cost
LIVELY_FOR = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Plan:
    """`hourly`: parents that are new or have changed. `nightly`: also those that ended within the look-back,
    those that never show a change, and those that were refused for a right or could not be read. `asked`:
    all of the window.

    What has been read since `since`, when the load began that is now gone on with, is not asked for again.
    """

    mode: Mode
    now: datetime
    lookback: timedelta
    bounds: Bounds
    since: datetime | None = None

    def due(self, parents: Sequence[Parent], marks: Mapping[str, Mark]) -> list[Parent]:
        """The parents to ask for, in their order."""
        return [parent for parent in parents if self._is_due(parent, marks.get(parent.key))]

    def _is_due(self, parent: Parent, mark: Mark | None) -> bool:
        fresh = mark is not None and self.since is not None and mark.read_at >= self.since
        if self.mode == "asked":
            return self._within(parent) and not fresh
        if mark is None or mark.state != state_of(parent):
            return True
        if self.mode == "hourly" or fresh:
            return False
        # a right may be given without a trace at the parent
        return self._restless(parent) or not (mark.status in (OK, 404) or mark.unserved)

    def _within(self, parent: Parent) -> bool:
        """Whether the parent's day is in the window; one without a day belongs to an open window."""
        since, until = self.bounds.since, self.bounds.until
        if parent.day is None:
            return until is None
        day = aware(parent.day)
        return (since is None or day >= since) and (until is None or day < until)

    def _restless(self, parent: Parent) -> bool:
        if not parent.state:
            return True
        return parent.ended is not None and aware(parent.ended) >= self.now - self.lookback


def lively(chats: Sequence[Parent], marks: Mapping[str, Mark], now: datetime) -> list[Parent]:
    """The chats that were written in last, which an hour asks for news.

    What tells of news in all chats, their lists by person, is a question a person: too much for an hour.
    """
    since, newest = (now - LIVELY_FOR).timestamp() * 1000, dict[str, int]()
    for chat in chats:
        mark = marks.get(chat.key)
        if mark and mark.cursor and mark.status == OK and int(mark.cursor) >= since:
            newest[chat.key] = int(mark.cursor)
    chosen = set(sorted(newest, key=lambda key: (-newest[key], key))[:LIVELY])
    return [chat for chat in chats if chat.key in chosen]


def state_of(parent: Parent) -> str:
    """What a mark keeps of a parent; never empty, since an empty one asks again."""
    return parent.state or "-"
