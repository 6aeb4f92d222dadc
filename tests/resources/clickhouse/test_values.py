"""Every kind of value, as SQL in the engine, against the rules in plain Python."""

import json
import math
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from resources.bitrix24.envelope import mark_false
from resources.clickhouse import Column, Table, WarehouseResource
from resources.clickhouse.values import KINDS, whole_characters
from tests.resources.clickhouse import oracle
from tests.resources.clickhouse.oracle import Json

ZONE = ZoneInfo("Europe/Berlin")
READ_AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
SINGLE = tuple(Column(name, "v", kind) for name, kind in KINDS.items())
MULTIPLE = tuple(Column(f"{name}_m", "v", kind, multiple=True) for name, kind in KINDS.items())
TABLE = Table(
    "values_test",
    "every_kind",
    (Column("id", "id", required=True), *SINGLE, *MULTIPLE),
    ("id",),
    zone=ZONE.key,
)

EDGES: list[Any] = [
    None, "", False, True, [], {}, 0, 1, -1, "0", "1", "Y", "N", "y", "n", "true", "false", "null", "-",
    "+", ".", "-.", "1e", "e5", "1.0000", "20000.00", "1.", ".5", "-0", "007", "+5", "--5", "1..2", "1.2.3",
    "1,5", "1 000", " 5", "5 ", "0x10", "NaN", "inf", "Infinity", "1e3", "1E+3", "1e-3", "1e400", "-1e400",
    "1e39", "1.0e+15", "1e20", "1e28", "1e-40", 1e20, 1.5e-7, 19999.99, 9223372036854775807,
    9223372036854775808, "-9223372036854775808", "-9223372036854775809", "9" * 40, "0." + "0" * 50 + "1",
    "1.005", "1.00499999999999999", "-1.005", "0.995", "0.994999", "19999.999", "9999999999999999.99",
    "9999999999999999.995", "99999999999999999", "1500|RUB", "1500.505|RUB", "-3|USD", "|RUB", "|", "1500|",
    "a|b|RUB", "1|2|EUR", "x|RUB", "1500|RUB\n", "0000-00-00", "0000-00-00 00:00:00", "00.00.0000",
    "00/00/0000 12:00:00 am", "-0001-11-30T00:00:00+02:30", "2024-02-29", "2023-02-29",
    "2024-02-30T10:00:00+03:00", "2024-04-31", "2024-13-01", "2024-00-10", "31.02.2024", "02/30/2024",
    "1899-12-31", "2300-01-01", "1900-01-02", "2299-12-30T23:59:59+00:00", "9999-12-31",
    "0001-01-01T00:00:00Z", "2024-08-30T14:29:00+02:00", "2024-08-30T02:00:00+02:00",
    "2024-02-26T00:00:00+02:00", "2024-03-31T02:30:00+03:00", "2024-10-27T02:30:00+02:00",
    "2024-10-27T02:30:00+01:00", "2024-08-30T14:29:00Z", "2024-08-30T14:29:00.123456-09:30",
    "2024-08-30T14:29:00+0545", "2024-08-30T14:29:00+03", "2024-08-30T14:29", "2024-08-30 14:29:00",
    "2024-08-30x", "2024-8-3", "2024-08-30T24:00:00", "2024-08-30T14:60:00", "2024-08-30T14:29:60Z",
    "20240830", "2024-08-30T14:29:00+02:00 ", "17.05.2023 16:09:23", "17.05.2023", "17.05.1950 01:02:03",
    "17.05.2023 16:09", "17.05.23", "17.05.2023 25:00:00", "05/17/2023 04:09:23 pm",
    "12/31/2024 11:59:59 PM", "12/31/2024 12:00:00 am", "12/31/2024 12:00:00 pm", "12/31/2024",
    "05/17/2023 16:09:23", "05/17/2023 16:09:23 pm", "17/05/2023 04:09:23 pm", "05/17/2023 00:09:23 am",
    "1700000000", 1700000000, "1700000000.1239", -1700000000, "99999999999", "-99999999999", "1.7e9",
    {"0": "a", "2": "b", "10": "c"}, {"0": 5, "3": None, "2": False, "1": True}, {"1": "\ud800"},
    {"a": 1, "b": [False, None]},
    ["a", "", None, False, True, 1, -2, "\ud800", "\\ud800", "\ud83d\ude00",
     "a\"b\\c\nd\te\u0000", "null", "false"],
    ["2024-08-30T14:29:00+02:00", "31.02.2024", ""], ["1500|RUB", "|", "2|EUR"], ["1", "x"], [[]], [{}],
    [[1, 2], {"a": "b/c"}], [{"VALUE": "+7 999", "VALUE_TYPE": "WORK"}, {"VALUE": ""}],
    {"VALUE": "a@b", "ID": "5"}, {"id": 7, "url": "https://x"}, {"ID": "8"}, {"fileId": 9},
    {"id": "", "fileId": "3"}, {"url": "x"}, {"b": 1, "a": {"d": 1, "c": 2}, "": "", "a/b\\": "\ud83d"},
    [{"id": 1}, {"id": "2"}], "[1,2", "{", "[", "{\"0\": x", "text [x]", "{not json}", "x" * 100_000,
    "Привет 😀", "\ud800x\udc00", "\udc00\ud800", "a\\ud800", "\u0000\u0007\u001f", "'; DROP TABLE x; --",
    "`\"'\\\n\r\t", "\u2028\ufffe\ufeff", "\x1dfals",
]  # fmt: skip

