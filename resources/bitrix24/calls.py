"""What is asked of a Bitrix24 portal and what comes back, as plain data."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

PAGE = 50
"""Rows of one page and commands of one batch; both are fixed by the portal."""

FALSE_MARK = "\u001dfalse"
"""What a JSON `false` becomes in `RecordBatch.body`, so that it differs from the text "false"."""


REQUIRED_SELECT = ("iblockId",)  # catalog.product.list refuses a select without it


def spelled(params: Mapping[str, Any], name: str) -> str:
    """`filter` or `FILTER`, whichever the call uses: with both present the portal ignores one."""
    return name.upper() if any(key in params for key in ("FILTER", "SELECT", "SORT", "ORDER")) else name


@dataclass(frozen=True, slots=True)
class ListCall:
    """How one list method is asked and how its answer is unwrapped.

    paging: `keyset` reads by id, many pages a request; `sequential` reads by id, one page a request, until an
    empty page (for methods that filter a page after cutting it); `offset` follows `next`; `single` is one
    call.
    sort_style: `order` sends {"order": {cursor: "ASC"}}; `sort_order` sends top-level sort and order
    (user.get); `positional` sends order, filter, select and navigation by their places
    (task.elapseditem.getlist).
    modified_key: the name of `modified` in answers, where it is another.
    among: the operator that takes a list of ids, empty where a plain list means that.
    """

    method: str
    params: Mapping[str, Any] = field(default_factory=dict)
    cursor: str = "ID"
    id_key: str = "ID"
    items: str | None = None
    modified: str | None = None
    modified_key: str | None = None
    paging: Literal["keyset", "sequential", "offset", "single"] = "keyset"
    sort_style: Literal["order", "sort_order", "positional"] = "order"
    among: Literal["@", "=", ""] = "@"

    def ids_only(self) -> "ListCall":
        """The same call for the ids alone, whenever the rows changed; a call without a select stays whole."""
        name = spelled(self.params, "select")
        chosen = self.params.get(name)
        kept = [n for n in chosen or () if n in REQUIRED_SELECT]
        params = {**self.params, name: [self.cursor, *kept]} if chosen else self.params
        return replace(self, params=params, modified=None, modified_key=None)

    def times_only(self) -> "ListCall":
        """The same call for ids and change times; a call without a select stays whole."""
        name = spelled(self.params, "select")
        chosen = self.ids_only().params.get(name)
        return replace(self, params={**self.params, name: [*chosen, self.modified]}) if chosen else self

    def among_ids(self, ids: Sequence[int]) -> "ListCall":
        """The same call for the ids alone, of those of these rows that there are."""
        return self.ids_only().filtered({f"{self.among}{self.cursor}": list(ids)})

    def filtered(self, conditions: Mapping[str, Any]) -> "ListCall":
        """The same call with further conditions in its filter, in whichever case it spells it."""
        name = spelled(self.params, "filter")
        merged = {**(self.params.get(name) or {}), **conditions}
        return replace(self, params={**self.params, name: merged})


@dataclass(frozen=True, slots=True)
class Window:
    """Half-open [since, until) of the modification field; aware datetimes, None = unbounded."""

    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class RecordBatch:
    r"""Rows as the portal sent them.

    body: JSON objects separated by b"\n"; every structural `"KEY": false` reads `"KEY": "\u001dfalse"`.
    read_at: UTC, the portal's own clock when the request began (the earliest, if several were merged).
    days: literal date "YYYY-MM-DD" of `modified` -> rows; empty if the call has no `modified`.
    progress: opaque JSON that `scan(resume=...)` takes to continue after this batch; None = cannot continue.
    """

    body: bytes
    count: int
    read_at: datetime
    days: Counter[str]
    progress: str | None


@dataclass(frozen=True, slots=True)
class CommandError:
    """A command the portal refused. `code` is upper case, `message` says what to do, free of secrets."""

    method: str
    code: str
    description: str
    message: str
    retryable: bool = False


def fingerprint(call: ListCall, window: Window) -> str:
    """A short hash of everything that decides which rows, and which fields of them, a scan delivers."""
    bounds = [moment and moment.astimezone(UTC).isoformat() for moment in (window.since, window.until)]
    text = msgspec.json.encode([msgspec.to_builtins(call), bounds], order="sorted")
    return hashlib.sha256(text).hexdigest()[:24]
