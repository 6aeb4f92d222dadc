"""The emulated cabinet: trunks, sessions, deployments, and what its remote services do."""

from __future__ import annotations

import hashlib
import random
import secrets
import threading
import zlib
from dataclasses import dataclass, field
from typing import Any

from sandbox.mts_vats.wire import (
    ARRAY_LIST,
    BOOLEAN,
    INTEGER,
    LONG,
    Call,
    Dialect,
    Incompatible,
    Obj,
    answer,
    array_list,
    boxed,
    long_text,
    thrown,
)

SERVICES = "ru.cti.vpbx.shared.services."
MODELS = "ru.cti.vpbx.shared.models."
DISPATCHER = SERVICES + "DispatcherService$DISPATCHER"
DEVICE_FORM = MODELS + "form.device.AbonentDeviceFormGWTModel/591779426"
DEVICE_RECORD = MODELS + "form.device.AbonentDeviceRecordGWTModel/1158222701"
SIP_FORM = MODELS + "form.abonent.AbonentSipFormGWTModel/3061189247"
REQUEST = MODELS + "browser.AbonentBrowserRequestGWTModel/3482149540"
RESPONSE = MODELS + "browser.AbonentBrowserResponseGWTModel/1187230456"
RECORD = MODELS + "codebase.RecordGWTModel/4241958543"
MIGRATION = "ru.cti.vpbx.shared.enums.MIGRATION_STATE_TYPE/1556569729"
BLOCKED = "ru.cti.vpbx.shared.enums.BLOCKED_CODE/604118927"
INCOMPATIBLE = "com.google.gwt.user.client.rpc.IncompatibleRemoteServiceException/3936916533"
APPLICATION = "ru.cti.vpbx.shared.exceptions.VpbxServiceGWTException/1840026713"
SWITCH = "setEnabled"
FORMS = (
    [f"FORM_{n}" for n in range(31)]
    + ["ABONENT_DEVICE_FORM", "ABONENT_SIP_FORM"]
    + [f"OTHER_{n}" for n in range(20)]
)
NAMES = ("Касса 1", "Склад", "Приёмная", "Охрана", "Отдел № 4", "Доставка", 'ООО "Ромашка" <юг> & К°')
RANGES = ((2583691264, 2600468479), (400_000_000, 430_000_000), (3_300_000_000, 3_400_000_000))
PASSWORD_LETTERS = "abcdefghkmnpqrstuvwxyzABCDEFGHKLMNPQRSTUVWXYZ23456789"


@dataclass
class CabinetConfig:
    """What the cabinet holds and how it misbehaves.

    `expire_every`, `fail_every`: every n-th remote call loses its session, or is answered 500. `overlap`:
    calls that overlap lose the session, as on the real server. `redeploy_at`: before
    this call. `changed_row`: the list's row has a checksum that nobody knows. `names_hidden`: the compiled
    page does not tell the names of forms.
    """

    trunks: int = 60
    login: str = "+7-9990000001"
    password: str = "sandbox0secret"
    enterprise: int = 2589433012
    seed: int = 1
    latency_s: float = 0.0
    disabled: float = 0.15
    without_form: float = 0.03
    fallback_form: float = 0.04
    expire_every: int = 0
    redeploy_at: int = 0
    fail_every: int = 0
    overlap: bool = False
    clamp: bool = False
    totals: bool = True
    changed_row: bool = False
    names_hidden: bool = False
    modern: bool = False
    array_part: int = 1 << 15
    string_part: int = 1 << 16
    clock_offset_s: float = 0.0


@dataclass
class Trunk:
    """One abonent. `broken` makes its form unreadable: cut, error or stranger."""

    id: int
    phone: str
    name: str
    extension: str | None
    password: str
    sip_obj: int
    has_device: bool = True
    enabled: bool = True
    flags: tuple[int, int, int, int] = (1, 1, 0, 0)  # w4, w6, w7, w9
    form: int | None = 31
    line: bool = True
    devices: int = 1
    broken: str | None = None


@dataclass
class Stats:
    requests: int = 0
    calls: int = 0
    logins: int = 0
    failed_logins: int = 0
    most_at_once: int = 0
    writes: list[dict[str, Any]] = field(default_factory=list)
    methods: dict[str, int] = field(default_factory=dict)


