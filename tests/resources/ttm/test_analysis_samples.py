"""Every sample ticket: analysis, rows and warnings equal what is expected, field by field."""

import json
import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from resources.ttm.analysis import examine
from resources.ttm.values import Calendar

SAMPLES = os.environ.get("SVOD_SAMPLES")
pytestmark = pytest.mark.skipif(not SAMPLES, reason="SVOD_SAMPLES names no folder of samples")
TICKETS = sorted(Path(SAMPLES or ".").glob("ttm/[0-9]*.json"))


def plain(value: Any) -> Any:
    """A record as the samples print it."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, date):
        return value.isoformat()
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return {name: plain(getattr(value, name)) for name in type(value).__dataclass_fields__}


def calendar_of(context: dict[str, str]) -> Calendar:
    return Calendar(ZoneInfo(context["business_tz"]), ZoneInfo(context["source_tz"]))


@pytest.mark.parametrize("path", TICKETS, ids=lambda path: path.stem)
def test_a_sample_gives_what_is_expected(path: Path):
    sample = json.loads(path.read_text(encoding="utf-8"))
    context = sample["context"]
    verdict = examine(sample["ticket"], calendar_of(context), date.fromisoformat(context["business_date"]))
    found = {
        "analysis": {**plain(verdict.analysis), "result": verdict.analysis.result},
        "in_window": verdict.in_window,
        "arrears_row": plain(verdict.arrears_row),
        "suspended_row": plain(verdict.suspended_row),
        "warnings": list(verdict.warnings),
    }
    assert found == sample["expected"]
    assert list(found["analysis"]["by_unit"]) == list(sample["expected"]["analysis"]["by_unit"])


def test_there_are_samples():
    assert len(TICKETS) >= 22
