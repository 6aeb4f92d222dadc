"""What the API speaks of: log requests, uploadings, goals, counters. Unknown keys are ignored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from resources.errors import TransientSourceError

WAITING = frozenset({"created", "awaiting_retry", "processing"})
GONE = frozenset({"cleaned_by_user", "cleaned_automatically_as_too_old"})
ATTRIBUTION = "LASTSIGN"  # the API's default, and what the fields of `lastsign` are written for


@dataclass(frozen=True, slots=True)
class Ask:
    """What a log request is for: days inclusive, in the counter's zone; `source` is visits or hits."""

    counter: int
    source: str
    first: date
    last: date
    fields: tuple[str, ...]

    def query(self) -> dict[str, str]:
        return {
            "date1": str(self.first),
            "date2": str(self.last),
            "fields": ",".join(self.fields),
            "source": self.source,
        }


@dataclass(frozen=True, slots=True)
class LogRequest:
    """A log request as the API answers it.

    `parts` are (number, bytes), in order; there are none before it is processed.
    """

    request_id: int
    status: str
    source: str
    date1: str
    date2: str
    fields: tuple[str, ...]
    attribution: str
    size: int
    parts: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> LogRequest:
        """Raises TransientSourceError when id or status are not there: then it is not the API's answer."""
        source = answer.get("source") or ""
        fields = answer.get("fields") or []
        try:
            return cls(
                request_id=int(answer["request_id"]),
                status=str(answer["status"]),
                # the schema says a list, the API sends a text
                source=str(source[0] if isinstance(source, list) else source),
                date1=str(answer.get("date1", "")),
                date2=str(answer.get("date2", "")),
                fields=tuple(fields.split(",") if isinstance(fields, str) else map(str, fields)),
                attribution=str(answer.get("attribution") or ""),
                size=int(answer.get("size") or 0),
                parts=tuple(
                    sorted(
                        (int(p["part_number"]), int(p.get("size") or 0)) for p in answer.get("parts") or []
                    )
                ),
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            raise _strange("a log request") from None

    def answers(self, ask: Ask) -> bool:
        """Whether it holds exactly what is asked for."""
        return (
            (self.source, self.date1, self.date2) == (ask.source, str(ask.first), str(ask.last))
            and _spelled(self.fields) == _spelled(ask.fields)
            and self.attribution.upper() in ("", ATTRIBUTION)
        )


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Whether a period fits into the counter's room for prepared logs, and how many days would."""

    possible: bool
    days: int


@dataclass(frozen=True, slots=True)
class Uploading:
    """A file of offline conversions. Quantities are None where the API leaves them out."""

    id: int
    status: str
    source_quantity: int | None = None
    line_quantity: int | None = None
    comment: str = ""
    client_id_type: str = ""
    create_time: str = ""

    FINAL = frozenset({"PROCESSED", "LINKAGE_FAILURE"})

    @property
    def final(self) -> bool:
        return self.status in Uploading.FINAL

    @property
    def created_at(self) -> datetime | None:
        """When it was made; None where the API does not tell."""
        try:
            found = datetime.fromisoformat(self.create_time)
        except ValueError:
            return None
        return found if found.tzinfo else found.replace(tzinfo=UTC)

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Uploading:
        """Raises TransientSourceError when it has no id: then it is not the API's answer."""
        try:
            return cls(
                id=int(answer["id"]),
                status=str(answer.get("status") or "PREPARED"),
                source_quantity=_count(answer.get("source_quantity")),
                line_quantity=_count(answer.get("line_quantity")),
                comment=str(answer.get("comment") or ""),
                client_id_type=str(answer.get("client_id_type") or ""),
                create_time=str(answer.get("create_time") or ""),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise _strange("an uploading") from None


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal; `conditions` are (type, url)."""

    id: int
    name: str
    type: str
    conditions: tuple[tuple[str, str], ...]

    def takes(self, target: str) -> bool:
        """Whether offline conversions with this target reach it: a JavaScript event of that very name."""
        return self.type == "action" and ("exact", target) in self.conditions

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Goal:
        try:
            conditions = tuple(
                (str(c.get("type")), str(c.get("url"))) for c in answer.get("conditions") or []
            )
            return cls(
                int(answer["id"]), str(answer.get("name", "")), str(answer.get("type", "")), conditions
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise _strange("a goal") from None


@dataclass(frozen=True, slots=True)
class Counter:
    """A counter and its time zone."""

    id: int
    name: str
    zone: str

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Counter:
        """The zone by its name, else by the offset in minutes; UTC+3, the service's own, without either."""
        try:
            return cls(int(answer["id"]), str(answer.get("name") or ""), _zone(answer))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise _strange("a counter") from None


def _zone(answer: Mapping[str, Any]) -> str:
    try:
        return ZoneInfo(str(answer.get("time_zone_name") or "?")).key
    except (KeyError, ValueError, OSError):
        minutes = int(answer.get("time_zone_offset", 180))
    if minutes % 60:
        raise ValueError("no named zone has this offset")
    return f"Etc/GMT{-minutes // 60:+d}"  # POSIX signs: Etc/GMT-3 is UTC+3


def _spelled(fields: Iterable[str]) -> set[str]:
    """Columns are known by name, so their order does not matter."""
    return {field.replace("<attribution>", "lastsign").lower() for field in fields}


def _part(answer: Mapping[str, Any]) -> tuple[int, int]:
    return int(answer["part_number"]), int(answer.get("size") or 0)


def _count(value: object) -> int | None:
    return None if value is None else int(str(value))


def _strange(what: str) -> TransientSourceError:
    return TransientSourceError(
        f"Metrika: the answer is not {what} of the API. If it stays so, check METRIKA_URL and the proxy."
    )
