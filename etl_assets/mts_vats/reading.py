"""Trunks as records: what the loader takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from etl_assets.loading import Batch, Bounds, Spent
from etl_assets.mts_vats.history import Row, is_on
from resources.mts_vats import MtsVatsClient, Trunk, Vault
from resources.mts_vats.gwt_lexer import encode_long

BATCH = 200


class TrunkReader:
    """The trunks of one cabinet, all of them or an error. `broken` are those whose form could not be read."""

    def __init__(self, client: MtsVatsClient, vault: Vault | None) -> None:
        self._client, self._vault = client, vault
        self.broken: dict[int, str] = {}
        self.unexplained: set[tuple[int, ...]] = set()
        self.count = 0
        self.routes: set[str] = set()

    def clock(self) -> datetime:
        """The cabinet's clock; logs in to know it."""
        if not self._client.counters.logins:
            self._client.session.log_in()
        return self._client.session.now()

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        pending: list[Trunk] = []
        for trunk in self._client.iter_trunks():
            self._note(trunk)
            pending.append(trunk)
            if len(pending) == BATCH:
                yield self._batch(pending)
                pending = []
        if pending:
            yield self._batch(pending)

    def _note(self, trunk: Trunk) -> None:
        self.count += 1
        if trunk.status == "error":
            self.broken[trunk.abonent.id] = trunk.error or ""
        if trunk.abonent.state == "unknown":
            self.unexplained.add(tuple(trunk.abonent.flags.values()))
        if trunk.form and trunk.form.form == 31:  # form 32 is never read otherwise
            self.routes.add(trunk.form.route)

    def _batch(self, trunks: Sequence[Trunk]) -> Batch:
        return batch([self._record(t) for t in trunks], min(t.read_at for t in trunks))

    def _record(self, trunk: Trunk) -> Row:
        a, form = trunk.abonent, trunk.form
        password = form.password if form else None
        source = (*form.devices, form.template)[0] if form and form.form == 31 else None
        device, enabled = (form.has_device, form.enabled) if form else (None, None)
        return {
            "cabinet": self._client.cabinet.name,
            "abonent_id": a.id,
            "link": encode_long(a.id),
            "scope_id": self._client.session.enterprise,
            "name": a.name,
            "extension": a.extension,
            "group_name": a.group,
            "state": a.state,
            "marks": a.marks,
            "has_device": number(device),
            "is_enabled": number(enabled),
            "line": form.line if form else None,
            "sip_login": form.login if form else None,
            "phone": trunk.phone,
            "password_fingerprint": self._vault.fingerprint(password) if self._vault and password else None,
            "is_marked_for_deletion": {"disabled_marked": 1, "active": 0}.get(a.state),
            "is_on": is_on(a.state, number(device), number(enabled)),
            "devices": len(form.devices) if form and form.form == 31 else None,
            "sip_obj_id": source.sip_obj if source else None,
            "contract_id": source.contract if source else None,
            "sip_password": self._vault.encrypt(password) if self._vault and password else None,
            "form": form.form if form else None,
            "status": trunk.status,
            "error": trunk.error,
            "decoded_by": form.route if form else None,
            "read_at": trunk.read_at,
        }

    def spent(self) -> Spent:
        c = self._client.counters
        return Spent(c.requests, c.requests, c.waited_s, c.api_s)


class RowReader:
    """Rows that are there already."""

    def __init__(self, rows: Sequence[Row], now: datetime) -> None:
        self._rows, self._now = rows, now

    def clock(self) -> datetime:
        return self._now

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        for at in range(0, len(self._rows), 10_000):
            yield batch(self._rows[at : at + 10_000], self._now)

    def spent(self) -> Spent:
        return Spent()


def batch(rows: Sequence[Row], read_at: datetime) -> Batch:
    """Rows as the loader takes them; None is left out, which is how it reads NULL."""
    lines = [json.dumps({k: _plain(v) for k, v in row.items() if v is not None}) for row in rows]
    return Batch("\n".join(lines).encode(), len(rows), read_at)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    return list(value) if isinstance(value, tuple) else value


def number(flag: bool | None) -> int | None:
    return None if flag is None else int(flag)
