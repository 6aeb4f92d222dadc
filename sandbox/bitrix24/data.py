"""Invented, reproducible values: a row is a pure function of (seed, entity, id).

A row has a *profile* (one of `PROFILES` archetypes, which fixes texts, stages and other repeating
values) and a few *own* columns computed from the id. Profiles let filters run on numpy arrays and
pages be rendered from prepared fragments.

Canonical values: None for empty, int/float/str, unix seconds for `datetime`, days since 1970 for
`date`, bool for `boolean`, list for multiple fields.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sandbox.bitrix24.fields import FieldSpec

PROFILES = 512
DAY = 86400
_MASK = (1 << 64) - 1


class Gappy(list[Any]):
    """A multiple value after removals: PHP keeps the gaps and serialises it as an object."""


def mix(value: int) -> int:
    """splitmix64 finaliser: 63 well-mixed bits of an integer."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return (value ^ (value >> 31)) >> 1


def mix_array(values: np.ndarray, salt: int) -> np.ndarray:
    """`mix(value + salt)` of an int64 array; returns int64 of the same length."""
    with np.errstate(over="ignore"):
        x = values.astype(np.uint64) + np.uint64((salt + 0x9E3779B97F4A7C15) & _MASK)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((x ^ (x >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)


def salt_of(seed: int, *parts: object) -> int:
    """A number from a seed and names; independent of hash randomisation."""
    return mix(seed * 1_000_003 + zlib.crc32(":".join(map(str, parts)).encode()))


def pick(pool: Any, h: int) -> Any:
    return pool[h % len(pool)]


@dataclass(frozen=True)
class Stage:
    code: str
    name: str
    semantics: str
    """P in progress, S success, F failure."""


@dataclass(frozen=True)
class World:
    """What generators need to know about the portal: sizes for references, time, stages."""

    seed: int
    epoch: int
    users: int
    sizes: dict[int, int]
    """Approximate greatest id by entityTypeId."""


_STAGES = (
    Stage("NEW", "Новая", "P"),
    Stage("PREPARATION", "Подготовка документов", "P"),
    Stage("EXECUTING", "В работе", "P"),
    Stage("FINAL_INVOICE", "Финальный счёт", "P"),
    Stage("WON", "Сделка успешна", "S"),
    Stage("LOSE", "Сделка провалена", "F"),
    Stage("APOLOGY", "Анализ причины провала", "F"),
)
_LEAD_STAGES = (
    Stage("NEW", "Не обработан", "P"),
    Stage("IN_PROCESS", "В работе", "P"),
    Stage("PROCESSED", "Обработан", "P"),
    Stage("CONVERTED", "Качественный лид", "S"),
    Stage("JUNK", "Некачественный лид", "F"),
)
_QUOTE_STAGES = (
    Stage("DRAFT", "Новое", "P"),
    Stage("SENT", "Отправлено клиенту", "P"),
    Stage("APPROVED", "Принято", "S"),
    Stage("DECLAINED", "Отклонено", "F"),
)
_ITEM_STAGES = (
    Stage("NEW", "Начало", "P"),
    Stage("PREPARATION", "Подготовка", "P"),
    Stage("CLIENT", "Согласование", "P"),
    Stage("SUCCESS", "Успех", "S"),
    Stage("FAIL", "Провал", "F"),
)


def stages_of(type_id: int, category: int) -> tuple[Stage, ...]:
    """Stages of one funnel with portal codes: `C1:NEW`, `DT177_9:NEW`."""
    if type_id == 1:
        return _LEAD_STAGES
    if type_id == 7:
        return _QUOTE_STAGES
    if type_id == 2:
        prefix = f"C{category}:" if category else ""
        return tuple(Stage(prefix + s.code, s.name, s.semantics) for s in _STAGES)
    return tuple(Stage(f"DT{type_id}_{category}:{s.code}", s.name, s.semantics) for s in _ITEM_STAGES)


STATUSES: dict[str, tuple[tuple[str, str], ...]] = {
    "SOURCE": (
        ("CALL", "Звонок"),
        ("WEB", "Веб-сайт"),
        ("EMAIL", "Электронная почта"),
        ("ADVERTISING", "Реклама"),
        ("PARTNER", "Существующий&nbsp;клиент"),
        ("RECOMMENDATION", "По рекомендации"),
        ("CALLBACK", "Обратный звонок"),
    ),
    "DEAL_TYPE": (("SALE", "Продажа"), ("COMPLEX", "Комплексная продажа"), ("SERVICES", "Услуги")),
    "CONTACT_TYPE": (("CLIENT", "Клиенты"), ("SUPPLIER", "Поставщики"), ("PARTNER", "Партнёры")),
    "COMPANY_TYPE": (("CUSTOMER", "Клиент"), ("SUPPLIER", "Поставщик"), ("COMPETITOR", "Конкурент")),
    "INDUSTRY": (("IT", "Информационные технологии"), ("TRADE", "Торговля"), ("BUILDING", "Строительство")),
    "EMPLOYEES": (("EMPLOYEES_1", "менее 50"), ("EMPLOYEES_2", "50-250"), ("EMPLOYEES_3", "250-500")),
    "HONORIFIC": (("HNR_RU_1", "г-н"), ("HNR_RU_2", "г-жа")),
}
CURRENCIES = ("RUB", "RUB", "RUB", "RUB", "USD", "EUR")

_TITLES = (
    "Поставка насосов для",
    "Сделка «Ремонт офиса»",
    'Договор "Обслуживание сетей"',
    "Монтаж вентиляции & кондиционеров",
    "Закупка оборудования <срочно>",
    "Аренда спецтехники",
    "Внедрение CRM 🚀",
    "Проект\tскладского комплекса",
)
_NAMES = ("Анна", "Иван", "Мария", "Пётр", "Ольга", "Сергей", "Наталья", "Дмитрий", "Зоя", "Жан-Поль")
_PATRONYMICS = ("Сергеевна", "Иванович", "Петровна", "Алексеевич", "", "Олеговна", "Ильич")
_SURNAMES = ("Иванова", "Смирнов", "Кузнецова", "О'Коннор", "Салтыков-Щедрин", "Ким", "Ёлкина", "Орлов")
_COMPANIES = ("ООО «Ромашка»", 'АО "Вектор"', "ИП Сидоров А. А.", "ПАО Север", "ООО Д'Артаньян", "ТОО Алтын")
_COMMENTS = (
    "[B]Важно:[/B] клиент просил перезвонить после 15:00",
    "Коммерческое предложение отправлено.\r\nЖдём ответа до пятницы.",
    "[LIST]\n[*]Доставка\n[*]Монтаж\n[/LIST]",
    'Просит скидку 10%, говорит: "у конкурентов дешевле"',
    "Оплата&nbsp;по&nbsp;частям; путь C:\\Документы\\договор.docx",
    "Отличный клиент 😊👍🏽 — берёт всё 🏗️",
    "Адрес: ул. Ленина, д. 5, кв. 12",
    "[URL=https://example.com/?a=1&b=2]ссылка на ТЗ[/URL]",
    "табуляция\tи \u2028 разделитель строк",
    "1",
)
_CONTROL_COMMENT = "сбой копирования\x00\x0b из почты\x1f"
_SURROGATE_COMMENT = "обрезанный смайлик \ud800 в письме"
_CITIES = ("Москва", "Санкт-Петербург", "Казань", "Нижний Новгород", "Ростов-на-Дону", "Йошкар-Ола")
_POSTS = ("Директор", "Главный инженер", "Менеджер по закупкам", "Бухгалтер")
_STREETS = ("ул. Ленина, д. 5", "пр-т Мира, 101, корп. 2", "Невский пр., д. 28 лит. А", "наб. Победы, 3")
_UTM = {
    "UTM_SOURCE": ("yandex", "google", "vk", "telegram"),
    "UTM_MEDIUM": ("cpc", "organic", "email"),
    "UTM_CAMPAIGN": ("spring_sale", "brand|moscow", "ретаргетинг"),
    "UTM_CONTENT": ("banner_1", "text{keyword}"),
    "UTM_TERM": ("насосы купить", "crm цена", "ремонт офиса"),
}
_TEXTS: dict[str, tuple[str, ...]] = _UTM | {
    "NAME": _NAMES,
    "SECOND_NAME": _PATRONYMICS,
    "LAST_NAME": _SURNAMES,
    "COMPANY_TITLE": _COMPANIES,
    "COMMENTS": _COMMENTS,
    "DESCRIPTION": _COMMENTS,
    "SOURCE_DESCRIPTION": ("Форма на сайте", "Пришёл с выставки «Стройка»", "звонок на 8-800"),
    "STATUS_DESCRIPTION": ("не дозвонились", "дубль"),
    "ADDITIONAL_INFO": ("заметка менеджера", 'a:1:{s:3:"key";s:1:"v";}'),
    "POST": _POSTS,
    "ADDRESS": _STREETS,
    "ADDRESS_CITY": _CITIES,
    "ADDRESS_COUNTRY": ("Россия", "Казахстан"),
    "ADDRESS_POSTAL_CODE": ("101000", "190000", "420111"),
    "BANKING_DETAILS": ("р/с 40702810000000000000 в банке «Пример»",),
    "CONTENT": ("Предлагаем рассмотреть наше предложение.",),
    "TERMS": ("Оплата 50% аванс, 50% по факту",),
    "SUBJECT": ("Исходящий звонок", "Встреча с клиентом", "Письмо: счёт №12", "Задача: подготовить КП"),
    "LOCATION": ("Офис", "Zoom"),
    "ORIGINATOR_ID": ("1C", "SITE"),
}
_MOSTLY_EMPTY = {
    "ADDRESS_2", "ADDRESS_REGION", "ADDRESS_PROVINCE", "ORIGINATOR_ID", "ORIGIN_ID", "UTM_CONTENT",
    "UTM_TERM", "UTM_CAMPAIGN", "ADDITIONAL_INFO", "LOCATION_ID", "QUOTE_ID", "STATUS_DESCRIPTION", "PHOTO",
    "LOGO",    "XML_ID", "WEBFORM_ID", "PARENT_ID_142", "PARENT_ID_149", "PARENT_ID_185",
}  # fmt: skip
_NEVER_EMPTY = {
    "CREATED_BY_ID",
    "MODIFY_BY_ID",
    "MOVED_BY_ID",
    "CREATED_BY",
    "UPDATED_BY",
    "AUTHOR_ID",
    "EDITOR_ID",
    "ASSIGNED_BY_ID",
    "RESPONSIBLE_ID",
    "CURRENCY_ID",
    "NAME",
    "SUBJECT",
    "CATEGORY_ID",
    "TYPE_ID",
}
_PROVIDERS = ("CRM_MEETING", "VOXIMPLANT_CALL", "CRM_EMAIL", "IMOPENLINES_SESSION")
_SMALL_INTEGERS: dict[str, tuple[int, ...]] = {
    "PRIORITY": (1, 2, 3), "STATUS": (1, 2), "NOTIFY_TYPE": (0, 1), "DESCRIPTION_TYPE": (1, 2, 3),
    "DIRECTION": (0, 1, 2), "NOTIFY_VALUE": (0, 15), "PROBABILITY": (0, 10, 50, 99),
}  # fmt: skip


def _text(name: str, h: int) -> str | None:
    pool = _TEXTS.get(name)
    if name in ("COMMENTS", "DESCRIPTION"):
        rare = h % 97
        if rare == 0:
            return _CONTROL_COMMENT
        if rare == 1 and name == "COMMENTS":
            return _SURROGATE_COMMENT
    if pool is not None:
        return pick(pool, h)
    return f"{pick(_POSTS, h)} {h % 1000}"


def _single(world: World, spec: FieldSpec, h: int) -> Any:
    kind, name = spec.type, spec.name
    if name in _SMALL_INTEGERS:
        return pick(_SMALL_INTEGERS[name], h)
    match kind:
        case "char":
            return "Y" if h % 3 == 0 else "N"
        case "boolean":
            return h % 3 == 0
        case "integer" | "crm_entity" | "location":
            return h % 100 + 1
        case "double":
            return (h % 2_000_000) / 100 if h % 4 else float(h % 20_000)
        case "crm_currency":
            return pick(CURRENCIES, h)
        case "crm_status":
            return pick(STATUSES.get(spec.status_type or "", STATUSES["SOURCE"]), h)[0]
        case "user" | "employee":
            return 1 + h % world.users
        case "crm_lead" | "crm_deal" | "crm_contact" | "crm_company" | "crm_quote":
            number = {"crm_lead": 1, "crm_deal": 2, "crm_contact": 3, "crm_company": 4, "crm_quote": 7}[kind]
            return 1 + h % max(1, world.sizes.get(number, 1))
        case "date":
            return world.epoch // DAY - h % 1000
        case "datetime":
            return world.epoch - h % (1000 * DAY)
        case "enumeration":
            return pick(spec.items, h)[0] if spec.items else None
        case "money":
            return f"{(h % 9_000_000) / 100:.2f}|{pick(CURRENCIES, h >> 9)}"
        case "address":
            return f"{pick(_CITIES, h)}, {pick(_STREETS, h >> 5)}|;|{h % 900 + 1}"
        case "url":
            return f"https://example.com/{h % 997}?from=crm&n={h % 7}"
        case "file" | "diskfile":
            return 1000 + h % 90000
        case "crm":
            return f"{pick(('D', 'C', 'CO', 'L', 'SI', 'Tb1'), h)}_{h % 50 + 1}"
        case "crm_enum_ownertype" | "crm_enum_activitytype":
            return h % 4 + 1
        case "object":
            return {"AUTHOR": str(h % 9)} if h % 2 else None
    return _text(name, h)


def profile_value(world: World, spec: FieldSpec, salt: int) -> Any:
    """Canonical value of a repeating column for one profile (`salt` names the profile)."""
    if spec.user_field and not spec.filled:
        return [] if spec.multiple else None
    h = mix(salt ^ zlib.crc32(spec.name.encode()))
    if spec.multiple:
        values = [_single(world, spec, mix(h + n)) for n in range(h % 4)]
        return Gappy(values) if len(values) > 1 and h % 5 == 0 else values
    share = 9 if spec.name in _MOSTLY_EMPTY else 0 if spec.name in _NEVER_EMPTY else 2
    if spec.type not in ("char", "boolean") and (h >> 20) % 10 < share:
        return None
    return _single(world, spec, h >> 3)


def stage_bundle(type_id: int, categories: tuple[int, ...], h: int) -> dict[str, Any]:
    """Columns that must agree with one another: funnel, stage, semantics, closed."""
    category = pick(categories or (0,), h)
    stages = stages_of(type_id, category)
    stage = pick(stages, h >> 7)
    closed = "N" if stage.semantics == "P" else "Y"
    return {
        "CATEGORY_ID": category,
        "STAGE_ID": stage.code,
        "STATUS_ID": stage.code,
        "STAGE_SEMANTIC_ID": stage.semantics,
        "STATUS_SEMANTIC_ID": stage.semantics,
        "PREVIOUS_STAGE_ID": pick(stages, h >> 11).code if stage is not stages[0] else None,
        "CLOSED": closed,
        "IS_NEW": "Y" if stage is stages[0] else "N",
    }


OwnColumn = Callable[[int, int, int, int], Any]
"""(id, hash, created, modified) -> canonical value."""


def _phones(i: int, h: int) -> list[dict[str, Any]]:
    number = f"+7 (9{h % 90 + 10}) {h % 900 + 100:03d}-{h % 89 + 10}-{i % 90 + 10}"
    rows = [{"ID": i * 10 + 1, "VALUE_TYPE": "WORK", "VALUE": number, "TYPE_ID": "PHONE"}]
    if h % 3 == 0:
        rows.append({"ID": i * 10 + 2, "VALUE_TYPE": "MOBILE", "VALUE": f"+7999{i:07d}", "TYPE_ID": "PHONE"})
    return rows if h % 6 else []


def _emails(i: int, h: int) -> list[dict[str, Any]]:
    address = f"client{i}@example.com"
    return [{"ID": i * 10 + 5, "VALUE_TYPE": "WORK", "VALUE": address, "TYPE_ID": "EMAIL"}] if h % 4 else []


def _webs(i: int, h: int) -> list[dict[str, Any]]:
    rows = [{"ID": i * 10 + 7, "VALUE_TYPE": "WORK", "VALUE": f"https://site{i}.example", "TYPE_ID": "WEB"}]
    return rows if h % 9 == 0 else []


def own_columns(world: World, type_id: int) -> dict[str, OwnColumn]:
    """Columns computed from the id, for a CRM entity; names the entity lacks are simply not used."""
    contacts, companies = max(1, world.sizes.get(3, 1)), max(1, world.sizes.get(4, 1))
    leads, deals = max(1, world.sizes.get(1, 1)), max(1, world.sizes.get(2, 1))

    def contact(h: int) -> int | None:
        return None if h % 5 == 0 else 1 + (h >> 9) % contacts

    def contact_list(h: int) -> list[int]:
        first = contact(h)
        if first is None:
            return []
        others = [1 + (h >> (12 + n)) % contacts for n in range((h >> 5) % 3)]
        return [first, *dict.fromkeys(x for x in others if x != first)]

    def company(h: int) -> int | None:
        return None if h % 4 == 0 else 1 + (h >> 13) % companies

    def company_list(h: int) -> list[int]:
        first = company(h)
        return [] if first is None else [first] if h % 8 else [first, first % companies + 1]

    columns: dict[str, OwnColumn] = {
        "ID": lambda i, h, c, m: i,
        "TITLE": lambda i, h, c, m: f"{_TITLES[h % len(_TITLES)]} №{i}",
        "OPPORTUNITY": lambda i, h, c, m: (h >> 4) % 50_000_000 / 100 if h % 7 else 0.0,
        "COMPANY_ID": lambda i, h, c, m: company(h),
        "CONTACT_ID": lambda i, h, c, m: contact(h),
        "CONTACT_IDS": lambda i, h, c, m: contact_list(h),
        "COMPANY_IDS": lambda i, h, c, m: company_list(h),
        "LEAD_ID": lambda i, h, c, m: 1 + (h >> 17) % leads if h % 6 == 0 else None,
        "PARENT_ID_2": lambda i, h, c, m: 1 + (h >> 17) % deals if h % 3 else None,
        "MOVED_TIME": lambda i, h, c, m: c + (m - c) // 2,
        "LAST_ACTIVITY_TIME": lambda i, h, c, m: c + (m - c) // 3,
        "BEGINDATE": lambda i, h, c, m: c // DAY if h % 10 else None,
        "CLOSEDATE": lambda i, h, c, m: c // DAY + 7 + h % 60 if h % 11 else None,
        "DATE_CLOSED": lambda i, h, c, m: m if h % 3 == 0 else None,
        "HAS_PHONE": lambda i, h, c, m: "Y" if _phones(i, h) else "N",
        "HAS_EMAIL": lambda i, h, c, m: "Y" if _emails(i, h) else "N",
        "PHONE": lambda i, h, c, m: _phones(i, h),
        "EMAIL": lambda i, h, c, m: _emails(i, h),
        "WEB": lambda i, h, c, m: _webs(i, h),
        "IM": lambda i, h, c, m: [],
        "LINK": lambda i, h, c, m: [],
        "QUOTE_NUMBER": lambda i, h, c, m: str(i),
        "ACCOUNT_NUMBER": lambda i, h, c, m: f"{i}/{1970 + c // (365 * DAY)}",
    }
    if type_id == 4:
        columns["TITLE"] = lambda i, h, c, m: f"{_COMPANIES[h % len(_COMPANIES)]} ({i})"
    for name in ("DATE_CREATE", "CREATED_TIME", "CREATED"):
        columns[name] = lambda i, h, c, m: c
    for name in ("DATE_MODIFY", "UPDATED_TIME", "LAST_UPDATED"):
        columns[name] = lambda i, h, c, m: m
    return columns


def activity_columns(world: World) -> dict[str, OwnColumn]:
    """Own columns of activities; owners are deals."""
    deals = max(1, world.sizes.get(2, 1))

    def owner(h: int) -> int:
        return 1 + (h >> 15) % deals

    def bindings(i: int, h: int) -> list[dict[str, Any]]:
        return [{"ID": str(i), "OWNER_ID": str(owner(h)), "OWNER_TYPE_ID": "2"}]

    return own_columns(world, 0) | {
        "OWNER_ID": lambda i, h, c, m: owner(h),
        "OWNER_TYPE_ID": lambda i, h, c, m: 2,
        "TYPE_ID": lambda i, h, c, m: (1, 2, 2, 2, 4, 6)[h % 6],
        "PROVIDER_ID": lambda i, h, c, m: _PROVIDERS[h % 4],
        "START_TIME": lambda i, h, c, m: c,
        "END_TIME": lambda i, h, c, m: c + 900 + h % 3600,
        "DEADLINE": lambda i, h, c, m: c + DAY if h % 3 else None,
        "BINDINGS": lambda i, h, c, m: bindings(i, h),
        "COMMUNICATIONS": lambda i, h, c, m: [],
        "FILES": lambda i, h, c, m: [],
    }


def id_array(count: int, gaps: float, salt: int) -> np.ndarray:
    """`count` ascending ids from 1 with about `gaps` of the range missing."""
    numbers = np.arange(count, dtype=np.int64)
    if gaps <= 0 or not count:
        return numbers + 1
    mean = gaps / (1 - gaps)
    whole, fraction = divmod(mean, 1.0)
    unit = mix_array(numbers, salt) % 1_000_000 / 1e6
    skipped = np.full(count, int(whole), dtype=np.int64) + (unit < fraction)
    skipped[0] = 0
    return numbers + 1 + np.cumsum(skipped)


def time_arrays(ids: np.ndarray, hashes: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """(created, modified) unix seconds: ids grow with time over three years, changes end at `epoch`."""
    if not len(ids):
        return ids.copy(), ids.copy()
    span = 3 * 365 * DAY
    start = epoch - span
    step = span / (len(ids) + 1)
    jitter = (hashes >> 7) % 1000 / 1000 * step
    created = (start + np.arange(len(ids)) * step + jitter).astype(np.int64)
    unit = (hashes >> 17) % 1_000_000 / 1e6
    modified = created + ((epoch - created) * unit**3).astype(np.int64)
    return created, modified