digits = st.text("0123456789", min_size=1, max_size=20)
exponents = st.sampled_from(["", "e5", "E-3", "e+12"])
numbers = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.decimals(-(10**17), 10**17, allow_nan=False, places=3).map(str),
    st.decimals(-(10**6), 10**6, allow_nan=False, places=14).map(str),
    st.builds("{}{}.{}{}".format, st.sampled_from(["", "-", "+"]), digits, digits, exponents),
    st.floats(-1e15, 1e15, allow_nan=False).map(lambda x: round(x, 2)),
)
plain_text = st.text(st.characters(codec=None, exclude_characters="\x1d"), max_size=40)
tricky_text = st.text(st.sampled_from(list("\\\"'`{}[]:,/|ud8 0\n\x00\ud83d\ude00é")), max_size=30)
safe_text = st.one_of(plain_text, tricky_text).filter(lambda s: s[:1] not in ("{", "["))


@st.composite
def moments(draw: st.DrawFn) -> str:
    """A date and time in one of the spellings, not in an hour that a zone has twice or never."""
    at = draw(st.datetimes(datetime(1930, 1, 1), datetime(2290, 1, 1)))
    zoned = at.replace(tzinfo=ZONE)
    if zoned.astimezone(UTC) != zoned.replace(fold=1).astimezone(UTC):
        at = at.replace(hour=12)
    offset = draw(st.integers(-48, 56)) * 15
    sign, (h, m) = "-" if offset < 0 else "+", divmod(abs(offset), 60)
    iso = at.isoformat(draw(st.sampled_from(["T", " "])), "milliseconds")
    return draw(
        st.sampled_from(
            [
                f"{iso[:19]}{sign}{h:02}:{m:02}",
                f"{iso}{sign}{h:02}:{m:02}",
                f"{iso[:19]}{sign}{h:02}{m:02}",
                f"{iso[:19]}Z",
                iso,
                iso[:16],
                iso[:10],
                f"{at:%d.%m.}{at.year} {at:%H:%M:%S}",
                f"{at:%d.%m.}{at.year}",
                f"{at:%m/%d/}{at.year} {at:%I:%M:%S %p}".lower(),
                f"{at:%m/%d/}{at.year}",
            ]
        )
    )


scalars = st.one_of(st.none(), st.booleans(), numbers, moments(), safe_text, st.sampled_from(EDGES))
flat = st.one_of(st.none(), st.booleans(), st.integers(-(2**62), 2**62), moments(), safe_text)
flat_values = st.one_of(st.none(), st.just(False), st.integers(-(2**62), 2**62), moments(), safe_text)
objects = st.dictionaries(st.sampled_from(["id", "ID", "VALUE", "url", 'я/\\"']), flat_values, max_size=4)
gappy = st.dictionaries(st.integers(0, 30).map(str), flat, max_size=5)
values = st.one_of(scalars, scalars, st.lists(st.one_of(flat, objects), max_size=4), gappy, objects)


@pytest.fixture(scope="module")
def loaded(embedded_path: Path) -> WarehouseResource:
    warehouse = WarehouseResource(url=f"chdb://{embedded_path}", insert_rows=100_000)
    warehouse.ensure(TABLE)
    return warehouse


def test_the_edges_of_every_kind(loaded: WarehouseResource) -> None:
    check(loaded, EDGES)


@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.large_base_example,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
    ],
)
@given(st.lists(values, min_size=50, max_size=400), st.booleans())
def test_every_kind_reads_by_the_rules(loaded: WarehouseResource, batch: list[Any], ascii_only: bool) -> None:
    check(loaded, batch, ascii_only)


