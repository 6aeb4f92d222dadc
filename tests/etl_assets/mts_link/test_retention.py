"""Rows past the days of their class go from tables, views and analyses, and no load brings them back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from etl_assets.mts_link.endpoints import BY_NAME, PRIVACY
from etl_assets.mts_link.marts import MARTS as ALL_MARTS
from etl_assets.mts_link.marts import make_view
from etl_assets.mts_link.tables import RowMaker
from resources.mts_link import Scrubber
from sandbox.mts_link.org import DAY, SESSION
from tests.etl_assets.mts_link.org_house import ZONE, OrgHouse, day, definitions, org_house, small_org

DAYS = {"chats": 60, "transcripts": 30, "attendance": 40, "files": 50}
# How old rows are that have no date of their own: their session, or its transcript, says it.
OF_SESSION = {"converted_records": "event_session_id", "visits_stats": "id"}
DATED = {
    "channel_messages": "createdAtMs",
    "event_chat_messages": "createAt",
    "transcript_list": "createdAt",
    "event_participants": "registerDate",
    "users_stats": "endsAt",
    "event_likes": "reactedAt",
    "converted_records_org": "createAt",
}
CLASS_OF = {
    "channel_messages": "chats",
    "event_chat_messages": "chats",
    "transcript_list": "transcripts",
    "transcript_summary": "transcripts",
    "converted_records": "files",
    "converted_records_org": "files",
}
NAMES = (
    "organization_members",
    "chats_organization_members",
    "user_channels",
    "organization_events_schedule",
    "endless_meetings_list",
    "transcript_summary",
    *OF_SESSION,
    *DATED,
)
MARTS = {
    "combined_messages": "chats",
    "messages_by_chat_user_day": "chats",
    "daily_active_users": "chats",
    "participant_attendance": "attendance",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrgHouse]:
    """All of it is loaded; then the limits are set, and what is too old is deleted."""
    config = small_org(sessions=24, staff=6, participants=4, days=100, messages=250)
    with org_house(tmp_path_factory.mktemp("retention"), config) as place:
        place.load(*NAMES, feed="nightly")
        for mart in ALL_MARTS:
            make_view(place.warehouse, mart, mart.sql.replace("{zone}", "Europe/Moscow"), "Europe/Moscow")
        before = {name: old_rows(place, name) for name in (*DATED, *OF_SESSION)}
        assert all(before.values()), before
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MTS_LINK_RETENTION_DAYS", str(DAYS).replace("'", '"'))
            place.defs = definitions()
            place.load("retention", feed="nightly")
            yield place


def limit(place: OrgHouse, table: str) -> float:
    return place.server.org.clock.now() - DAYS[CLASS_OF.get(table, "attendance")] * DAY


def old_rows(place: OrgHouse, table: str, database: str = "mts_link") -> int:
    """Rows past the days of their class, also those that views hide."""
    if table in DATED:
        where = f"{DATED[table]} < toDateTime64({limit(place, table):.3f}, 3, 'UTC')"
    else:
        org = place.server.org
        gone = [str(SESSION + s) for s in org.session_numbers() if org.start(s) < limit(place, table)]
        where = f"{OF_SESSION[table]} IN {tuple(gone)}"
    return place.value(f"SELECT count() FROM {database}.{table} WHERE {where}")


def summaries(place: OrgHouse) -> tuple[set[str], set[str]]:
    """(transcripts with a summary, transcripts that are listed)."""
    found = place.rows("SELECT DISTINCT transcript_id FROM mts_link.transcript_summary")
    listed = place.rows("SELECT id FROM bi.transcript_list WHERE status = 'published'")
    return {row[0] for row in found}, {row[0] for row in listed}


def assert_gone(place: OrgHouse) -> None:
    """No old row anywhere, and there are younger ones."""
    for database in ("mts_link", "bi"):
        assert {n: old_rows(place, n, database) for n in (*DATED, *OF_SESSION)} == dict.fromkeys(
            (*DATED, *OF_SESSION), 0
        )
    for name in (*DATED, *OF_SESSION):
        assert place.value(f"SELECT count() FROM bi.{name}") > 0, name
    here, listed = summaries(place)
    assert here
    assert here == listed
    now = datetime.fromtimestamp(place.server.org.clock.now())
    for mart, name in MARTS.items():
        column = {"combined_messages": "createdAt", "participant_attendance": "starts_at"}.get(mart, "date")
        oldest = place.value(f"SELECT toDate(min({column})) FROM mts_link_marts.{mart}")
        assert oldest >= (now - timedelta(days=DAYS[name] + 1)).date(), mart


def test_rows_past_their_days_are_gone_from_tables_views_and_analyses(place: OrgHouse):
    assert_gone(place)
    assert place.metadata("retention")["channel_messages"] > 0


def test_rows_of_classes_without_a_limit_stay(place: OrgHouse):
    sessions = len(list(place.server.org.session_numbers()))
    assert place.value("SELECT count() FROM bi.event_sessions") == sessions


def test_no_later_load_brings_them_back(place: OrgHouse):
    for chat in range(place.server.config.channels):  # the page of a new message holds old ones too
        place.server.control("write", {"chat": chat})
    recent = [s for s in place.server.org.session_numbers() if place.server.org.finished(s)]
    for session in (recent[0], recent[-1]):  # its children are asked for again
        place.server.control("change-session", {"id": SESSION + session, "name": "Другое имя"})
    place.load(*NAMES, feed="nightly")
    assert_gone(place)
    place.load(*NAMES, feed=None, days=(day(3), day(0)))  # a backfill of everything
    assert_gone(place)


def test_lists_of_chats_keep_no_text_of_an_old_message():
    now = datetime.now(UTC)
    maker = RowMaker(
        BY_NAME["user_channels"],
        Scrubber(),
        ZONE,
        frozenset(PRIVACY),
        oldest={"chats": now - timedelta(days=60)},
    )
    written = [{"id": "m1", "text": "слово", "createdAtMs": _ms(now - timedelta(days=n))} for n in (59, 61)]
    rows = maker.rows([{"chatId": "c", "lastMessage": message} for message in written])
    assert ["слово" in row["raw"] for row in rows] == [True, False]


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
