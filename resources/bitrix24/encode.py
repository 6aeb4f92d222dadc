"""PHP bracket syntax for batch command strings, and the query parts of list calls."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any, Literal
from urllib.parse import quote

from resources.bitrix24.calls import PAGE, REQUIRED_SELECT, ListCall, Window, spelled

DateStyle = Literal["iso", "sql"]

# The places of positional parameters (documentation of task.elapseditem.getlist) and what follows the filter.
ORDER, FILTER = "0", "1"
_AFTER_FILTER = {"2": ["*"], "3": {"NAV_PARAMS": {"nPageSize": PAGE, "iNumPage": 1}}}


def bracket(params: Mapping[str, Any]) -> str:
    """`{"filter": {">ID": 1}}` -> `filter%5B%3EID%5D=1`; everything is percent-encoded, `+` as %2B.

    True/False become 1/0 and None the empty string, which is all the syntax can say. An empty map or list at
    the top vanishes; a nested one raises ValueError, because a condition that vanishes would widen the
    answer.
    """
    return "&".join(
        f"{quote(path, safe='')}={quote(text, safe='')}"
        for key, value in params.items()
        for path, text in _leaves(str(key), value, top=True)
    )


def _leaves(path: str, value: Any, *, top: bool = False) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        children = [(f"{path}[{key}]", item) for key, item in value.items()]
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        children = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    else:
        yield path, _scalar(value)
        return
    if not children and not top:
        raise ValueError(f"{path} is empty, and a batch command cannot express that")
    for child, item in children:
        yield from _leaves(child, item)


def _scalar(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return str(value)


def literal(moment: datetime, style: DateStyle, zone: tzinfo | None) -> str:
    """A date filter value: ISO with offset, or `YYYY-MM-DD HH:MM:SS` in the portal's `zone`."""
    if style == "iso":
        return moment.isoformat(timespec="seconds")
    return moment.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")


class ListQuery:
    """The command strings of one list call within one window; the fixed part is encoded once."""

    def __init__(
        self, call: ListCall, window: Window, style: DateStyle = "iso", zone: tzinfo | None = None
    ) -> None:
        self._call = call
        base = dict(call.params)
        self._filter_key, self._select_key = spelled(base, "filter"), spelled(base, "select")
        self._sort_key, self._order_key = spelled(base, "sort"), spelled(base, "order")
        # Where the documentation spells it START, portals have been seen to take the usual spelling.
        self._start_keys = ("start", "START") if "START" in base else ("start",)
        condition = dict(base.pop(self._filter_key, None) or {})
        if call.modified and window.since:
            condition[f">={call.modified}"] = literal(window.since, style, zone)
        if call.modified and window.until:
            condition[f"<{call.modified}"] = literal(window.until, style, zone)
        self._above = _number(condition.pop(f">{call.cursor}", None))
        self._upto = _number(condition.pop(f"<={call.cursor}", None))
        for name in self._start_keys:
            base.pop(name, None)
        self._rest = base
        self._condition = condition
        if call.sort_style == "positional":  # a filter without a condition would lose its place
            self._order_key, self._filter_key, self._above = ORDER, FILTER, self._above or 0
        self._fixed = bracket({**base, **self._order("ASC"), self._filter_key: condition})

    def page(self, above: int | str | None = None, upto: int | None = None, *, counted: bool = False) -> str:
        """Ids in (above, upto], ascending; `above` may be a `$result[...]` reference.

        Only with `counted` does the portal count them, which is slow on long lists.
        """
        if not isinstance(above, str):
            above = max((n for n in (above, self._above) if n is not None), default=None)
        upto = min((n for n in (upto, self._upto) if n is not None), default=None)
        bounds = [self._bound(">", above), self._bound("<=", upto)]
        return self._command(self._fixed, *bounds, self._page(0 if counted else -1))

    def last(self) -> str:
        """The page with the highest ids, descending, ids only (and the modification field)."""
        rest = dict(self._rest)
        if self._select_key in rest:
            names = [self._call.cursor, *([self._call.modified] if self._call.modified else [])]
            kept = [name for name in rest[self._select_key] if name in REQUIRED_SELECT]
            rest[self._select_key] = names + kept
        fixed = bracket({**rest, **self._order("DESC"), self._filter_key: self._condition})
        bounds = [self._bound(">", self._above), self._bound("<=", self._upto)]
        return self._command(fixed, *bounds, self._page(-1))

    def among(self, ids: Sequence[int]) -> str:
        """The rows with these ids (at most a page), ascending, no count."""
        condition = bracket({self._filter_key: {f"{self._call.among}{self._call.cursor}": list(ids)}})
        return self._command(self._fixed, condition, self._page(-1))

    def offset(self, start: int | None) -> str:
        """Rows from number `start`; None asks without paging, in the method's own order."""
        bounds = [self._bound(">", self._above), self._bound("<=", self._upto)]
        if start is None:
            return self._command(bracket({**self._rest, self._filter_key: self._condition}), *bounds)
        return self._command(self._offset_fixed(), *bounds, self._page(start))

    def _page(self, start: int) -> str:
        """-1: the first page, not counted."""
        if self._call.sort_style == "positional":
            return bracket(_AFTER_FILTER)
        return "&".join(f"{name}={start}" for name in self._start_keys)

    def _offset_fixed(self) -> str:
        if self._call.paging in (
            "offset",
            "single",
        ):  # the caller's own order: not every such method can sort by id
            return bracket({**self._rest, self._filter_key: self._condition})
        return self._fixed

    def _order(self, direction: str) -> dict[str, Any]:
        if self._call.sort_style == "sort_order":
            return {self._sort_key: self._call.cursor, self._order_key: direction}
        return {self._order_key: {self._call.cursor: direction}}

    def _bound(self, operator: str, value: int | str | None) -> str:
        if value is None:
            return ""
        return bracket({self._filter_key: {f"{operator}{self._call.cursor}": value}})

    def _command(self, *parts: str) -> str:
        return f"{self._call.method}?" + "&".join(part for part in parts if part)


def reference(label: str, call: ListCall) -> str:
    """`$result[c012][items][49][id]`: the id of the last row of the full page that `label` returned."""
    wrapper = f"[{call.items}]" if call.items else ""
    return f"$result[{label}]{wrapper}[49][{call.id_key}]"


def _number(value: Any) -> int | None:
    return None if value is None else int(value)
