"""What tells one method of MTS Link from another, as data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from etl_assets.mts_link.fields import Source, sources
from resources.mts_link import ONCE, Paging

Group = Literal["addressbook", "chats", "events", "files", "organisation", "tests"]
Strategy = Literal["list", "window", "fan_out", "folders", "messages"]
Form = Literal["local", "rfc3339", "day", "course_day"]
Shape = Callable[[Mapping[str, Any]], Iterable[dict[str, Any]]]

# Page sizes that the vendor lists for each family of methods; the largest needs the fewest requests.
BY_250 = Paging("page", 250)
BY_500 = Paging("page", 500)
BY_1000 = Paging("page", 1000)
BY_100 = Paging("page", 100, listed=False)
OFFSET_500 = Paging("offset", 500)
OFFSET_100 = Paging("offset", 100, listed=False)
COURSES = Paging("pagination", 100, listed=False)
CURSOR = Paging("cursor", 1000)
# The set that is given without it is not documented.
STATUSES = {"status[0]": "ACTIVE", "status[1]": "START", "status[2]": "STOP"}


# When a row was last in use, or came into being: by the first of these that is filled.
AGES = (
    "lastStart",
    "updatedAt",
    "createdAtMs",
    "createAt",
    "createdAt",
    "registerDate",
    "endsAt",
    "startsAt",
    "finishedAt",
    "startedAt",
    "endTime",
    "startTime",
    "shownAt",
    "raisedAt",
    "reactedAt",
    "eventSessionEndsAt",
)


@dataclass(frozen=True, slots=True)
class Privacy:
    """A class of data: off until a setting names it, or on."""

    about: str
    on: bool = True


PRIVACY = {
    "organisation": Privacy("settings of the organisation: brandings, groups, time zones"),
    "staff": Privacy("employees, their chats without what is written there"),
    "events": Privacy("events, sessions, questions of the audience"),
    "attendance": Privacy("who took part, when, from where, how attentively"),
    "files": Privacy("files and records, with addresses that open them"),
    "tests": Privacy("tests, votes and their results"),
    "courses": Privacy("courses, groups, progress of students"),
    "chats": Privacy("correspondence: messages of chats and of events", on=False),
    "transcripts": Privacy("what was said: transcripts and summaries of them", on=False),
    "contacts": Privacy("the address book: everyone who ever registered", on=False),
}


@dataclass(frozen=True, slots=True)
class Window:
    """A period that a method takes. `day` is the column of the instant that the period is of.

    `form`: local `yyyy-mm-dd hh:mm:ss`, RFC 3339, a day, or the `dd-mm-yyyy` of courses. An hourly load reads
    from `lookback_days` before the last one and to `ahead_days` after now. `step_days` cuts a long period.
    `whole_at_night`: one answer holds all there is, so that a night need not look back only.
    """

    day: str
    since: str = "from"
    until: str = "to"
    form: Form = "local"
    lookback_days: int = 3
    ahead_days: int = 1
    step_days: int | None = None
    whole_at_night: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method, one table, one asset.

    `path` holds the path parameters under the names of the old command line. `parent` names the rows of
    `parents.py` that feed them; their columns stand in each row. `fields`: see `fields.sources`. `shape`
    makes rows of one record. `options` are further query parameters, for the command line. `dropped`
    top-level fields are never stored. `absent` refusals mean that there is nothing. `hourly`: read every
    hour, else once a night. `optional`: servers without this method exist. `kept`: rows stay when their
    parent goes. `together`: so many parents fit one question, as values of `together_as`; its answers name
    them. `identity`: the columns that tell a record that comes without an id; all of it, if none are named.
    """

    name: str
    group: Group
    about: str
    path: str
    fields: str
    key: tuple[str, ...] = ("id",)
    paging: Paging = ONCE
    query: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    privacy: str = "events"
    parent: str = ""
    window: Window | None = None
    strategy: Strategy = "list"
    shape: Shape | None = None
    whole: bool = False
    dropped: frozenset[str] = frozenset()
    absent: frozenset[int] = frozenset()
    hourly: bool = False
    optional: bool = False
    kept: bool = False
    together: int = 1
    together_as: str = ""
    identity: tuple[str, ...] = ()
    source: str = ""

    @property
    def placeholders(self) -> tuple[str, ...]:
        """Names of the path parameters, in order."""
        return tuple(re.findall(r"{(\w+)}", self.path))

    @property
    def columns(self) -> tuple[Source, ...]:
        return sources(self.fields)

    @property
    def partitioned(self) -> bool:
        """Whether it has days: those of its own period, or of its parents."""
        return (self.window is not None and self.strategy in ("window",)) or self.parent in DATED

    @property
    def day(self) -> str | None:
        """The column by whose days the table is shown."""
        if self.window and self.window.day:
            return self.window.day
        named = [c.column for c in self.columns]
        return next((n for n in ("createdAtMs", "createAt", "registerDate", "startsAt") if n in named), None)

    @property
    def ages(self) -> tuple[str, ...]:
        """Columns that tell a row's age; none for lists, which show the present (people, settings)."""
        named = {c.column for c in self.columns}
        return tuple(n for n in AGES if n in named) if self.strategy != "list" else ()


# Parents that have a day of their own.
DATED = frozenset(
    {
        "attended",
        "checked",
        "converted",
        "converted_files",
        "events",
        "finished",
        "sessions",
        "speakers",
        "transcripts",
    }
)
