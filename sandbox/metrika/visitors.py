"""Invented visits and hits: a pure function of (seed, counter, day), realistic enough to train a model on.

A visitor's engagement decides how many pages are seen, how long each is read and whether the goal is reached.
Some visits run past midnight, some titles hold quotes, tabs and line feeds, some ids exceed 2^63.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

from sandbox.metrika.config import LEAD_GOAL

UTC3 = timezone(timedelta(hours=3))
KNOWN = 13  # ids of the invented visitors leave this remainder, so that an upload can tell them from others
MODULUS = 97
SITE = "https://shop.example"
_ADDRESS = "203.0.113." + "x" * 3  # the last part is masked: observed in public fixtures of ym:s:ipAddress
_PAGES = (
    "/",
    "/catalog",
    "/catalog/item-17",
    "/catalog/item-204?color=red",
    "/delivery",
    "/о-компании",
    "/contacts",
)
_TITLES = ("Главная", "Каталог", 'Кружка "Утро"', "Tab\there", "Line\nfeed", "d'Artagnan \\ Co", "Контакты")
_SOURCES = (
    ("direct", "", ""),
    ("organic", "yandex", ""),
    ("organic", "google", ""),
    ("ad", "", "ya_direct"),
    ("referral", "", ""),
    ("social", "", ""),
    ("internal", "", ""),
)
_CITIES = (("Москва", 213), ("Санкт-Петербург", 2), ("Казань", 43), ("Владивосток", 75))
_DEVICES = (("1", 0.45), ("2", 0.47), ("3", 0.05), ("4", 0.01), ("", 0.02))


@dataclass
class Day:
    """The visits that began on a day, and all of their hits, also those after midnight."""

    visits: list[dict[str, Any]] = field(default_factory=list)
    hits: list[dict[str, Any]] = field(default_factory=list)


def invent(seed: int, counter: int, day: date, visits: int, zone: str) -> Day:
    """A day of a counter; weekends are quieter."""
    rng = random.Random(f"{seed}/{counter}/{day}")
    number = round(visits * (0.7 if day.weekday() > 4 else 1) * rng.uniform(0.9, 1.1))
    made = Day()
    seconds = sorted(_second_of_day(rng) for _ in range(number))
    for second in seconds:
        _visit(made, rng, counter, _local(day, second, ZoneInfo(zone)))
    return made


def _second_of_day(rng: random.Random) -> int:
    """Few at night, most in the evening; always some shortly before midnight."""
    if rng.random() < 0.02:
        return rng.randrange(86400 - 600, 86400)
    return int(min(86399, abs(rng.gauss(15 * 3600, 4.5 * 3600))))


def _local(day: date, second: int, zone: ZoneInfo) -> datetime:
    """An instant of that day: hours that the clock jumps over are moved on."""
    naive = datetime(day.year, day.month, day.day, tzinfo=zone) + timedelta(seconds=second)
    return naive.astimezone(UTC3).astimezone(zone)


def _visit(made: Day, rng: random.Random, counter: int, began: datetime) -> None:
    engagement = rng.betavariate(1.2, 2.6)
    offsets = _offsets(rng, engagement)
    device = rng.choices([d for d, _ in _DEVICES], [w for _, w in _DEVICES])[0]
    ids = _ids(rng, began, len(offsets))
    views = [i == 0 or rng.random() < 0.6 for i in range(len(offsets))]
    duration = 0 if len(offsets) == 1 else offsets[-1] + rng.randrange(0, 20)
    reached = _reaches_goal(rng, len({o // 15 for o in offsets}), duration)
    common = _visitor(rng, counter, device)
    hits = list(_hits(rng, common, began, offsets, ids, views))
    if reached:
        hits[-1]["goalsID"] = [LEAD_GOAL]
    visit_id = ids[0] if rng.random() < 0.95 else ids[0] + 1
    for hit in hits:
        hit["visitID"] = visit_id
    made.hits += hits
    source, engine, advertiser = rng.choice(_SOURCES)
    made.visits.append(
        common
        | _goals(rng, began, duration, reached)
        | {
            "visitID": visit_id,
            "watchIDs": ids[:500],
            "date": began.date(),
            "dateTime": f"{began:%Y-%m-%d %H:%M:%S}",
            "dateTimeUTC": f"{began.astimezone(UTC3):%Y-%m-%d %H:%M:%S}",
            "isNewUser": rng.randrange(2),
            "bounce": int(duration < 15),
            "pageViews": sum(views),
            "visitDuration": duration,
            "startURL": hits[0]["URL"],
            "endURL": hits[-1]["URL"],
            "referer": 'https://ya.ru/search?text="кружка"' if engine == "yandex" else "",
            "TrafficSource": source,
            "SearchEngineRoot": engine,
            "SearchEngine": f"{engine}_search" if engine else "",
            "AdvEngine": advertiser or "ya_undefined",
            "DirectClickOrder": str(7_000_000_000 + rng.randrange(100)) if advertiser else "",
            "DirectBannerGroup": str(5_000_000_000 + rng.randrange(100)) if advertiser else "",
            "DirectClickBanner": str(16_000_000_000 + rng.randrange(100)) if advertiser else "",
            "DirectClickOrderName": "Кружки, осень" if advertiser else "",
            "UTMSource": "yandex" if advertiser else "",
            "UTMMedium": "cpc" if advertiser else "",
            "UTMCampaign": "осень-2026" if advertiser else "",
            "parsedParamsKey1": ["it's", "a\\b"] if rng.random() < 0.05 else [],
        }
    )


def _offsets(rng: random.Random, engagement: float) -> list[int]:
    """Seconds of a visit's hits after its first."""
    count = 1 + min(60, int(rng.expovariate(1 / (0.6 + 26 * engagement**1.6))))
    at, found = 0.0, [0]
    for _ in range(count - 1):
        at += rng.expovariate(1 / (6 + 45 * engagement)) if rng.random() > 0.03 else rng.uniform(120, 900)
        found.append(int(at))
    return found


