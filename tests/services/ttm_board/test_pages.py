"""What the board says: order, filters, freshness, CSV; nothing of a ticket becomes markup or a formula."""

import csv
import html
import io
import re
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.ttm.database import TtmDatabase
from services.ttm_board import view
from services.ttm_board.export import to_csv
from tests.services.ttm_board.board_house import YESTERDAY, ZONE, Shown, breach, suspended


def tickets(page: str) -> list[str]:
    """Numbers of the suspended tickets, in their order."""
    table = page.partition('class="stopped"')[2].partition("</table>")[0]
    return re.findall(r'data-label="Тикет"><b>(\d+)</b>', table)


def test_overdue_tickets_come_first_then_the_nearest_deadline(shown: Shown):
    shown.suspend(
        suspended(1, hours=9), suspended(2, hours=None), suspended(3, hours=-2), suspended(4, hours=1)
    )
    page = shown.get().text
    assert tickets(page) == ["3", "4", "1", "2"]
    assert "просрочен на 2 ч 00 мин" in page
    assert "срок неизвестен" in page
    assert re.search(r"<b>4</b> приостановлено", page)
    assert re.search(r"<b>1</b> из них SLA просрочен", page)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=12", ["12"]),
        ("q=вега", ["13"]),
        ("state=overdue", ["11"]),
        ("state=soon", ["12"]),
        ("state=ended", ["13"]),
        ("asked=Группа Вега", ["13"]),
        ("state=nonsense", ["11", "12", "13"]),
        ("q=нет такого", []),
    ],
)
def test_filters_leave_what_was_asked_for(shown: Shown, query: str, found: list[str]):
    shown.suspend(
        suspended(11, hours=-1),
        suspended(12, hours=1),
        suspended(13, who_ask_pause="Группа Вега", end_pause=datetime.now(UTC) - timedelta(minutes=5)),
    )
    page = shown.get(f"/?{query}").text
    assert tickets(page) == found
    rows = list(csv.reader(io.StringIO(shown.get(f"/stopped.csv?{query}").text), delimiter=";"))
    assert [row[0] for row in rows[1:]] == found


def test_what_a_ticket_says_is_text_and_nothing_else(shown: Shown):
    evil = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
    shown.suspend(suspended(5, last_comment=evil, who_paused=evil, who_ask_pause=evil))
    shown.expire(breach(6, evil))
    page = shown.get(f"/?q={evil}").text
    assert "<img" not in page
    assert page.count("<script") == 1  # its own
    assert html.escape(evil) in page.replace("&#34;", "&quot;")
    policy = shown.get().headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy


def test_yesterdays_breaches_are_counted_by_unit(shown: Shown):
    shown.expire(breach(1, "Линия 1"), breach(2, "Линия 1", 5400), breach(3, "Длинное имя группы " * 5))
    page = shown.get().text
    assert "<title>Линия 1: 2, превышение 2 ч 30 мин</title>" in page
    assert page.count("<rect") == 2
    assert "день загружен полностью" in page
    only = shown.get("/?unit=Линия 1").text.partition('class="expired"')[2]
    assert only.count("<details>") == 2


def test_a_day_that_is_not_complete_says_so(shown: Shown):
    shown.expire(breach(1, "Линия 1"), problem="1 of 2 tickets are not loaded")
    assert "день загружен не полностью: 1 of 2 tickets" in shown.get().text
    assert "ещё не загружен" in shown.get("/?day=2026-01-01").text


@pytest.mark.parametrize("day", ["", "никогда", "2999-01-01", "0001-01-01", "2026-13-45"])
def test_a_day_that_cannot_be_is_yesterday(shown: Shown, day: str):
    assert f"Просрочено за {YESTERDAY:%d.%m.%Y}" in shown.get(f"/?day={day}").text


def test_the_age_of_the_list_is_told(database: TtmDatabase, shown: Shown):
    assert "ни разу не прочитан" in shown.get().text
    shown.suspend(suspended(1))
    assert "только что прочитан" in shown.get().text
    now = datetime.now(UTC)
    ages = [timedelta(seconds=s) for s in (500, 700, 901)]
    marks = [view.freshness({"complete_at": now - age}, now, 300).mark for age in ages]
    assert marks == ["good", "late", "bad"]


def test_csv_is_utf8_with_a_mark_and_no_formulas(shown: Shown):
    evil = ['=HYPERLINK("http://x")', "+1", "-1", "@SUM(A1)", "\t=1", " =1", "＝1"]
    shown.suspend(*(suspended(n, last_comment=text) for n, text in enumerate(evil, 1)))
    answer = shown.get("/stopped.csv")
    assert answer.content.startswith(b"\xef\xbb\xbf")
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig")), delimiter=";"))
    assert sorted(row["Последний коммент"] for row in rows) == sorted(f"'{text}" for text in evil)
    shown.expire(breach(7, "Линия; 1"))
    (row,) = csv.DictReader(io.StringIO(shown.get("/expired.csv").content.decode("utf-8-sig")), delimiter=";")
    assert (row["Тикет"], row["Ответственный"], row["Дата закрытия"]) == ("7", "Линия; 1", str(YESTERDAY))


@given(st.text())
def test_no_text_is_a_formula_and_none_is_lost(text: str):
    body = to_csv([{"a": text}], {"a": "A"}, ZONE).decode("utf-8-sig")
    cell = list(csv.reader(io.StringIO(body, newline=""), delimiter=";"))[1:]
    shown = cell[0][0] if cell and cell[0] else ""
    assert not shown.lstrip(" \u00a0").startswith(("=", "+", "-", "@"))
    assert shown in (text, f"'{text}") or "\ud800" <= min(text) <= "\udfff"


def test_without_the_database_the_page_says_so_and_nothing_more(database: TtmDatabase, shown: Shown):
    database.url = database.url.set(database="nowhere")
    database.close()
    answer = shown.get()
    assert answer.status_code == 503
    assert "nowhere" not in answer.text


def test_the_hub_that_is_not_configured_is_told(shown: Shown):
    with httpx.stream("GET", f"{shown.url}/events", timeout=20, trust_env=False) as events:
        next(events.iter_lines())  # by now the hub has been asked
        assert "хаб не настроен: TTM_SERVER is not set." in shown.get().text


def test_a_change_is_pushed(shown: Shown):
    shown.suspend(suspended(1))
    with httpx.stream("GET", f"{shown.url}/events", timeout=20, trust_env=False) as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        lines = (line for line in events.iter_lines() if line.startswith("data: "))
        first = next(lines)
        assert f'data-version="{first.removeprefix("data: ")}"' in shown.get("/panel").text
        shown.suspend(suspended(2))
        assert next(lines) != first


minutes = st.integers(0, 10_000_000)


@given(minutes)
def test_a_duration_reads_back(total: int):
    text = view.duration(timedelta(minutes=-total))
    unit = {"д": 1440, "ч": 60, "мин": 1}
    parts = text.split(" ")
    read = sum(int(n) * unit[u] for n, u in zip(parts[::2], parts[1::2], strict=True))
    assert read == (total if total < 1440 else total // 60 * 60)
