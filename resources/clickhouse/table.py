"""What a table is: one object from which DDL, the typing of values and the column list in the UI are all
made."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from resources.clickhouse.values import FALSE_MARK, TEXT, Kind, absent, elements

WriteMode = Literal["upsert", "replace_window", "snapshot"]
LOADED_AT = "dt_inserted"
DELETED = "is_deleted"
_CONTEXT = "JSONExtractString(getSetting('log_comment'), '{}')"


def quote(name: str) -> str:
    """A ClickHouse identifier in backticks."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def literal(text: str) -> str:
    """A ClickHouse string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name here, the key of the source's record that it is read from, and how that text is
    read.

    `multiple` gives `Array(Nullable(T))`, where every empty value is `[]`. `context` columns are the same
    for a whole load and are named in the load, not in the records (an entity type, say). `plain` columns
    (kinds of plain.py) are never NULL: what is empty or does not fit is the type's default. `private`
    columns are not in the `bi` view.
    """

    name: str
    source: str
    kind: Kind = TEXT
    comment: str = ""
    multiple: bool = False
    required: bool = False
    context: bool = False
    plain: bool = False
    private: bool = False

    @property
    def type(self) -> str:
        """The full ClickHouse type."""
        if self.multiple:
            return f"Array(Nullable({self.kind.type}))"
        return self.kind.type if self.required or self.plain else f"Nullable({self.kind.type})"

    def value_sql(self, zone: str) -> str:
        """SQL that reads this column from the inlet's text."""
        if self.context:
            return self._required_sql(_CONTEXT.format(self.source), zone)
        text = quote(self.source)
        if self.multiple:
            return f"arrayMap(v -> {self.kind.sql('v', zone)}, {elements(text)})"
        return self._required_sql(text, zone)

    def _required_sql(self, text: str, zone: str) -> str:
        if self.plain:
            return self._plain_sql(text, zone)
        if not self.required:
            return self.kind.sql(text, zone)
        return text if self.kind is TEXT else f"assumeNotNull({self.kind.sql(text, zone)})"

    def _plain_sql(self, text: str, zone: str) -> str:
        value = self.kind.sql(text, zone)
        if self.kind.loose or self.kind.misfit:
            return value
        return f"ifNull({value}, defaultValueOfTypeName({literal(self.kind.type)}))"

    def misfit_sql(self, zone: str) -> str | None:
        """SQL condition: there is a value and it does not fit; None where every text fits."""
        if self.kind.loose or self.context:
            return None
        text = quote(self.source)
        if self.multiple:
            return f"arrayExists(v -> {self._misfit('v', zone)}, {elements(text)})"
        return self._misfit(text, zone)

    def _misfit(self, text: str, zone: str) -> str:
        if self.kind.misfit:
            return self.kind.misfit(text, zone)
        if self.plain and self.required:
            return f"isNull({self.kind.sql(text, zone)})"
        empty = (f"{text} = ''" if self.plain else absent(text)) + (
            f" OR {self.kind.blank(text)}" if self.kind.blank else ""
        )
        return f"NOT ({empty}) AND isNull({self.kind.sql(text, zone)})"