def _reaches_goal(rng: random.Random, slots: int, duration: int) -> bool:
    strength = 0.55 * slots + duration / 150 - 6.5
    return rng.random() < 1 / (1 + math.exp(-strength))


def _ids(rng: random.Random, began: datetime, count: int) -> list[int]:
    """Ids that grow with time; those of few visits exceed 2^63."""
    base = 9_300_000_000_000_000_000 if rng.random() < 0.03 else 6_500_000_000_000_000_000
    first = base + int(began.timestamp()) * 100_000_000 + rng.randrange(90_000_000)
    return [first + i * 3 for i in range(count)]


def _visitor(rng: random.Random, counter: int, device: str) -> dict[str, Any]:
    city, city_id = rng.choice(_CITIES)
    client = rng.choice(
        (rng.randrange(10**11, 10**12), rng.randrange(10**18, 10**19), rng.randrange(10**19, 18 * 10**18))
    )
    phone = device in ("2", "3")
    return {
        "counterID": counter,
        "clientID": client - client % MODULUS + KNOWN,
        "counterUserIDHash": rng.randrange(2**64),
        "deviceCategory": device,
        "regionCountry": "RU",
        "regionCountryID": 225,
        "regionCity": city,
        "regionCityID": city_id,
        "ipAddress": _ADDRESS,
        "browser": rng.choice(
            ("chromemobile", "yandex_browser") if phone else ("chrome", "yandex_browser", "firefox")
        ),
        "browserMajorVersion": rng.randrange(120, 150),
        "browserLanguage": "ru",
        "operatingSystemRoot": "android" if phone else "windows",
        "operatingSystem": "android_15" if phone else "windows11",
        "mobilePhone": "xiaomi" if phone else "",
        "mobilePhoneModel": "redmi note 13" if phone else "",
        "clientTimeZone": 180,
        "screenWidth": 412 if phone else 1920,
        "screenHeight": 915 if phone else 1080,
    }


def _goals(rng: random.Random, began: datetime, duration: int, reached: bool) -> dict[str, Any]:
    if not reached:
        return {"goalsID": [], "goalsDateTime": []}
    moment = f"{(began + timedelta(seconds=duration)).astimezone(UTC3):%Y-%m-%d %H:%M:%S}"
    bought = rng.random() < 0.3
    return {
        "goalsID": [LEAD_GOAL],
        "goalsSerialNumber": [1],
        "goalsDateTime": [moment],
        "goalsPrice": [rng.randrange(1000, 90_000) * 100],  # times 1000, as the API does
        "goalsOrder": [f"ORD-{rng.randrange(10_000)}"],
        "goalsCurrency": ["RUB"],
        "purchaseID": [f"P'{rng.randrange(10_000)}"] if bought else [],
        "purchaseDateTime": [f"{began + timedelta(seconds=duration):%Y-%m-%d %H:%M:%S}"] if bought else [],
        "purchaseRevenue": [rng.randrange(1000, 90_000) / 10] if bought else [],
        "purchaseCurrency": ["RUB"] if bought else [],
        "purchaseProductQuantity": [rng.randrange(1, 5)] if bought else [],
    }


def _hits(
    rng: random.Random,
    common: dict[str, Any],
    began: datetime,
    offsets: list[int],
    ids: list[int],
    views: list[bool],
) -> Iterator[dict[str, Any]]:
    for offset, watch_id, is_view in zip(offsets, ids, views, strict=True):
        at = (began.astimezone(UTC3) + timedelta(seconds=offset)).astimezone(began.tzinfo)
        page = rng.randrange(len(_PAGES))
        yield common | {
            "watchID": watch_id,
            "pageViewID": rng.randrange(2**31),
            "date": at.date(),
            "dateTime": f"{at:%Y-%m-%d %H:%M:%S}",
            "URL": SITE + _PAGES[page],
            "title": _TITLES[page] if is_view else "",
            "isPageView": int(is_view),
            "notBounce": int(not is_view),
            "lastTrafficSource": "direct",
            "goalsID": [],
        }


def as_of(made: Day, age: int, seed: int) -> Day:
    """A day as it is shown `age` days later: sessions are complete after three.

    Until then some visits are not there yet, some are that will vanish, and some are still short.
    """
    if age >= 3:
        return Day([v for v in made.visits if _fate(seed, v) != "vanishes"], made.hits)
    visits = []
    for visit in made.visits:
        fate = _fate(seed, visit)
        if fate == "late" and age < 2:
            continue
        if fate == "grows":
            visit = visit | {"visitDuration": visit["visitDuration"] // 2, "pageViews": 1}
        visits.append(visit)
    return Day(visits, made.hits)


def _fate(seed: int, visit: dict[str, Any]) -> str:
    lot = random.Random(f"{seed}/{visit['visitID']}").random()
    return "late" if lot < 0.02 else "grows" if lot < 0.05 else "vanishes" if lot < 0.06 else ""
