"""What answers of the cabinet say, as values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

Route = Literal["schema", "scan"]
STATES = {(1, 1, 0, 0): "active", (0, 0, 1, 1): "disabled_marked"}  # of w4, w6, w7, w9


class Abonent(NamedTuple):
    """A row of the list. `marks` are its ten numbers w2, w3, w4, w6 … w12, as they stand behind the id on the
    wire; w1 and w5 are indexes of the string table and say nothing."""

    id: int
    marks: tuple[int, ...]
    name: str | None = None
    phone: str | None = None
    extension: str | None = None
    group: str | None = None

    @property
    def flags(self) -> dict[str, int]:
        marks = self.marks
        return {"w4": marks[2], "w6": marks[3], "w7": marks[4], "w9": marks[6]}

    @property
    def state(self) -> str:
        """`active`, `disabled_marked`, or `unknown` for a combination that nobody has explained."""
        marks = self.marks
        return STATES.get((marks[2], marks[3], marks[4], marks[6]), "unknown")


@dataclass(frozen=True, slots=True)
class AbonentPage:
    """One page of the list, in server order. `confidence` is the share of checks that could be made."""

    abonents: list[Abonent]
    total: int | None
    route: Route
    confidence: float


class Device(NamedTuple):
    """A SIP device, or the template of one. Ids are None where a changed class hides them."""

    abonent: int | None
    enabled: bool
    sip_obj: int | None
    contract: int | None
    line: str | None
    name: str | None = None
    type: str | None = None


class DeviceForm(NamedTuple):
    """What form 31 or 32 says of an abonent. Form 32 knows no devices and no line.

    `sip_phone` are the digits of the login; `own_phone` those of a field that only form 32 has.
    """

    form: Literal[31, 32]
    login: str | None
    password: str | None
    sip_phone: str | None
    route: Route
    confidence: float
    abonent: int | None = None
    devices: tuple[Device, ...] = ()
    template: Device | None = None
    own_phone: str | None = None

    @property
    def has_device(self) -> bool | None:
        return bool(self.devices) if self.form == 31 else None

    @property
    def enabled(self) -> bool | None:
        return any(d.enabled for d in self.devices) if self.form == 31 else None

    @property
    def line(self) -> str | None:
        source = self.devices[0] if self.devices else self.template
        return source.line if source else None

    @property
    def phone(self) -> str | None:
        """Eleven digits that begin with 7, or None."""
        return full_phone(self.own_phone) or full_phone(self.sip_phone)

    def __repr__(self) -> str:
        return f"DeviceForm(form={self.form}, abonent={self.abonent}, route={self.route!r})"


@dataclass(frozen=True, slots=True)
class RemoteException:
    """`//EX`: what the server threw."""

    signature: str | None
    message: str | None

    @property
    def name(self) -> str | None:
        return self.signature.partition("/")[0] if self.signature else None


def full_phone(digits: str | None) -> str | None:
    """`7` and ten digits; None for digits that are no such number."""
    found = re.fullmatch(r"[78]?(\d{10})", digits or "", re.ASCII)
    return f"7{found[1]}" if found else None
