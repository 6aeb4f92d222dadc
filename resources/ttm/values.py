"""How single values of a ticket are read: stamps, minutes, numbers, names, comments.

A ticket is whatever the ticket system answered, so every function takes any JSON value. None of them raises
except `Calendar.parse`, which tells a missing stamp from an unusable one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from html.parser import HTMLParser
from typing import Any

MAX_ID = 2**63 - 1  # bigint, Int64
_STAMP = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[T ](\d\d):(\d\d):(\d\d)(?:[.,]\d+)?(?:(Z)|([+-])(\d\d):?([0-5]\d))?)?",
    re.ASCII,
)
_MINUTES = re.compile(r"\d+(?:[.,]\d+)?", re.ASCII)
_DECLARATION = re.compile(r"<!(?:\[[-_.a-zA-Z0-9]{0,9})?")  # so much of the name tells all sections apart
_DIGITS = re.compile(r"\d{1,19}", re.ASCII)
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\ufeff\u00ad"))
_BLOCKS = frozenset(
    """address article aside blockquote br dd div dl dt fieldset figcaption figure footer form
    h1 h2 h3 h4 h5 h6 header hr li main nav ol p pre section table tbody td tfoot th thead tr ul""".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Calendar:
    """The two zones: `business` makes days and the report's times, `source` is that of stamps without one."""

    business: tzinfo
    source: tzinfo = field(default=UTC)

    def parse(self, value: Any) -> datetime | None:
        """An instant in whole seconds, UTC; None for null and blank text.

        `YYYY-MM-DD[(T| )HH:MM:SS[(.|,)fraction][Z|±HH:MM|±HHMM]]`; a date alone is that day's midnight in the
        business zone. Raises ValueError for anything else.
        """
        if value is None:
            return None
        if not isinstance(value, str):
            raise ValueError("not a text")
        text = value.strip()
        if not text:
            return None
        found = _STAMP.fullmatch(text)
        if not found:
            raise ValueError("not a stamp")
        year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
        zone = self.source if found[4] else self.business
        if found[7]:
            zone = UTC
        elif found[8]:
            offset = timedelta(hours=int(found[9]), minutes=int(found[10]))
            zone = timezone(-offset if found[8] == "-" else offset)
        try:
            instant = datetime(year, month, day, hour, minute, second, tzinfo=zone).astimezone(UTC)
            instant.astimezone(self.business)  # the first and the last day of the calendar have no neighbour
        except OverflowError:
            raise ValueError("outside of the calendar") from None
        return instant

    def day(self, instant: datetime) -> date:
        """The business date of an instant."""
        return instant.astimezone(self.business).date()

    def window(self, day: date) -> tuple[datetime, datetime]:
        """The half-open window [00:00, next 00:00) of a business day, UTC."""
        begin, end = (datetime.combine(d, time(), self.business) for d in (day, day + timedelta(days=1)))
        return begin.astimezone(UTC), end.astimezone(UTC)

    def local(self, instant: datetime) -> str:
        """`YYYY-MM-DDTHH:MM:SS` in the business zone."""
        return instant.astimezone(self.business).replace(tzinfo=None).isoformat()


def text_of(value: Any) -> str:
    """A name, stripped; a number is written out; empty for null, booleans, lists and objects."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return ""
    return str(value) if isinstance(value, float) or abs(value) <= MAX_ID else ""


def folded(value: Any) -> str:
    """A name as names are compared: stripped, case folded."""
    return text_of(value).casefold()


def is_empty(value: Any) -> bool:
    """Whether the ticket system says that there is no value: null or blank text."""
    return value is None or (isinstance(value, str) and not value.strip())


def mapping(value: Any) -> Mapping[str, Any]:
    """The object; an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def objects(value: Any) -> list[Mapping[str, Any]]:
    """The objects of a list, in its order."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def ticket_number(value: Any) -> int | None:
    """A ticket's number from a positive whole number or a text of digits; None for anything else."""
    if isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 < value <= MAX_ID else None


def minutes(value: Any) -> int | float | None:
    """A control period in minutes: whole as int; None where it is undefined."""
    if isinstance(value, str):
        text = value.strip()
        value = float(text.replace(",", ".")) if _MINUTES.fullmatch(text) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    if not math.isfinite(number) or number <= 0:
        return None
    return int(number) if number.is_integer() else number


def clean(html: Any) -> str:
    """A comment, which comes as HTML, as one line of plain text; empty if nothing readable is in it.

    `Порт &lt;1/0/1&gt;&nbsp;упал<br>сло<b>во</b> 5 < 7` is `Порт <1/0/1> упал слово 5 < 7`.
    """
    text = text_of(html)
    end = text.rfind(">") + 1  # no tag begins behind it, and each `<` there costs a search to the end
    parser = _PlainText()
    parser.feed(text[:end] + text[end:].replace("<", "&lt;"))
    parser.close()
    return " ".join("".join(parser.parts).translate(_INVISIBLE).split())


class _PlainText(HTMLParser):
    """Gathers text: block elements are spaces, other tags nothing, entities decoded once.

    Takes a whole text at once, in time linear in its length.
    """

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = False
        self._unclosed: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden = tag in ("script", "style")
        self._space(tag)

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False  # inside of script and style only their own end is seen as a tag
        self._space(tag)

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)

    def parse_comment(self, i: int, report: bool = True) -> int:
        return self._closed("<!--", i, lambda: super(_PlainText, self).parse_comment(i, report))

    def parse_html_declaration(self, i: int) -> int:
        found = _DECLARATION.match(self.rawdata, i)
        kind = found[0].lower() if found else ""
        return self._closed(kind, i, lambda: super(_PlainText, self).parse_html_declaration(i))

    def _closed(self, kind: str, i: int, parse: Callable[[], int]) -> int:
        """Where the construct at `i` ends, or -1. One that is not closed tells that no later one is: the
        library would search the rest of the text again for each."""
        if kind in self._unclosed:
            return -1
        try:
            end = parse()
        except AssertionError:  # how the library refuses a `<![…` that it does not know
            return self.parse_bogus_comment(i)
        if end < 0:
            self._unclosed.add(kind)
        return end

    def _space(self, tag: str) -> None:
        if tag in _BLOCKS:
            self.parts.append(" ")
