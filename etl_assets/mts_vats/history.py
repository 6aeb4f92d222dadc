"""Since when a trunk is as it is: a row for every change, computed from two snapshots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from etl_assets.mts_vats.tables import STATE

Row = dict[str, Any]
Key = tuple[str, int]
COMPARED = tuple(column.name for column in STATE)
SECRET = "password_fingerprint"
GONE = "gone"


def is_on(state: str, has_device: int | None, enabled: int | None) -> int | None:
    """1 if a call goes through; None where the cabinet does not say."""
    if state in (GONE, "disabled_marked"):
        return 0
    if has_device is None or enabled is None:
        return None
    return int(bool(has_device and enabled))


def changes(
    current: Mapping[Key, Row | None], opened: Mapping[Key, Row], listed_at: Mapping[str, datetime]
) -> list[Row]:
    """Rows to write so that the history ends with `current`; none if it does already.

    `current` has, for every trunk that is listed, the compared columns and `seen_at`, or None where its form
    could not be read: what is not known is no change. `opened` are the rows without an end, of the cabinets
    in `listed_at`, which says when each list was read: a trunk that is not on it is gone since then. A row
    that was read before the one it would follow is left out: an older snapshot changes nothing.
    """
    written: list[Row] = []
    for key in sorted(current.keys() | opened.keys()):
        before = opened.get(key)
        now = current[key] if key in current else {"state": GONE, "seen_at": listed_at[key[0]]}
        if now is None:
            continue
        written += _opening(key, now) if before is None else _following(key, now, before)
    return written


def _following(key: Key, now: Row, before: Row) -> list[Row]:
    at: datetime = now["seen_at"]
    if at <= before["valid_from"]:
        return []
    if now["state"] == GONE:
        now = {**before, **now}
    elif now[SECRET] is None:  # passwords are not read now: what was known still holds
        now = {**now, SECRET: before[SECRET]}
    differing = [name for name in COMPARED if now[name] != before[name]]
    if differing == [SECRET] and before[SECRET] is None:  # read for the first time, not changed
        return [_row(key, now, before["valid_from"], before["changed"])]
    if not differing:
        return []
    closed = {**_row(key, before, before["valid_from"], before["changed"]), "valid_to": at}
    return [closed, *_opening(key, now, differing)]


def _opening(key: Key, now: Row, differing: Sequence[str] = ()) -> list[Row]:
    return [_row(key, now, now["seen_at"], differing)]


def _row(key: Key, values: Row, since: datetime, differing: Sequence[str]) -> Row:
    shown = {name: values[name] for name in COMPARED}
    on = is_on(values["state"], values["has_device"], values["is_enabled"])
    head = {"cabinet": key[0], "abonent_id": key[1], "valid_from": since, "valid_to": None}
    return {**head, **shown, "is_on": on, "changed": list(differing)}


def went_off(written: Sequence[Row], opened: Mapping[Key, Row]) -> list[Row]:
    """Of the rows written, those in which a trunk that was on is no longer."""
    return [
        row
        for row in written
        if row["valid_to"] is None
        and row["is_on"] != 1
        and (before := opened.get((row["cabinet"], row["abonent_id"]))) is not None
        and before["is_on"] == 1
    ]
