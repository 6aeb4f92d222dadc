"""Filters, order and paging over a table or over a small list of dictionaries."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from sandbox.bitrix24.data import DAY
from sandbox.bitrix24.errors import bad_field
from sandbox.bitrix24.fields import FieldSpec
from sandbox.bitrix24.params import as_list
from sandbox.bitrix24.table import Table
from sandbox.bitrix24.wire import RELATIONS

PAGE = 50
_MAX_ID = 2**62
_COMPUTED = "LAST_ACTIVITY_TIME"  # of rows that nobody has touched, for all of them at once

_OPERATORS = ("!=%", "!%=", "!@", "!=", "!%", "=%", "%=", ">=", "<=", "!", "=", ">", "<", "@", "%")
_TEXT_OPERATORS = {"%", "!%", "=%", "%=", "!=%", "!%="}
_LIST_OPERATORS = {"=", "@", "!", "!=", "!@"}
_NO_LIKE = {"crm_status", "crm_contact", "crm_company"}
_NUMERIC = {
    "integer",
    "double",
    "user",
    "employee",
    "enumeration",
    "location",
    "crm_category",
    "file",
} | RELATIONS
_SERVER_LITERAL = re.compile(r"\d{4}-\d\d-\d\d( \d\d:\d\d:\d\d)?$")


def split_operator(key: str) -> tuple[str, str]:
    """`!=%TITLE` -> (`!=%`, `TITLE`); no prefix means `=`."""
    for operator in _OPERATORS:
        if key.startswith(operator):
            return operator, key[len(operator) :]
    return "=", key


def parse_moment(text: str, offset: int) -> float | None:
    """Unix seconds of a date literal; without an offset it is portal time. None when it is broken."""
    cleaned = text.strip()
    for pattern in ("%d.%m.%Y %H:%M:%S", "%d.%m.%Y"):
        try:
            return datetime.strptime(cleaned, pattern).replace(tzinfo=UTC).timestamp() - offset
        except ValueError:
            continue
    try:
        moment = datetime.fromisoformat(cleaned)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC).timestamp() - offset
    return moment.timestamp()


def _number(value: Any) -> float:
    """PHP-like cast: what is not a number is 0."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


def _like(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("%"))), re.IGNORECASE | re.DOTALL)


class Condition:
    """One comparison on one field, on canonical values."""

    def __init__(self, spec: FieldSpec, operator: str, raw: list[Any], offset: int) -> None:
        self.spec, self.operator = spec, operator
        self.values = [self._literal(value, offset) for value in raw]
        self.broken = spec.type in ("date", "datetime") and any(
            parsed is None and text not in (None, "", False)
            for parsed, text in zip(self.values, raw, strict=True)
        )
        self._pattern = _like(str(raw[0])) if operator in {"=%", "%=", "!=%", "!%="} and raw else None

    def _literal(self, value: Any, offset: int) -> Any:
        if value is None or value == "" or value is False:
            return None
        kind = self.spec.type
        if kind in ("date", "datetime"):
            moment = parse_moment(str(value), offset)
            if moment is None or kind == "datetime":
                return moment
            return (
                datetime.fromisoformat(str(value)).toordinal() - 719163
                if "-" in str(value)
                else moment // DAY
            )
        if kind == "boolean":
            return value in (True, 1, "1", "Y", "y")
        if kind in _NUMERIC or kind.startswith("crm_enum"):
            return _number(value)
        return str(value).casefold()

    def _comparable(self, value: Any) -> Any:
        kind = self.spec.type
        if value is None:
            return None
        if kind == "crm_multifield":
            return str(value["VALUE"]).casefold()
        if isinstance(value, bool | int | float):
            return value
        return str(value).casefold()

    def test(self, value: Any) -> bool:
        """Whether a canonical value satisfies the condition; multiple values match by any element."""
        if isinstance(value, list):
            if self.operator.startswith("!"):
                return all(self._test(item) for item in value) if value else self._test(None)
            return any(self._test(item) for item in value) if value else self._test(None)
        return self._test(value)

    def _test(self, raw: Any) -> bool:
        value, operator = self._comparable(raw), self.operator
        match operator:
            case "=" | "@":
                return any(self._same(value, wanted) for wanted in self.values)
            case "!" | "!=" | "!@":
                return not any(self._same(value, wanted) for wanted in self.values)
            case "%":
                return str(self.values[0] or "") in str("" if value is None else value)
            case "!%":
                return str(self.values[0] or "") not in str("" if value is None else value)
            case "=%" | "%=":
                return self._like_matches(value)
            case "!=%" | "!%=":
                return not self._like_matches(value)
        return self._ordered(value)

    def _like_matches(self, value: Any) -> bool:
        return bool(self._pattern and self._pattern.fullmatch("" if value is None else str(value)))

    @staticmethod
    def _same(value: Any, wanted: Any) -> bool:
        if wanted is None or wanted == 0:
            return value is None or value == "" or (wanted == 0 and value == 0)
        return value == wanted

    def _ordered(self, value: Any) -> bool:
        wanted: Any = self.values[0] if self.values else None
        if value is None:
            return False
        if wanted is None:
            wanted = 0 if isinstance(value, int | float) else ""
        if isinstance(wanted, str) != isinstance(value, str):
            value, wanted = str(value), str(wanted)
        match self.operator:
            case ">":
                return value > wanted
            case ">=":
                return value >= wanted
            case "<":
                return value < wanted
        return value <= wanted


