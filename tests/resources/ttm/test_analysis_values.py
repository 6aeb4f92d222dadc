"""How single values are read: stamps, minutes, comments."""

import math
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from resources.ttm.values import Calendar, clean, minutes, text_of

MOSCOW = Calendar(ZoneInfo("Europe/Moscow"))
BERLIN = Calendar(ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Omsk"))


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-11-20T08:15:30.123Z", datetime(2026, 11, 20, 8, 15, 30, tzinfo=UTC)),
        ("2026-11-20 08:15:30,999", datetime(2026, 11, 20, 8, 15, 30, tzinfo=UTC)),
        ("2026-11-20T08:15:30+0530", datetime(2026, 11, 20, 2, 45, 30, tzinfo=UTC)),
        ("2026-11-20T08:15:30.1-03:00", datetime(2026, 11, 20, 11, 15, 30, tzinfo=UTC)),
        ("2026-11-20", datetime(2026, 11, 19, 21, tzinfo=UTC)),
        (None, None),
        (" \t", None),
    ],
)
def test_a_stamp_is_an_instant(text: str | None, instant: datetime | None):
    assert MOSCOW.parse(text) == instant


def test_a_stamp_without_a_zone_is_in_that_of_the_source():
    assert BERLIN.parse("2026-11-20T08:00:00") == datetime(2026, 11, 20, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        *("2026-11-20T08:15", "2026-11-20T08:15:30 Z", "2026-11-20T08:15:30z", "20.11.2026", "2026-13-01"),
        *("2026-11-20T24:00:00Z", "2026-11-20T08:15:30+24:00", "2026-11-20T08:15:30+02:75", "٢٠٢٦-11-20"),
        *("0001-01-01T00:00:00+03:00", "9999-12-31T23:59:59Z", 1732090530, False, [], {}),
    ],
)
def test_anything_else_is_unusable(value: Any):
    with pytest.raises(ValueError, match=r"not a|outside|must be|out of range|hour|month"):
        MOSCOW.parse(value)


@given(st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_every_offset_gives_the_same_instant(at: datetime, offset: int):
    instant = at.replace(microsecond=0, tzinfo=UTC)
    shown = instant + timedelta(minutes=offset)
    sign, (hours, rest) = "-" if offset < 0 else "+", divmod(abs(offset), 60)
    for colon in ("", ":"):
        text = f"{shown:%Y-%m-%dT%H:%M:%S}.5{sign}{hours:02}{colon}{rest:02}"
        assert BERLIN.parse(text) == instant


@given(st.dates(date(1990, 1, 1), date(2100, 1, 1)), st.sampled_from([MOSCOW, BERLIN]))
def test_a_day_is_the_window_of_its_instants(day: date, calendar: Calendar):
    since, until = calendar.window(day)
    assert calendar.day(since) == day == calendar.day(until - timedelta(seconds=1))
    assert calendar.day(until) == day + timedelta(days=1)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        *[(480, 480), (480.0, 480), (90.5, 90.5), (" 90,5 ", 90.5), ("120", 120), ("120.0", 120)],
        *[
            (value, None)
            for value in (None, True, 0, -5, math.nan, math.inf, 10**400, "0", "-5", "1e3", "", "x")
        ],
        *[(value, None) for value in ([], {}, "1.", ".5", "9" * 5000)],
    ],
)
def test_minutes_are_a_positive_number(value: Any, found: float | None):
    assert minutes(value) == found
    assert type(minutes(value)) is type(found)


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("Порт &lt;1/0/1&gt;&nbsp;упал<br>сло<b>во</b> 5 < 7", "Порт <1/0/1> упал слово 5 < 7"),
        ("<p>раз</p><p>два</p>", "раз два"),
        ("<td>a</td><td>b</td>", "a b"),
        ("a<br/>b<hr />c", "a b c"),
        ("a<script>alert(1)</script>b<STYLE>p{}</STYLE>c<!-- d --><!DOCTYPE x>", "abc"),
        ("&amp;lt;b&amp;gt;", "&lt;b&gt;"),
        ("сло\u00adво\u200b\ufeff", "слово"),
        ("<![if !supportLists]>пункт<![endif]>", "пункт"),
        ("<![5>пункт", "пункт"),
        ("a <b", "a <b"),
        ("x</p >y</br>z", "x y z"),
        ("<p>&nbsp;</p>", ""),
        (None, ""),
        (["<p>"], ""),
        (7, "7"),
    ],
)
def test_a_comment_is_one_line_of_plain_text(html: Any, text: str):
    assert clean(html) == text


@given(st.text(alphabet="<>/!-[]&;p b\u00a0\u200b\"'=\n?ра", max_size=60))
def test_cleaning_takes_every_text_and_leaves_one_line(html: str):
    text = clean(html)
    assert text == " ".join(text.split())
    assert not set(text) & set("\u200b\n\u00a0")


class ByTheLibrary(HTMLParser):
    """What the standard parser alone makes of a comment."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.hidden = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.hidden = tag in ("script", "style")
        self.handle_endtag(tag) if tag in ("p", "br") else None

    def handle_endtag(self, tag: str) -> None:
        self.hidden = self.hidden and tag not in ("script", "style")
        self.parts += " " if tag in ("p", "br") else ""

    def handle_data(self, data: str) -> None:
        self.parts += "" if self.hidden else data


MARKUP = """<!-- --> <![if <![CDATA[ ]]> ]> <! <? <p > </p> </ <br/>
    <script> </script> <style &lt &amp; &#60 ; a - " ' = <"""
PIECES = st.sampled_from([*MARKUP.split(), " ", "<b x=\"'"])


@given(st.lists(PIECES, max_size=25).map("".join))
def test_cleaning_reads_markup_as_the_standard_parser_does(html: str):
    try:
        read = ByTheLibrary(html)
    except AssertionError:  # sections of an unknown name: it does not read them at all
        reject()
    assert clean(html) == " ".join("".join(read.parts).split())


@pytest.mark.parametrize(
    ("piece", "text"),
    [
        ("<!--x>", "<!--x>"),
        ("<![CDATA[x>", "<![CDATA[x>"),
        ("<!--", "<!--"),
        ("<p a=", "<p a="),
        ("</", "</"),
        ("<p>x<!--y>", None),
    ],
)
def test_megabytes_of_unclosed_markup_take_no_longer_than_other_text(piece: str, text: str | None):
    """A quadratic search would take an hour."""
    cleaned = clean(piece * 400_000)
    assert cleaned == (text * 400_000 if text else ("x<!--y> " * 400_000).strip())


@given(st.text())
def test_a_text_without_markup_only_loses_its_spacing(text: str):
    plain = text.translate(dict.fromkeys(map(ord, "<&\u200b\ufeff\u00ad")))
    assert clean(plain) == " ".join(plain.split())


def test_numbers_are_names_and_booleans_are_not():
    assert [text_of(v) for v in (451, " a ", True, None, [], 10**400)] == ["451", "a", "", "", "", ""]