def check(warehouse: WarehouseResource, batch: list[Any], ascii_only: bool = True) -> None:
    """Load the batch as a client gives it, and compare every cell and every rejected row with the rules."""
    wanted = [expectation(v) for v in batch]
    lines = [f'{{"id":"{n}","v":{encode(v, ascii_only)}}}' for n, v in enumerate(batch)]
    warehouse.command(f"TRUNCATE TABLE {TABLE.sql_name}")
    with warehouse.load(TABLE, asset="values") as load:
        load.add(mark_false("\n".join(lines).encode()), len(batch), READ_AT)
        result = load.finish(kind="full", source_time=READ_AT)
    chosen = ", ".join(as_ticks(c) for c in TABLE.columns[1:])
    rows = {int(r[0]): r[1:] for r in warehouse.query(f"SELECT id, {chosen} FROM {TABLE.sql_name}")}
    assert rows.keys() == set(range(len(batch)))
    rejects = {
        int(key): (reasons, raw)
        for key, reasons, raw in warehouse.query(
            "SELECT row_key, reasons, raw FROM svod.rejected_rows FINAL WHERE load_id = {l:String}",
            {"l": load.load_id},
        )
    }
    assert result.rejected == len(rejects)
    for n, (value, (cells, rejected)) in enumerate(zip(batch, wanted, strict=True)):
        for column, cell, want in zip(TABLE.columns[1:], rows[n], cells, strict=True):
            assert same(cell, want), f"{shown(value)} in {column.name}: {shown(cell)}, not {shown(want)}"
        reasons, raw = rejects.get(n, ([], None))
        assert {r.split(":")[0] for r in reasons} == rejected, shown(value)
        if raw is not None:
            assert json.loads(raw)["id"] == str(n)
            assert same(json.loads(raw)["v"], raw_text(value)), shown(value)


def encode(value: Any, ascii_only: bool) -> str:
    if not ascii_only:
        try:
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            text.encode()
            return text
        except UnicodeEncodeError:
            pass
    return json.dumps(value, separators=(",", ":"))


def expectation(value: Any) -> tuple[list[Any], set[str]]:
    cells, rejected = [], set[str]()
    for column in (*SINGLE, *MULTIPLE):
        read = oracle.array if column.multiple else oracle.column
        cell, misfit = read(column.kind.name, value, ZONE)
        cells.append(cell)
        if misfit:
            rejected.add(column.name)
    return cells, rejected


def as_ticks(column: Column) -> str:
    if "Date" not in column.type:
        return f"`{column.name}`"
    ticks = "toUnixTimestamp64Milli"
    return f"arrayMap(v -> {ticks}(v), `{column.name}`)" if column.multiple else f"{ticks}(`{column.name}`)"


def same(cell: Any, want: Any) -> bool:
    if isinstance(want, list):
        return len(cell) == len(want) and all(map(same, cell, want))
    if isinstance(want, Json):
        return isinstance(cell, str) and alike(cell, want.value)
    if isinstance(want, float) and cell is not None:
        return math.isclose(cell, want, rel_tol=1e-6, abs_tol=1e-44)
    if isinstance(want, str) and want[:1] in ("{", "["):
        found = oracle.composite(want)
        if found is None:
            return cell == want
        held = json.loads(str(cell).replace('"\\u001dfalse"', "false"))
        return oracle.visible_inside(held) == oracle.visible_inside(found)
    return cell == want and (cell is None) == (want is None)


def alike(text: str, value: Any) -> bool:
    found = json.loads(text)
    in_order = not isinstance(found, dict) or list(found) == sorted(found, key=lambda k: k.encode())
    return found == value and in_order


def raw_text(value: Any) -> str:
    text = oracle.text_of(value)
    if text is oracle.FALSE:
        return "false"
    if text is oracle.ABSENT:
        return ""
    return text


def shown(value: Any) -> str:
    return ascii(value)[:300]


def test_text_with_halves_of_characters_stays_json_and_loses_nothing() -> None:
    parts = ["\\ud83d\\ude00", "\\ud83d", "\\ude00", "\\\\", '\\"', "ud800", "\\n", "я", "x"]
    pick = random.Random(7)
    for _ in range(3000):
        text = '"' + "".join(pick.choices(parts, k=pick.randint(0, 7))) + '"'
        clean = whole_characters(text.encode()).decode()
        assert json.loads(clean) == oracle.visible(json.loads(text)), text


def test_float32_is_the_nearest_one(loaded: WarehouseResource) -> None:
    numbers = [str(random.Random(n).uniform(-1e6, 1e6)) for n in range(200)]
    listed = ", ".join(f"'{n}'" for n in numbers)
    differs = f"{KINDS['float32'].sql('v', 'UTC')} != toFloat32(toFloat64(v))"
    found = loaded.query(f"SELECT countIf({differs}) FROM (SELECT arrayJoin([{listed}]) AS v)")
    assert found == [(0,)]


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("2024-10-27 02:30:00", {"2024-10-27 00:30:00", "2024-10-27 01:30:00"}),
        ("2024-03-31 02:30:00", {"2024-03-31 00:30:00", "2024-03-31 01:30:00"}),
    ],
    ids=["twice", "never"],
)
def test_an_hour_that_a_zone_has_twice_or_never(
    loaded: WarehouseResource, text: str, allowed: set[str]
) -> None:
    found = loaded.query(
        f"SELECT toString({KINDS['instant'].sql('v', ZONE.key)}) FROM (SELECT '{text}' AS v)"
    )
    assert found[0][0].removesuffix(".000") in allowed
