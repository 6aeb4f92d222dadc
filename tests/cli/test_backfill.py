"""Chunks of a backfill: they cover the range once, oldest first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.backfill import chunk_days, chunks


@pytest.mark.parametrize(("text", "days"), [("90d", 90), ("4w", 28), ("7", 7), (" 1d ", 1)])
def test_a_chunk_is_days_or_weeks(text: str, days: int):
    assert chunk_days(text) == days


@pytest.mark.parametrize("text", ["", "0d", "-3d", "3m", "d", "1.5d"])
def test_anything_else_is_refused(text: str):
    with pytest.raises(ValueError, match="no chunk"):
        chunk_days(text)


@given(st.lists(st.integers(), max_size=200), st.integers(1, 50))
def test_chunks_cover_the_range_once_in_order(keys: list[int], days: int):
    parts = list(chunks([str(k) for k in keys], days))
    assert [key for part in parts for key in part] == [str(k) for k in keys]
    assert all(0 < len(part) <= days for part in parts)
