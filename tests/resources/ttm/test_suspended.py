"""Who is suspended, and what the list of them becomes."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from resources.ttm.analysis import examine
from resources.ttm.protocol import TtmError
from resources.ttm.suspended_list import plan_sync
from resources.ttm.values import Calendar

MOSCOW = Calendar(ZoneInfo("Europe/Moscow"))


def task(number: str, kind: str, done: Any = "2026-03-10T10:00:00Z", **more: Any) -> dict[str, Any]:
    return {
        "taskNumber": number,
        "typeName": kind,
        "createTs": f"2026-03-10T0{number[-1]}:00:00Z",
        "completionDate": done,
        "targetUnitName": f"группа {number[-1]}",
        "taskExecutorDTO": {"executorName": f"сотрудник {number[-1]}"},
        **more,
    }


def ticket(*tasks: Any, number: Any = 7, status: str = "В работе") -> dict[str, Any]:
    return {"id": number, "status": status, "ola": {"kdSLA": "2026-03-11"}, "tasks": list(tasks)}


REQUEST, WORK = task("7-1", "Диагностика"), task("7-2", "Решение", closeComment="<p>ждём&nbsp;доступ</p>")
WAIT = task("7-3", "Ожидание", None, suspendDate="2026-03-12T00:00:00+03:00")


def test_the_row_names_who_asked_who_paused_and_why():
    row = examine(ticket(REQUEST, WORK, WAIT), MOSCOW).suspended_row
    assert row
    assert (row.task_number, row.ticket_number) == ("7-3", 7)
    assert (row.who_ask_pause, row.who_paused, row.last_comment) == ("группа 1", "сотрудник 2", "ждём доступ")
    assert (row.agreement_pause, row.begin_pause) == (
        datetime(2026, 3, 10, 2, tzinfo=UTC),
        datetime(2026, 3, 10, 3, tzinfo=UTC),
    )
    assert row.end_pause == datetime(2026, 3, 11, 21, tzinfo=UTC)
    assert row.sla == datetime(2026, 3, 10, 21, tzinfo=UTC)


@pytest.mark.parametrize("done", ["2026-03-10T10:00:00Z", "когда-то"])
def test_a_wait_that_was_ended_is_no_suspension(done: str):
    verdict = examine(ticket(REQUEST, task("7-2", "Ожидание", done), task("7-3", "Решение", None)), MOSCOW)
    assert (verdict.analysis.outcome, verdict.suspended_row) == ("open", None)


def test_of_two_open_waits_the_newer_one_counts():
    row = examine(ticket(task("7-1", "Ожидание", " "), WORK, WAIT, task("7-4", "Проверка", None)), MOSCOW)
    assert row.suspended_row
    assert row.suspended_row.task_number == "7-3"


def test_a_closed_ticket_is_not_suspended_though_a_wait_was_left_open():
    assert examine(ticket(REQUEST, WAIT, status="Закрыт"), MOSCOW).suspended_row is None


def test_a_ticket_of_another_status_may_be_suspended():
    verdict = examine(ticket(REQUEST, WORK, WAIT, status="На паузе"), MOSCOW)
    assert (verdict.analysis.outcome, verdict.warnings) == ("unknown_status", ("unknown_status",))
    assert verdict.suspended_row


def test_a_wait_without_a_number_has_no_row():
    verdict = examine(ticket(REQUEST, WORK, {**WAIT, "taskNumber": None}), MOSCOW)
    assert (verdict.suspended_row, verdict.warnings) == (None, ("no_task_number",))


def test_a_ticket_without_a_number_has_no_row():
    verdict = examine(ticket(REQUEST, WORK, WAIT, number=None), MOSCOW)
    assert (verdict.suspended_row, verdict.warnings) == (None, ("no_ticket_id",))


def test_a_broken_ticket_fails_alone():
    good = ticket(REQUEST, WORK, WAIT)
    plan = plan_sync(
        [
            (7, good),
            (8, ["no ticket"]),
            (9, TtmError("timeout", "late")),
            (10, TtmError("not_found", "none")),
        ],
        MOSCOW,
    )
    assert (list(plan.rows), set(plan.failed), plan.complete) == (["7-3"], {8, 9}, False)


def test_a_list_that_was_not_read_to_its_end_is_not_complete():
    assert not plan_sync([], MOSCOW, partial=True).complete
    assert plan_sync([], MOSCOW).complete


SAMPLES = os.environ.get("SVOD_SAMPLES")
SYNCS = sorted(Path(SAMPLES or ".").glob("ttm/sync-*.json"))


@pytest.mark.skipif(not SAMPLES, reason="SVOD_SAMPLES names no folder of samples")
@pytest.mark.parametrize("path", SYNCS, ids=lambda path: path.stem)
def test_a_sample_list_fails_and_completes_as_expected(path: Path):
    sample = json.loads(path.read_text(encoding="utf-8"))
    if sample["dashboard"]["status_code"] != 200:
        return  # nothing is planned without a dashboard; the database's test reads this one
    answers = [
        (int(number), reply["result"] if reply["status_code"] == 200 else TtmError("upstream_error", "503"))
        for number, reply in sample["tickets"].items()
    ]
    plan = plan_sync(answers, MOSCOW)
    assert (plan.complete, list(plan.failed)) == (
        sample["expected"]["complete"],
        sample["expected"]["failed"],
    )
