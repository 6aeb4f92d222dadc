"""The history is what happened: whatever the snapshots, and however often they are compared."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from etl_assets.mts_vats.history import COMPARED, changes

START = datetime(2026, 11, 1, tzinfo=UTC)
IDS = [("main", n) for n in range(3)]


def values(state: str, enabled: int | None, secret: str | None) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COMPARED)
    return {**row, "state": state, "marks": (1,), "has_device": 1, "is_enabled": enabled} | {
        "password_fingerprint": secret
    }


SEEN = st.builds(
    values, st.sampled_from(["active", "unknown"]), st.sampled_from([0, 1]), st.sampled_from("ab")
)
SNAPSHOTS = st.lists(st.dictionaries(st.sampled_from(IDS), st.none() | SEEN), max_size=8)


class Table:
    """The rows as the warehouse keeps them: the last one written of a key counts."""

    def __init__(self) -> None:
        self.rows: dict[Any, dict[str, Any]] = {}

    def opened(self) -> dict[Any, dict[str, Any]]:
        return {(r["cabinet"], r["abonent_id"]): r for r in self.rows.values() if r["valid_to"] is None}

    def compare(self, snapshot: dict[Any, Any], at: datetime) -> int:
        current = {key: row and {**row, "seen_at": at} for key, row in snapshot.items()}
        written = changes(current, self.opened(), {"main": at})
        for row in written:
            self.rows[row["cabinet"], row["abonent_id"], row["valid_from"]] = row
        return len(written)

    def of(self, key: Any) -> list[dict[str, Any]]:
        found = [r for r in self.rows.values() if (r["cabinet"], r["abonent_id"]) == key]
        return sorted(found, key=lambda r: r["valid_from"])


@settings(max_examples=200)
@given(SNAPSHOTS)
def test_the_history_tells_each_snapshot_and_has_no_row_without_a_change(snapshots: list[dict[Any, Any]]):
    table, known = Table(), dict[Any, str]()
    for n, snapshot in enumerate(snapshots):
        at = START + timedelta(hours=n)
        table.compare(snapshot, at)
        assert table.compare(snapshot, at) == 0
        assert table.compare(snapshot, at + timedelta(minutes=1)) == 0
        assert table.compare({}, at - timedelta(days=9)) == 0  # an older snapshot
        for key in IDS:
            now = snapshot.get(key)
            if key not in snapshot:
                known |= {key: "gone"} if key in known else {}
            elif now is not None:
                known[key] = now["state"] + str(now["is_enabled"]) + now["password_fingerprint"]
            last = table.of(key)[-1:]
            said = [
                "gone"
                if r["state"] == "gone"
                else r["state"] + str(r["is_enabled"]) + r["password_fingerprint"]
                for r in last
            ]
            assert said == [known[key]] if key in known else not last
    for key in IDS:
        rows = table.of(key)
        assert [r["valid_to"] for r in rows] == [*(r["valid_from"] for r in rows[1:]), None][: len(rows)]
        assert all(any(a[c] != b[c] for c in COMPARED) for a, b in pairwise(rows))
        assert all(r["changed"] for r in rows[1:])


def test_a_password_that_is_read_or_no_longer_read_is_no_change():
    table, key = Table(), IDS[0]
    for n, secret in enumerate([None, "a", None, "a", "b"]):
        table.compare({key: values("active", 1, secret)}, START + timedelta(hours=n))
    assert [(r["password_fingerprint"], r["changed"]) for r in table.of(key)] == [
        ("a", []),
        ("b", ["password_fingerprint"]),
    ]
