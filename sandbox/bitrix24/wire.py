"""How canonical values look on the wire, and fast rendering of pages.

Classic methods: strings, `""`/null/false for empty. Universal methods: typed JSON, null and [].
Dates carry the portal offset; `date` values are a midnight in one of two forms.
"""

import json
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson

from sandbox.bitrix24.config import PortalConfig
from sandbox.bitrix24.data import DAY, Gappy
from sandbox.bitrix24.fields import FieldSpec
from sandbox.bitrix24.table import Table

Encoder = Callable[[Any], bytes]

RELATIONS = {"crm_lead", "crm_deal", "crm_contact", "crm_company", "crm_quote", "crm_entity"}
_INTEGERS = {"integer", "user", "employee", "crm_category"} | RELATIONS
FILES = {"file", "diskfile"}


def dumps(value: Any) -> bytes:
    """JSON bytes; text that UTF-8 cannot carry (lone surrogates) is sent as escapes, as PHP does."""
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        return _dumps_escaped(value)


def _dumps_escaped(value: Any) -> bytes:
    def plain(item: Any) -> Any:
        return json.loads(bytes(orjson.dumps(item))) if isinstance(item, orjson.Fragment) else str(item)

    return json.dumps(value, default=plain).encode("ascii")


def loads(text: bytes) -> Any:
    """Parse JSON that may hold lone surrogates, which orjson refuses."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


class _Days(dict[int, bytes]):
    """Days since 1970 -> `2024-08-30T`."""

    def __missing__(self, day: int) -> bytes:
        date = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)
        text = self[day] = date.strftime("%Y-%m-%dT").encode()
        return text


class _Times(dict[int, bytes]):
    """Seconds of the day -> `14:29:00+03:00`."""

    def __init__(self, suffix: bytes) -> None:
        super().__init__()
        self._suffix = suffix

    def __missing__(self, second: int) -> bytes:
        clock = b"%02d:%02d:%02d" % (second // 3600, second // 60 % 60, second % 60) + self._suffix
        self[second] = clock
        return clock


class Wire:
    """Encoders of one portal: depends on its offset and its form of dates."""

    def __init__(self, config: PortalConfig) -> None:
        self.offset = int(config.utc_offset_h * 3600)
        self.date_form = config.date_form
        self.zone = timezone(timedelta(seconds=self.offset))
        sign = "+" if self.offset >= 0 else "-"
        hours, minutes = divmod(abs(self.offset) // 60, 60)
        self._suffix = f"{sign}{hours:02d}:{minutes:02d}".encode()
        self._days = _Days()
        self._times = _Times(self._suffix)
        self._file_reads = 0

    def iso(self, seconds: float) -> str:
        """`2024-08-30T14:29:00+03:00`"""
        return self.datetime(int(seconds))[1:-1].decode()

    def datetime(self, seconds: int) -> bytes:
        day, second = divmod(seconds + self.offset, DAY)
        return b'"%b%b"' % (self._days[day], self._times[second])

    def date_encoder(self, name: str) -> Encoder:
        """Midnight UTC expressed in the portal offset, or local midnight."""
        utc = self.date_form == "utc" or (self.date_form == "mixed" and zlib.crc32(name.encode()) % 2 == 0)
        shift = self.offset if utc and self.offset > 0 else 0
        clock = b"%02d:%02d:00" % (shift // 3600, shift // 60 % 60) + self._suffix
        days = self._days
        return lambda day: b'"%b%b"' % (days[day], clock)

    def _file(self, number: int, universal: bool) -> bytes:
        self._file_reads += 1
        link = f"/bitrix/components/crm/show_file.php?fileId={number}&auth=v{self._file_reads}"
        if universal:
            return dumps({"id": number, "url": link, "urlMachine": link + "&machine=1"})
        return dumps({"id": str(number), "showUrl": link, "downloadUrl": link + "&download=1"})

    def scalar(self, spec: FieldSpec, universal: bool) -> Encoder:
        """Encoder of one non-empty value."""
        kind = spec.type
        if kind == "datetime":
            return self.datetime
        if kind == "date":
            return self.date_encoder(spec.name)
        if kind in FILES:
            return lambda value: self._file(value, universal)
        if kind == "crm_multifield":
            return _multifield
        if universal:
            if kind == "boolean":
                return lambda value: b'"Y"' if value else b'"N"'
            return dumps
        if kind == "boolean":
            return lambda value: b'"1"' if value else b'"0"'
        if kind == "double" and not spec.user_field:
            return lambda value: b'"%.2f"' % value
        if kind in _INTEGERS:
            return lambda value: b'"%d"' % value
        if kind.startswith("crm_enum") or kind in ("double", "enumeration", "location"):
            return lambda value: f'"{value}"'.encode()
        return dumps

    def encoder(self, spec: FieldSpec, universal: bool) -> Encoder:
        """Encoder of a canonical value, empties and multiples included."""
        scalar, empty = self.scalar(spec, universal), empty_literal(spec, universal)
        if not spec.multiple:
            return lambda value: empty if value is None else scalar(value)

        def many(values: Any) -> bytes:
            if not values:
                return empty
            if isinstance(values, Gappy) and not universal:  # element 1 was removed: keys 0, 2, 3...
                keys = [0, *range(2, len(values) + 1)]
                parts = [b'"%d":%b' % (key, scalar(v)) for key, v in zip(keys, values, strict=True)]
                return b"{" + b",".join(parts) + b"}"
            return b"[" + b",".join(scalar(value) for value in values) + b"]"

        return many


def _multifield(value: Any) -> bytes:
    """Classic multi-field entries have string ids."""
    return dumps({**value, "ID": str(value["ID"])})


def empty_literal(spec: FieldSpec, universal: bool) -> bytes:
    """What an empty value looks like; classic forms differ from field to field."""
    if universal:
        return b"[]" if spec.multiple else b"0" if spec.name in ("COMPANY_ID", "CONTACT_ID") else b"null"
    odd = zlib.crc32(spec.name.encode()) % 2
    if spec.multiple:
        return b"false" if odd else b"[]"
    if spec.type in ("date", "datetime"):
        return b'""'
    if spec.type in RELATIONS:
        return b'"0"' if spec.type == "crm_contact" else b"null"
    if spec.user_field:
        return b"false" if spec.type in ("enumeration", "file") else b'""' if odd else b"null"
    return b"null"


class Renderer:
    """Renders rows of a table for one list of (key, field) columns.

    Columns that repeat by profile become a `%b` template per profile; the rest is filled in.
    """

    def __init__(
        self, table: Table, wire: Wire, columns: list[tuple[str, FieldSpec]], universal: bool
    ) -> None:
        self._table = table
        self._columns = [(dumps(key), spec, wire.encoder(spec, universal)) for key, spec in columns]
        self._moving = [
            (spec, encode, wire.scalar(spec, universal), empty_literal(spec, universal))
            for _, spec, encode in self._columns
            if self._moves(spec)
        ]
        self._templates: dict[int, bytes] = {}

    def _moves(self, spec: FieldSpec) -> bool:
        return self._table.own(spec.name) is not None or spec.type in FILES

    def _template(self, profile: int) -> bytes:
        parts = []
        for key, spec, encode in self._columns:
            if self._moves(spec):
                parts.append(key.replace(b"%", b"%%") + b":%b")
            else:
                value = self._table.profile_values(spec.name)[profile]
                parts.append((key + b":" + encode(value)).replace(b"%", b"%%"))
        template = self._templates[profile] = b"{" + b",".join(parts) + b"}"
        return template

    def _slow(self, position: int) -> bytes:
        value = self._table.value
        parts = [key + b":" + encode(value(position, spec.name)) for key, spec, encode in self._columns]
        return b"{" + b",".join(parts) + b"}"

    def rows(self, positions: Any) -> list[bytes]:
        """JSON objects of the rows at these positions, in order."""
        if not len(positions):
            return []
        table = self._table
        ids, hashes = table.ids[positions].tolist(), table.hashes[positions].tolist()
        created, modified = table.created[positions].tolist(), table.modified[positions].tolist()
        profiles = table.profile[positions].tolist()
        known = {"ID": ids, table.created_field: created, table.modified_field: modified}
        moving = []
        for spec, encode, scalar, empty in self._moving:
            own = table.own(spec.name)
            if spec.name in known:
                values = known[spec.name]
            elif own is None:
                repeated = table.profile_values(spec.name)
                values = [repeated[p] for p in profiles]
            else:
                values = [own(*row) for row in zip(ids, hashes, created, modified, strict=True)]
            if spec.multiple:
                moving.append([encode(value) for value in values])
            else:  # no call for empty values
                moving.append([empty if value is None else scalar(value) for value in values])
        own_values = zip(*moving, strict=True) if moving else [()] * len(ids)
        ready = self._templates
        result = [(ready.get(p) or self._template(p)) % v for p, v in zip(profiles, own_values, strict=True)]
        if table.overlay:
            for index, changed in enumerate(table.touched[positions].tolist()):
                if changed:
                    result[index] = self._slow(int(positions[index]))
        return result
