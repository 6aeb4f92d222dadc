"""Every sample ticket: analysis, rows and warnings equal what is expected, field by field."""

import json
import os
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from cli.ttm import record
from resources.ttm.analysis import examine
from resources.ttm.values import Calendar

SAMPLES = os.environ.get("SVOD_SAMPLES")
pytestmark = pytest.mark.skipif(not SAMPLES, reason="SVOD_SAMPLES names no folder of samples")
TICKETS = sorted(Path(SAMPLES or ".").glob("ttm/[0-9]*.json"))


def calendar_of(context: dict[str, str]) -> Calendar:
    return Calendar(ZoneInfo(context["business_tz"]), ZoneInfo(context["source_tz"]))


@pytest.mark.parametrize("path", TICKETS, ids=lambda path: path.stem)
def test_a_sample_gives_what_is_expected(path: Path):
    sample = json.loads(path.read_text(encoding="utf-8"))
    context = sample["context"]
    verdict = examine(sample["ticket"], calendar_of(context), date.fromisoformat(context["business_date"]))
    found = record(verdict)
    assert found == sample["expected"]
    assert list(found["analysis"]["by_unit"]) == list(sample["expected"]["analysis"]["by_unit"])


def test_there_are_samples():
    assert len(TICKETS) >= 22