class VirtualCabinet:
    """The state behind the server; every public method may be called from any thread."""

    def __init__(self, config: CabinetConfig | None = None) -> None:
        self.config = config or CabinetConfig()
        self.lock = threading.RLock()
        self.stats = Stats()
        self.base_url = ""
        self.deployment = 0
        self.sessions: set[str] = set()
        self.busy = 0
        self.trunks: dict[int, Trunk] = {}
        self._random = random.Random(self.config.seed)
        self._fill()

    # Content

    def _fill(self) -> None:
        for number in range(self.config.trunks):
            self.add(number)

    def add(self, number: int | None = None) -> Trunk:
        """One more trunk; ids lie inside and outside of the range that old programs knew."""
        with self.lock:
            chance, number = self._random, len(self.trunks) if number is None else number
            low, high = (
                (2583691264, 2600468479),
                (400_000_000, 430_000_000),
                (3_300_000_000, 3_400_000_000),
            )[0 if number % 10 < 7 else 1 + number % 2]
            phone = f"999{number:07d}"
            password = "".join(chance.choices(PASSWORD_LETTERS, k=9)) + chance.choice(
                ["!x", '"q', "\\b(1", "=&<9", "'n", "#@", "я№", "~?"]
            )
            share = chance.random()
            trunk = Trunk(
                id=chance.randint(low, high),
                phone=phone,
                name=f"{NAMES[number % len(NAMES)]} {number}",
                extension=None if number % 11 == 0 else str(100 + number),
                password=password,
                sip_obj=chance.randint(2583691264, 2600468479),
                has_device=chance.random() > 0.1,
                enabled=chance.random() > 0.2,
                flags=(0, 0, 1, 1) if chance.random() < self.config.disabled else (1, 1, 0, 0),
                line=number % 17 != 0,
                devices=2 if number % 23 == 0 else 1,
            )
            if share < self.config.without_form:
                trunk.form = None
            elif share < self.config.without_form + self.config.fallback_form:
                trunk.form = 32
            self.trunks[trunk.id] = trunk
            return trunk

    def by_phone(self, phone: str) -> Trunk:
        return next(t for t in self.trunks.values() if phone.endswith(t.phone))

    # Deployments

    def redeploy(self) -> None:
        """Another compilation: new permutation, policies, checksum and ordinals; all sessions end."""
        with self.lock:
            self.deployment += 1
            self.sessions.clear()

    def hashed(self, name: str) -> str:
        return hashlib.md5(f"{name} {self.deployment}".encode()).hexdigest().upper()

    @property
    def permutation(self) -> str:
        return self.hashed("permutation")

    @property
    def policies(self) -> dict[str, str]:
        names = ("DispatcherGwtService", "AbonentBrowserGwtService", "AbonentDeviceFormGwtService")
        return {name: self.hashed(name) for name in names}

    @property
    def forms(self) -> list[str]:
        """The constants of the enum of forms; each deployment has one more before the others."""
        return [*(f"NEW_{n}" for n in range(self.deployment)), *FORMS]

    @property
    def dispatcher(self) -> str:
        known = zlib.crc32((DISPATCHER + "".join(self.forms)).encode())
        return f"{DISPATCHER}/{known if self.deployment else 4095484021}"

    def layouts(self) -> dict[str, Any]:
        return {
            LONG: "long",
            BOOLEAN: "bool",
            INTEGER: "int",
            ARRAY_LIST: "list",
            MIGRATION: "int",
            self.dispatcher: "int",
            REQUEST: "o" * 11,
            RECORD: "o",
            DEVICE_FORM: "oo" + "s" * 6 + "oo" + "s" * 5 + "oo",
            DEVICE_RECORD: "oboo" + "s" * 7 + "obso",
        }

    # Sessions

    def log_in(self, login: str, password: str) -> str | None:
        """A new session, or None for a wrong pair."""
        with self.lock:
            if (login, password) != (self.config.login, self.config.password):
                self.stats.failed_logins += 1
                return None
            session = secrets.token_hex(12) + "1"
            self.sessions.add(session)
            self.stats.logins += 1
            return session

    # Services

    def dialect(self) -> Dialect:
        return Dialect(self.config.modern, self.config.array_part, self.config.string_part)

    def execute(self, endpoint: str, call: Call) -> str:
        """The body of the answer."""
        with self.lock:
            if call.policy != self.policies.get(endpoint):
                raise Incompatible("The serialization policy of this call is not known")
            self.stats.methods[call.method] = self.stats.methods.get(call.method, 0) + 1
            services = {
                ("AbonentBrowserGwtService", "list"): self._list,
                ("DispatcherGwtService", "getForm"): self._get_form,
                ("DispatcherGwtService", "updateForm"): self._update_form,
                ("AbonentDeviceFormGwtService", SWITCH): self._switch,
            }
            service = services.get((endpoint, call.method))
            if service is None:
                raise Incompatible(f"Could not locate requested method '{call.method}'")
            return service(call)

    def _list(self, call: Call) -> str:
        fields = call.parameters[0][1]
        scope, page, size = fields[5], fields[8], fields[9]
        if scope != self.config.enterprise:
            return thrown(APPLICATION, "Нет доступа к договору", self.dialect())
        trunks = list(self.trunks.values())
        if self.config.clamp and trunks:
            page = min(page, (len(trunks) - 1) // size)
        row = (
            MODELS
            + f"browser.AbonentBrowserRecordGWTModel/{1000000007 if self.config.changed_row else 2954417083}"
        )
        rows = [self._row(row, t) for t in trunks[page * size : (page + 1) * size]]
        total = boxed(len(trunks)) if self.config.totals else None
        root = Obj(
            MODELS + "browser.AbonentBrowserResponseGWTModel/1187230456",
            [("obj", total), ("obj", array_list(rows))],
        )
        return answer(root, self.dialect())

    @staticmethod
    def _row(signature: str, trunk: Trunk) -> Obj:
        w4, w6, w7, w9 = trunk.flags
        strings = [("str", trunk.name), ("str", trunk.phone), ("str", trunk.extension)]
        numbers = [("int", n) for n in (0, 0, 0, w9, 0, w7, w6)]
        rest = [("str", "Без группы"), ("int", w4), ("int", 0), ("int", 0), ("obj", boxed(trunk.id))]
        return Obj(signature, [*strings, *numbers, *rest])

    def _form_number(self, ordinal: int) -> int | None:
        name = self.forms[ordinal] if 0 <= ordinal < len(self.forms) else ""
        return {"ABONENT_DEVICE_FORM": 31, "ABONENT_SIP_FORM": 32}.get(name)

    def _get_form(self, call: Call) -> str:
        abonent, ordinal = call.parameters
        trunk, number = self.trunks.get(abonent), self._form_number(ordinal)
        if trunk is None or number is None or trunk.form != number:
            return thrown(APPLICATION, "Для абонента не найдена форма устройств", self.dialect())
        if trunk.broken == "stranger":
            trunk = next(t for t in self.trunks.values() if t.id != trunk.id)
        text = answer(self._device_form(trunk) if number == 31 else self._sip_form(trunk), self.dialect())
        return text[: len(text) // 2] if trunk.broken == "cut" else text

    def _device_form(self, trunk: Trunk) -> Obj:
        ids = [
            boxed(trunk.id),
            boxed(trunk.sip_obj),
            boxed(self.config.enterprise),
            Obj(INTEGER, [("int", 1)]),
        ]
        count = trunk.devices if trunk.has_device else 0
        devices = array_list([self._record(trunk, ids, trunk.enabled and n == 0) for n in range(count)])
        host = "pov.vpbx.mts.ru"
        strings = ["Москва", None, "GMT+03:00", None, f"10.160.0.{trunk.id % 250}", host]
        more = ["5060", f"sip_{trunk.phone}_1", trunk.password, "UDP", host]
        template = self._record(trunk, ids, True)
        fields = [("obj", devices), ("obj", array_list([])), *(("str", s) for s in strings)]
        fields += [
            ("obj", template),
            ("obj", ids[2]),
            *(("str", s) for s in more),
            ("str", None),
            ("obj", ids[0]),
        ]
        return Obj(DEVICE_FORM, fields)

    @staticmethod
    def _record(trunk: Trunk, ids: list[Obj | None], enabled: bool) -> Obj:
        line = f"mobsip_{trunk.phone}" if trunk.line else None
        texts = [line, None, None, "SIP-phone", None, None, None]
        head = [("obj", ids[0]), ("int", enabled), ("obj", ids[1]), ("obj", ids[2])]
        tail = [("obj", ids[3]), ("int", 1), ("str", "Generic SIP Phone"), ("obj", None)]
        return Obj(DEVICE_RECORD, [*head, *(("str", t) for t in texts), *tail])

    @staticmethod
    def _sip_form(trunk: Trunk) -> Obj:
        blocked = Obj(BLOCKED, [("int", 0)])
        strings = [trunk.phone, "pov.vpbx.mts.ru", "UDP", trunk.password, "SIP-phone"]
        fields = [("str", f"sip_{trunk.phone}_1"), ("obj", blocked), *(("str", s) for s in strings)]
        return Obj(SIP_FORM, [*fields, ("obj", boxed(trunk.id))])

    def _update_form(self, call: Call) -> str:
        (_, form), ordinal = call.parameters
        trunk = self.trunks.get(form[16])
        if trunk is None or self._form_number(ordinal) != 31:
            return thrown(APPLICATION, "Форма не найдена", self.dialect())
        installed = [record[1] for record in form[0]]
        for record in installed:
            wanted = (trunk.id, trunk.sip_obj, self.config.enterprise)
            if (record[0], record[2], record[3]) != wanted:
                return thrown(APPLICATION, "Устройство принадлежит другому абоненту", self.dialect())
        trunk.has_device, trunk.devices = bool(installed), max(1, len(installed))
        trunk.enabled = any(record[1] for record in installed)
        self._wrote("updateForm", trunk)
        return answer(self._device_form(trunk), self.dialect())

    def _switch(self, call: Call) -> str:
        abonent, enabled = call.parameters
        trunk = self.trunks.get(abonent)
        if trunk is None or not trunk.has_device:
            return thrown(APPLICATION, "Устройство не найдено", self.dialect())
        trunk.enabled = enabled
        self._wrote(SWITCH, trunk)
        return "//OK[0,[],0,7]"

    def _wrote(self, method: str, trunk: Trunk) -> None:
        state = {"has_device": trunk.has_device, "enabled": trunk.enabled}
        self.stats.writes.append({"method": method, "id": trunk.id, "link": long_text(trunk.id), **state})
