"""Uploads of offline conversions: validated row by row, then advanced by every look."""

from __future__ import annotations

import csv
import io
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sandbox.metrika.errors import ApiError
from sandbox.metrika.visitors import KNOWN, MODULUS

STATES = ("PREPARED", "UPLOADED", "EXPORTED", "MATCHED", "PROCESSED")
IDENTIFIERS = {"ClientId": "CLIENT_ID", "UserId": "USER_ID", "Yclid": "YCLID", "PurchaseId": "PURCHASE_ID"}
COLUMNS = {*IDENTIFIERS, "Target", "DateTime", "Price", "Currency"}
MOST_COMMENT = 255


@dataclass
class Uploading:
    """One file: what it held, and how far it has come."""

    id: int
    counter: int
    comment: str
    client_id_type: str
    rows: list[dict[str, str]]
    valid: list[dict[str, str]]
    status: str = "PREPARED"
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "create_time": f"{self.created:%Y-%m-%dT%H:%M:%SZ}",
            "source_quantity": len(self.rows),
            "line_quantity": len(self.valid),
            "comment": self.comment,
            "client_id_type": self.client_id_type,
            "status": self.status,
        }

    def look(self) -> None:
        """One step further; the last is a failure when no visitor is known."""
        at = STATES.index(self.status) if self.status in STATES else len(STATES)
        if at + 1 < len(STATES):
            self.status = STATES[at + 1]
        if self.status == "MATCHED" and not any(map(_known, self.valid)):
            self.status = "LINKAGE_FAILURE"


class Conversions:
    """The uploads of all counters."""

    def __init__(self) -> None:
        self.uploadings: list[Uploading] = []

    def upload(self, counter: int, body: bytes, comment: str) -> dict[str, Any]:
        """Take a file. Raises ApiError invalid_uploading for one without the obligatory columns."""
        if len(comment) > MOST_COMMENT:
            raise ApiError(400, "invalid_parameter", "The comment is too long", "comment")
        rows, header = _read(body)
        kinds = [kind for name, kind in IDENTIFIERS.items() if name in header]
        if not kinds or not {"Target", "DateTime"} <= set(header) or not set(header) <= COLUMNS:
            raise ApiError(
                400, "invalid_uploading", "Wrong columns: an identifier, Target and DateTime are needed"
            )
        valid = [row for row in rows if _fits(row)]
        made = Uploading(len(self.uploadings) + 1, counter, comment, kinds[0], rows, valid)
        self.uploadings.append(made)
        return {"uploading": made.shown()}

    def one(self, counter: int, number: int) -> dict[str, Any]:
        for each in self.uploadings:
            if (each.id, each.counter) == (number, counter):
                each.look()
                return {"uploading": each.shown()}
        raise ApiError(404, "not_found", "Entity not found")

    def listed(self, counter: int, limit: int, offset: int) -> dict[str, Any]:
        mine = [u.shown() for u in self.uploadings if u.counter == counter]
        return {"uploadings": mine[offset : offset + limit]}


def _read(body: bytes) -> tuple[list[dict[str, str]], list[str]]:
    try:
        reader = csv.DictReader(io.StringIO(body.decode("utf-8-sig")))
        rows = [{k: v or "" for k, v in row.items() if k} for row in reader]
    except (UnicodeDecodeError, csv.Error):
        raise ApiError(400, "invalid_uploading", "The file is no UTF-8 CSV") from None
    return rows, list(reader.fieldnames or [])


def _fits(row: dict[str, str]) -> bool:
    try:
        past = 0 < int(row.get("DateTime", "")) <= time.time()
        float(row.get("Price") or 0)
    except ValueError:
        return False
    named = any(row.get(name) for name in IDENTIFIERS)
    return past and named and bool(row.get("Target")) and len(row.get("Currency") or "RUB") == 3


def _known(row: dict[str, str]) -> bool:
    ids = (row.get(name) or "" for name in IDENTIFIERS)
    return any(i.isdigit() and int(i) % MODULUS == KNOWN for i in ids)