@dataclass(frozen=True)
class Group:
    """Conditions joined by AND or OR."""

    children: tuple["Condition | Group", ...]
    any_of: bool = False

    def test(self, read: Callable[[str], Any]) -> bool:
        results = (
            child.test(read) if isinstance(child, Group) else child.test(read(child.spec.name))
            for child in self.children
        )
        return any(results) if self.any_of else all(results)


@dataclass(frozen=True)
class FilterRules:
    """What a family of methods does with filters."""

    names: dict[str, FieldSpec]
    strict: bool
    """Unknown fields are an error (crm.item.*, stage history); classic methods ignore them."""
    logic: bool
    """`{"0": {"logic": "OR", ...}}` is understood."""
    offset: int
    server_dates: bool = False
    """Dates of other forms than `YYYY-MM-DD HH:MM:SS` are ignored."""


def compile_filter(raw: dict[str, Any], rules: FilterRules, any_of: bool = False) -> Group:
    """Parse a filter object into a tree. Raises RestError INVALID_ARG_VALUE in strict families."""
    children: list[Condition | Group] = []
    for key, value in raw.items():
        if key.lower() == "logic":
            continue
        if rules.logic and key.isdigit() and isinstance(value, dict | list):
            inner: dict[Any, Any] = dict(enumerate(value)) if isinstance(value, list) else value
            logic = str(inner.get("logic", inner.get("LOGIC", "AND"))).upper()
            children.append(compile_filter({str(k): v for k, v in inner.items()}, rules, logic == "OR"))
            continue
        condition = _condition(key, value, rules)
        if condition is not None:
            children.append(condition)
    return Group(tuple(children), any_of)


def _condition(key: str, value: Any, rules: FilterRules) -> Condition | None:
    operator, name = split_operator(key)
    spec = rules.names.get(name)
    if spec is None:
        if rules.strict:
            raise bad_field(name, "filter")
        return None
    if not rules.strict and operator in _TEXT_OPERATORS and spec.type in _NO_LIKE:
        return None
    values = as_list(value) if isinstance(value, dict | list) else [value]
    if not values and operator not in _LIST_OPERATORS:
        values = [None]
    if rules.server_dates and spec.type in ("date", "datetime") and not _server_dated(values):
        return None
    condition = Condition(spec, operator, values, rules.offset)
    if condition.broken:
        if rules.strict:
            raise bad_field(name, "filter")
        return None
    return condition


def _server_dated(values: list[Any]) -> bool:
    return all(_SERVER_LITERAL.match(str(value)) for value in values)


