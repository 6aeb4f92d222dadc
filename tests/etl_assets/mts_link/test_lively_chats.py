"""An hour asks the chats that were written in last, for one question each; the night asks the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from etl_assets.mts_link.plan import LIVELY
from tests.etl_assets.mts_link.org_house import OrgHouse, org_house, small_org
from tests.etl_assets.mts_link.truth import differences

CHATS, MESSAGES = 30, "channel_messages"
ASKED = "/chats/channel/{}/messages"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[OrgHouse]:
    config = small_org(sessions=2, staff=4, channels=CHATS, messages=CHATS * 10)
    with org_house(tmp_path, config) as place:
        place.server.control("advance", {"seconds": 60 * 86_400})  # what was written at first is long ago
        place.load("chats_organization_members", "user_channels", MESSAGES, feed="nightly")
        yield place


def write(place: OrgHouse, *chats: int, count: int = 1) -> None:
    for chat in chats:
        place.server.control("write", {"chat": chat, "count": count})


def test_an_hour_reads_news_of_the_chats_written_in_last_and_the_night_of_all(place: OrgHouse):
    with place.counted() as stats:
        place.load(MESSAGES)
    assert stats["requests"] == 0  # nobody wrote this week
    write(place, *range(CHATS - 4))
    place.load("user_channels", MESSAGES, feed="nightly")
    write(place, *range(CHATS))
    with place.counted() as stats:
        place.load(MESSAGES)
    assert stats["routes"][ASKED] == stats["requests"] == LIVELY
    assert place.value("SELECT count() FROM bi.channel_messages") == CHATS * 10 + CHATS - 4 + LIVELY
    place.load("user_channels", MESSAGES, feed="nightly")
    assert differences(place, MESSAGES) == {}


def test_a_chat_with_many_new_messages_is_read_back_to_the_last_hour(place: OrgHouse):
    write(place, 1, count=150)
    place.load("user_channels", MESSAGES, feed="nightly")
    write(place, 1, count=250)
    with place.counted() as stats:
        place.load(MESSAGES)
    assert stats["requests"] == 3
    assert differences(place, MESSAGES) == {}
    with place.counted() as stats:
        place.load(MESSAGES)
    assert stats["requests"] == 1
