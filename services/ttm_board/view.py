"""From rows to what a person reads: order, durations, marks, the chart. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any

SEARCHED = ("ticket_number", "task_number", "who_paused", "who_ask_pause", "last_comment")
SOON = timedelta(hours=2)
FAR = datetime.max.replace(tzinfo=UTC)
STATES = {"": "все", "overdue": "SLA просрочен", "soon": "до SLA меньше 2 часов", "ended": "пауза истекла"}
UPSTREAM = {
    "ok": "в порядке",
    "auth_failed": "вход отклонён",
    "unreachable": "система тикетов недоступна",
    "unknown": "ещё не проверен",
}
LABEL_WIDTH, BAR_WIDTH, ROW_HEIGHT, LABEL_MOST = 280, 420, 30, 34


@dataclass(frozen=True, slots=True)
class Filters:
    """What of the list is shown. `text` is looked for in numbers, names and comments."""

    text: str = ""
    asked: str = ""
    state: str = ""
    unit: str = ""

    def takes(self, line: Line) -> bool:
        row = line.row
        words = (
            row[n] for n in ("ticket_number", "task_number", "who_paused", "who_ask_pause", "last_comment")
        )
        return (
            (not self.text or self.text.casefold() in " ".join(str(w or "") for w in words).casefold())
            and (not self.asked or row["who_ask_pause"] == self.asked)
            and (not self.state or self.state in line.marks)
        )


@dataclass(frozen=True, slots=True)
class Line:
    """A suspended ticket: its row, how long until its deadline, and what stands out (keys of STATES)."""

    row: Mapping[str, Any]
    left: timedelta | None
    marks: frozenset[str]


@dataclass(frozen=True, slots=True)
class Bar:
    """One unit of the chart; `label` fits, `unit` is whole. Lengths in units of the drawing."""

    unit: str
    label: str
    count: int
    overrun: str
    y: int
    width: int


def lines(rows: Iterable[Mapping[str, Any]], now: datetime) -> list[Line]:
    """Suspended tickets, overdue ones first, then by deadline; those without one last."""
    found = [_line(row, now) for row in rows]
    return sorted(found, key=lambda line: (line.row["sla"] or FAR, line.row["task_number"]))


def _line(row: Mapping[str, Any], now: datetime) -> Line:
    left = row["sla"] - now if row["sla"] else None
    marks = set()
    if left is not None and left < timedelta(0):
        marks.add("overdue")
    elif left is not None and left < SOON:
        marks.add("soon")
    if row["end_pause"] and row["end_pause"] < now:
        marks.add("ended")
    return Line(row, left, frozenset(marks))


def breached(rows: Iterable[Mapping[str, Any]], unit: str = "") -> list[Mapping[str, Any]]:
    """The day's tickets whose SLA ran out, of one responsible unit or of all."""
    return [r for r in rows if r["outcome"] == "breached" and (not unit or r["responsible"] == unit)]


def bars(rows: Iterable[Mapping[str, Any]]) -> list[Bar]:
    """Breaches by responsible unit, most first."""
    counts: dict[str, tuple[int, int]] = {}
    for row in rows:
        count, seconds = counts.get(row["responsible"], (0, 0))
        counts[row["responsible"]] = count + 1, seconds + (row["overrun_seconds"] or 0)
    ordered = sorted(counts.items(), key=lambda each: (-each[1][0], each[0]))
    most = max((count for count, _ in counts.values()), default=1)
    return [
        Bar(
            unit,
            unit if len(unit) <= LABEL_MOST else unit[: LABEL_MOST - 1] + "…",
            count,
            duration(timedelta(seconds=seconds)),
            number * ROW_HEIGHT,
            max(2, round(BAR_WIDTH * count / most)),
        )
        for number, (unit, (count, seconds)) in enumerate(ordered)
    ]


def choices(rows: Iterable[Mapping[str, Any]], name: str) -> list[str]:
    """Values of a column, for a filter."""
    return sorted({row[name] for row in rows if row[name]})


def duration(length: timedelta) -> str:
    """`1 д 3 ч`, `2 ч 15 мин`, `40 мин`, without a sign."""
    minutes = int(abs(length).total_seconds()) // 60
    days, hours, rest = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days} д {hours} ч"
    return f"{hours} ч {rest:02} мин" if hours else f"{rest} мин"


def left_text(left: timedelta | None) -> str:
    """How long until the deadline, or since it."""
    if left is None:
        return "срок неизвестен"
    return f"просрочен на {duration(left)}" if left < timedelta(0) else f"осталось {duration(left)}"


def local(instant: datetime | None, zone: tzinfo, form: str = "%d.%m %H:%M") -> str:
    """An instant in the business zone; a dash for none."""
    return instant.astimezone(zone).strftime(form) if instant else "—"


@dataclass(frozen=True, slots=True)
class Freshness:
    """Whether a list can be trusted: a sentence and a mark, `good`, `late` or `bad`."""

    text: str
    mark: str


def freshness(load: Mapping[str, Any] | None, now: datetime, interval_s: float) -> Freshness:
    """Of the suspended list: late after two intervals, bad after three, which is when the alert comes."""
    complete = load["complete_at"] if load else None
    if complete is None:
        return Freshness("список ещё ни разу не прочитан целиком", "bad")
    age = now - complete
    mark = "good" if age <= timedelta(seconds=2 * interval_s) else "late"
    if age > timedelta(seconds=3 * interval_s):
        mark = "bad"
    return Freshness(
        f"прочитан {duration(age)} назад" if age >= timedelta(minutes=1) else "только что прочитан", mark
    )


def day_freshness(load: Mapping[str, Any] | None, day: date) -> Freshness:
    """Of a business day: loaded to its end, begun, or not at all."""
    if load and load["complete_at"]:
        return Freshness("день загружен полностью", "good")
    if load:
        return Freshness(f"день загружен не полностью: {load['problem'] or 'причина неизвестна'}", "bad")
    return Freshness(f"{day:%d.%m.%Y} ещё не загружен", "late")


def by_name(connectors: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(connectors, key=lambda connector: str(connector.get("instance")))