Order = list[tuple[FieldSpec, bool]]
"""(field, descending)"""


def compile_order(raw: dict[str, Any], rules: FilterRules) -> Order:
    order: Order = []
    for name, direction in raw.items():
        spec = rules.names.get(name)
        if spec is None:
            if rules.strict:
                raise bad_field(name, "order")
            continue
        order.append((spec, str(direction).lower().startswith("desc")))
    return order


class TableQuery:
    """Runs one compiled filter over a table, vectorised where columns repeat by profile."""

    def __init__(self, table: Table, group: Group) -> None:
        self._table, self._group = table, group
        self._luts: dict[int, np.ndarray] = {}
        vector, residual = [], []
        for child in group.children:
            (vector if self._vectorisable(child) else residual).append(child)
        self._vector, self._residual = tuple(vector), Group(tuple(residual))

    def _vectorisable(self, node: Condition | Group) -> bool:
        if isinstance(node, Group):
            return all(self._vectorisable(child) for child in node.children)
        name, table = node.spec.name, self._table
        if name in ("ID", table.created_field, table.modified_field, _COMPUTED):
            return node.operator in {"=", "@", "!", "!=", "!@", ">", ">=", "<", "<="}
        return table.own(name) is None

    def _mask(self, node: Condition | Group, low: int, high: int) -> np.ndarray:
        if isinstance(node, Group):
            masks = [self._mask(child, low, high) for child in node.children]
            if not masks:
                return np.ones(high - low, dtype=bool)
            return np.logical_or.reduce(masks) if node.any_of else np.logical_and.reduce(masks)
        table, name = self._table, node.spec.name
        arrays = {"ID": table.ids, table.created_field: table.created, table.modified_field: table.modified}
        if name in arrays:
            return _compare(arrays[name][low:high], node)
        if name == _COMPUTED:
            of_rows: Any = table.own(name)  # of numbers or of arrays of them
            columns = (table.ids, table.hashes, table.created, table.modified)
            return _compare(of_rows(*(column[low:high] for column in columns)), node)
        lut = self._luts.get(id(node))
        if lut is None:
            lut = np.array([node.test(value) for value in table.profile_values(name)], dtype=bool)
            self._luts[id(node)] = lut
        return lut[table.profile[low:high]]

    def _bounds(self) -> tuple[int, int]:
        """Position range allowed by the id conditions at the top level."""
        table, low, high = self._table, 0, self._table.size
        ids = table.ids[:high]
        for child in () if self._group.any_of else self._group.children:
            if isinstance(child, Group) or child.spec.name != "ID" or not child.values:
                continue
            # searchsorted would convert the whole array for a float
            numbers = [int(min(value or 0, _MAX_ID)) for value in child.values]
            match child.operator:
                case ">" | ">=":
                    side = "right" if child.operator == ">" else "left"
                    low = max(low, int(np.searchsorted(ids, numbers[0], side=side)))
                case "<" | "<=":
                    side = "right" if child.operator == "<=" else "left"
                    high = min(high, int(np.searchsorted(ids, numbers[0], side=side)))
                case "=" | "@":
                    low = max(low, int(np.searchsorted(ids, min(numbers))))
                    high = min(high, int(np.searchsorted(ids, max(numbers), side="right")))
        return low, max(low, high)

    def _chunk(self, low: int, high: int) -> np.ndarray:
        table = self._table
        mask = table.alive[low:high] & ~table.hidden[low:high]
        touched = table.touched[low:high]
        if self._vector:
            wanted = np.logical_and.reduce([self._mask(node, low, high) for node in self._vector])
            mask &= wanted | touched
        positions = np.flatnonzero(mask) + low
        if self._residual.children:
            doubtful = np.ones(len(positions), dtype=bool)
        else:
            doubtful = touched[positions - low]
        if not doubtful.any():
            return positions
        kept = ~doubtful
        kept[doubtful] = [self._exact(position) for position in positions[doubtful].tolist()]
        return positions[kept]

    def _exact(self, position: int) -> bool:
        group = self._group if self._table.touched[position] else self._residual
        return group.test(lambda name: self._table.value(position, name))

    def positions(self, limit: int | None = None, descending: bool = False) -> np.ndarray:
        """Matching positions by ascending (or descending) id; at least `limit` of them if there are."""
        low, high = self._bounds()
        size, found, parts = 2048 if limit else max(1, high - low), 0, []
        while low < high and (limit is None or found < limit):
            edge = max(low, high - size) if descending else min(high, low + size)
            part = self._chunk(edge, high)[::-1] if descending else self._chunk(low, edge)
            low, high = (low, edge) if descending else (edge, high)
            parts.append(part)
            found += len(part)
            size *= 4
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def _compare(array: np.ndarray, node: Condition) -> np.ndarray:
    values = [value or 0 for value in node.values]
    match node.operator:
        case "=" | "@":
            return np.isin(array, values)
        case "!" | "!=" | "!@":
            return ~np.isin(array, values)
        case ">":
            return array > values[0]
        case ">=":
            return array >= values[0]
        case "<":
            return array < values[0]
    return array <= values[0]


