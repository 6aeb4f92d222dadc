"""What went wrong in the warehouse, in one sentence that says what to do."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import dagster as dg

from resources.http import redact

INSERT_ATTEMPTS = 4
PAUSE_S = 0.5  # before the second attempt; doubled before each further one
_CODE = re.compile(r"(?:Code: |error code )(\d+)")

# ClickHouse error codes (system.errors) that a retry will not heal, and what the user must do.
_PERMANENT = {
    516: "ClickHouse refused the user name or the password: correct CLICKHOUSE_URL",
    194: "ClickHouse wants a password: put it into CLICKHOUSE_URL",
    192: "ClickHouse does not know the user in CLICKHOUSE_URL",
    193: "ClickHouse refused the password in CLICKHOUSE_URL",
    81: "the database named in CLICKHOUSE_URL does not exist",
    164: "ClickHouse is read-only for this user: grant INSERT, CREATE and ALTER, or use another user in CLICKHOUSE_URL",
    497: "the ClickHouse user lacks a right",
    243: "ClickHouse has no disk space left: free some and run again",
}
# How urllib3 tells why nobody answered, and what that is to the user.
_SILENT = {
    "Failed to resolve": "the host name is unknown",
    "Connection refused": "the host refuses connections",
    "timed out": "no answer came in time",
}
_DISK_FULL = ("No space left on device", "NOT_ENOUGH_SPACE", "Disk quota exceeded", "File too large")
_READ_ONLY = ("Read-only file system", "Permission denied", "READONLY")


class WarehouseError(dg.Failure):
    """The warehouse cannot do what was asked. `retry` tells whether another attempt may succeed."""

    def __init__(
        self, description: str, *, retry: bool = False, metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(description=redact(description), metadata=metadata, allow_retries=retry)


def explain(error: BaseException, doing: str) -> WarehouseError:
    """Turn a driver's or the system's error into one line; nothing of the connection URL gets into it."""
    if isinstance(error, WarehouseError):
        return error
    text = str(error)
    found = _CODE.search(text)
    code = int(found.group(1)) if found else 0
    if any(mark in text for mark in _DISK_FULL):
        code = 243
    if code in _PERMANENT:
        return WarehouseError(f"While {doing}: {_PERMANENT[code]} (ClickHouse error {code}).")
    if any(mark in text for mark in _READ_ONLY):
        return WarehouseError(
            f"While {doing}: the warehouse cannot be written to (read-only, or no permission)."
        )
    if isinstance(error, PermissionError | FileExistsError | NotADirectoryError | FileNotFoundError):
        return WarehouseError(
            f"While {doing}: {error.strerror}: {error.filename}. Correct the path in CLICKHOUSE_URL."
        )
    if "certificate" in text.lower():
        return WarehouseError(
            f"While {doing}: the TLS certificate of ClickHouse is not trusted; for a private CA set CLICKHOUSE_CA_BUNDLE."
        )
    if code:
        return WarehouseError(
            f"While {doing}: ClickHouse error {code}: {_first_line(text)}",
            retry=code in (159, 209, 210, 241, 252),
        )
    why = next(
        (f"{why}: check CLICKHOUSE_URL" for mark, why in _SILENT.items() if mark in text),
        f"{type(error).__name__}: {_first_line(text)}",
    )
    return WarehouseError(f"While {doing}: ClickHouse did not answer ({why})", retry=True)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:300] if text.strip() else ""


def repeat(doing: str, call: Callable[[], Any]) -> None:
    """Make a call that changes nothing when it is made again; again while the fault may pass."""
    for attempt in range(1, INSERT_ATTEMPTS + 1):
        try:
            call()
            return
        except Exception as error:
            failure = explain(error, doing)
            if not failure.allow_retries or attempt == INSERT_ATTEMPTS:
                raise failure from None
        time.sleep(PAUSE_S * 2 ** (attempt - 1))