@dataclass(frozen=True, slots=True)
class Label:
    """A column that only the `bi` view has: its name, the SQL that gives it, what it says."""

    name: str
    sql: str
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A raw table: name, columns, key and the way that rows are written.

    `upsert` and `snapshot` tables are ReplacingMergeTree(dt_inserted): the row that was READ last wins,
    whichever was written last. With `tombstones` a row can be taken away again (`is_deleted`). `zone` is
    the source's own zone, for values that carry none. `day` is the SQL of a row's day, of type Date: the
    partition of a `replace_window` table. Where several owners (counters, say) share such a table, `owner`
    is the column that names them: a load replaces the days of one of them. The `bi` view leaves out rows for
    which the SQL condition `hidden` holds, and shows `labels` beside the columns; both may read the tables that
    it `needs`.
    """

    database: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    mode: WriteMode = "upsert"
    comment: str = ""
    zone: str = "UTC"
    tombstones: bool = False
    loaded_at_position: int | None = None
    day: str | None = None
    owner: str | None = None
    hidden: str = ""
    labels: tuple[Label, ...] = ()
    needs: tuple[Table, ...] = ()

    def __post_init__(self) -> None:
        names = [c.name for c in self.columns]
        own = [LOADED_AT, DELETED] if self.tombstones else [LOADED_AT]
        if twice := sorted(n for n, times in Counter([*names, *own]).items() if times > 1):
            raise ValueError(
                f"{self.full_name}: the column names {twice} stand twice, counting the loader's own {own}"
            )
        if (self.mode == "replace_window") != (self.day is not None):
            raise ValueError(f"{self.full_name}: replace_window tables, and only they, have a day")
        missing = set(self.key) - set(names)
        if missing:
            raise ValueError(f"{self.full_name}: key columns {sorted(missing)} are not columns")

    @property
    def full_name(self) -> str:
        return f"{self.database}.{self.name}"

    @property
    def sql_name(self) -> str:
        return f"{quote(self.database)}.{quote(self.name)}"

    @property
    def partition_sql(self) -> str:
        """The partition of a `replace_window` table: the day, or the day and the owner."""
        return f"({self.day}, {quote(self.owner)})" if self.owner else f"{self.day}"

    @property
    def alive_sql(self) -> str:
        """The condition of rows that the source still has; empty if the table tells nothing of that."""
        conditions = [f"{DELETED} = 0"] if self.tombstones else []
        conditions += [f"NOT ({self.hidden})"] if self.hidden else []
        return " AND ".join(conditions)

    def view_sql(self, columns: Sequence[str]) -> str:
        """The SELECT of the `bi` view over these columns: current rows with their labels."""
        taken, hidden = set(columns), {DELETED, *(c.name for c in self.columns if c.private)}
        shown = [quote(n) for n in columns if n not in hidden]
        shown += [f"{label.sql} AS {quote(label.name)}" for label in self.labels if label.name not in taken]
        where = f" WHERE {self.alive_sql}" if self.alive_sql else ""
        return f"SELECT {', '.join(shown)} FROM {self.sql_name} FINAL{where}"

    def definitions(self) -> list[tuple[str, str, str]]:
        """(name, type, comment) in table order, with the loader's own columns in their places."""
        rows = [(c.name, c.type, c.comment) for c in self.columns]
        at = len(rows) if self.loaded_at_position is None else self.loaded_at_position
        rows.insert(at, (LOADED_AT, "DateTime", "When the row was read from the source, UTC"))
        if self.tombstones:
            rows.append((DELETED, "UInt8", "1: the source no longer has the row"))
        return rows

    def create_sql(
        self, *, stage: str | None = None, engine: str, cluster: str = "", frugal: bool = False
    ) -> str:
        """The DDL of the table, or of its `stage`, which also has the columns that the source no longer
        gives.

        `frugal` tables are merged column by column: slower, with a fraction of the memory.
        """
        columns = ",\n  ".join(
            f"{quote(n)} {t}" + (f" COMMENT {literal(c)}" if c else "") for n, t, c in self.definitions()
        )
        order = ", ".join(quote(k) for k in self.key)
        partition = f" PARTITION BY {self.partition_sql}" if self.day else ""
        head = f"{self.sql_name}{cluster} (\n  {columns}\n)"
        if stage:
            head = f"{quote(self.database)}.{quote(stage)}{cluster} AS {self.sql_name}"
        settings = "min_columns_to_activate_adaptive_write_buffer = 1"
        if frugal:
            settings += ", vertical_merge_algorithm_min_rows_to_activate = 1"
        return (
            f"CREATE TABLE IF NOT EXISTS {head} ENGINE = {engine}{partition} ORDER BY ({order})"
            f" SETTINGS {settings}" + (f" COMMENT {literal(self.comment)}" if self.comment else "")
        )

    def inlet_columns(self) -> list[str]:
        """Keys of the source's records that the table reads, each once."""
        return list(dict.fromkeys(c.source for c in self.columns if not c.context))

    def fingerprint(self) -> str:
        """Changes when the inlet must: another column, kind, zone or key."""
        parts: Iterable[str] = (
            f"{c!r}" for c in (*self.definitions(), *self._readings(), self.key, self.tombstones)
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]

    def _readings(self) -> list[tuple[str, str]]:
        return [(c.source, c.value_sql(self.zone)) for c in self.columns]

    def select_sql(self, inlet: str) -> str:
        """The typed rows of the inlet, in table order."""
        by_name = {c.name: c.value_sql(self.zone) for c in self.columns}
        by_name[LOADED_AT] = f"toDateTime(toUInt32OrZero({_CONTEXT.format('read_at')}), 'UTC')"
        by_name[DELETED] = "0"
        chosen = ", ".join(f"{by_name[n]} AS {quote(n)}" for n, _, _ in self.definitions())
        return f"SELECT {chosen} FROM {inlet} SETTINGS prefer_column_name_to_alias = 1"

    def misfits_sql(self, inlet: str) -> str:
        """Rows with at least one value that does not fit: the raw row, the columns and what was expected
        of each."""
        tests = [
            f"if({test}, {literal(f'{c.name}: not {_article(c.kind.type)}')}, '')"
            for c in self.columns
            if (test := c.misfit_sql(self.zone))
        ]
        reasons = f"arrayFilter(r -> r != '', [{', '.join(tests)}])" if tests else "emptyArrayString()"
        keys = [c for k in self.key for c in self.columns if c.name == k]
        key = ", ', ', ".join(_CONTEXT.format(c.source) if c.context else quote(c.source) for c in keys)
        row = f"formatRow('JSONEachRow', {', '.join(quote(s) for s in self.inlet_columns())})"
        return (
            f"SELECT {literal(self.full_name)} AS table_name, concat({key}, '') AS row_key, {reasons} AS reasons, "
            f"{_unmarked(row)} AS raw, "
            f"{_CONTEXT.format('load')} AS load_id, now('UTC') AS rejected_at FROM {inlet} WHERE notEmpty(reasons)"
        )


def _unmarked(row: str) -> str:
    """SQL: a row as JSON with plain `false`, as a value and inside of the JSON text of an object."""
    value, nested = FALSE_MARK.replace("\x1d", "\\u001D"), r"\"\\u001dfalse\""
    return f"replaceAll(replaceAll({row}, {literal(value)}, 'false'), {literal(nested)}, 'false')"


def _article(type_: str) -> str:
    return ("an " if type_[0] in "AEIOU" else "a ") + type_