@dataclass(frozen=True)
class Page:
    """Positions of one page; `total` and `next_start` are None when nothing was counted."""

    positions: Any
    total: int | None
    next_start: int | None
    counted: int


def run(table: Table, group: Group, order: Order, start: int) -> Page:
    """One page of at most 50. `start=-1` skips the count and reads from the beginning."""
    query = TableQuery(table, group)
    by_id = not order or order[0][0].name == "ID"
    descending = bool(order) and order[0][1] and by_id
    if start < 0 and by_id:
        return Page(query.positions(PAGE, descending)[:PAGE], None, None, 0)
    found = query.positions(None, descending)
    if not by_id:
        found = _sorted(table, found, order)
    if start < 0:
        return Page(found[:PAGE], None, None, 0)
    total = len(found)
    following = start + PAGE if start + PAGE < total else None
    return Page(found[start : start + PAGE], total, following, total)


def _sorted(table: Table, positions: np.ndarray, order: Order) -> np.ndarray:
    vectors = {"ID": table.ids, table.created_field: table.created, table.modified_field: table.modified}
    for spec, descending in reversed(order):
        if spec.name in vectors:
            keys = vectors[spec.name][positions]
            positions = positions[np.argsort(-keys if descending else keys, kind="stable")]
        else:
            ranked = sorted(
                positions.tolist(), key=lambda p: sort_key(table.value(p, spec.name)), reverse=descending
            )
            positions = np.array(ranked, dtype=np.int64)
    return positions


def sort_key(value: Any) -> tuple[int, Any]:
    """Empty first, numbers before text, text without case (as MySQL does)."""
    if value is None or isinstance(value, list | dict):
        return (0, 0)
    if isinstance(value, bool | int | float):
        return (1, value)
    return (2, str(value).casefold())


def select_rows(
    rows: Iterable[dict[str, Any]], raw_filter: dict[str, Any], raw_order: dict[str, Any], offset: int = 0
) -> list[dict[str, Any]]:
    """Filter and order plain dictionaries (small dictionaries of the portal); unknown keys are ignored."""
    result = list(rows)
    names = {key: _plain_spec(key, result) for row in result for key in row}
    group = compile_filter(raw_filter, FilterRules(names, strict=False, logic=True, offset=offset))
    result = [row for row in result if group.test(lambda name, row=row: _numeric(row.get(name)))]
    for name, direction in reversed(raw_order.items()):
        if name in names:
            down = str(direction).lower().startswith("desc")
            result.sort(key=lambda row: sort_key(_numeric(row.get(name))), reverse=down)
    return result


def _plain_spec(name: str, rows: list[dict[str, Any]]) -> FieldSpec:
    sample = next((row[name] for row in rows if row.get(name) not in (None, "")), None)
    sample = _numeric(sample)
    kind = "integer" if isinstance(sample, int) and not isinstance(sample, bool) else "string"
    return FieldSpec(name, kind, name, name)


def _numeric(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdigit() else value
