"""Field metadata of CRM entities: names, types, titles, and the two naming worlds.

Names and types follow the documented answers of `crm.<entity>.fields` and `crm.item.fields`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

EnumItem = tuple[int, str]


@dataclass(frozen=True)
class FieldSpec:
    """One field. `name` is the classic UPPER name, `camel` the key used by crm.item.*."""

    name: str
    type: str
    title: str
    camel: str
    multiple: bool = False
    read_only: bool = False
    immutable: bool = False
    required: bool = False
    deprecated: bool = False
    status_type: str | None = None
    parent_type: int | None = None
    user_field: bool = False
    items: tuple[EnumItem, ...] = ()
    classic: bool = True
    universal: bool = True
    filled: bool = True
    uf_id: int = 0

    def descriptor(self, universal: bool) -> dict[str, Any]:
        """The metadata object of this field; `upperName` only in crm.item.fields."""
        result: dict[str, Any] = {
            "type": self.type,
            "isRequired": self.required,
            "isReadOnly": self.read_only,
            "isImmutable": self.immutable,
            "isMultiple": self.multiple,
            "isDynamic": self.user_field,
        }
        if self.deprecated:
            result["isDeprecated"] = True
        if self.status_type:
            result["statusType"] = self.status_type
        if self.items:
            result["items"] = [{"ID": str(number), "VALUE": value} for number, value in self.items]
        result["title"] = self.name if self.user_field and not universal else self.title
        if self.user_field:
            result |= {"listLabel": self.title, "formLabel": self.title, "filterLabel": self.title}
        if self.parent_type is not None:
            result["settings"] = {"parentEntityTypeId": self.parent_type}
        if universal:
            result["upperName"] = self.name
        return result


_IRREGULAR = {
    "DATE_CREATE": "createdTime",
    "DATE_MODIFY": "updatedTime",
    "CREATED_BY_ID": "createdBy",
    "MODIFY_BY_ID": "updatedBy",
    "MOVED_BY_ID": "movedBy",
}
_IRREGULAR_BY_TYPE = {
    1: {"STATUS_ID": "stageId", "STATUS_SEMANTIC_ID": "stageSemanticId"},
    4: {"COMPANY_TYPE": "typeId"},
    7: {"STATUS_ID": "stageId"},
}


def camel_name(name: str) -> str:
    """`PARENT_ID_142` -> `parentId142`."""
    head, *tail = name.lower().split("_")
    return head + "".join(part.capitalize() for part in tail)


def user_field_camel(name: str) -> str:
    """Irregular on the portal: digits and mixed names keep part of the original spelling.

    `UF_CRM_3_DIGIT` -> `ufCrm3Digit`, `UF_CRM_3_1747309727` -> `ufCrm3_1747309727`,
    `UF_CRM_3_DIGIT10` -> `ufCrm_3_DIGIT10`, `UF_CRM_1747309879` -> `ufCrm_1747309879`.
    """
    rest = name.removeprefix("UF_CRM_")
    owner = re.match(r"(\d{1,4})_(?=.)", rest)
    prefix = owner.group(1) if owner else ""
    tail = rest[owner.end() :] if owner else rest
    if tail.isdigit():
        return f"ufCrm{prefix}_{tail}"
    if re.search(r"\d", tail):
        return f"ufCrm_{rest}"
    return "ufCrm" + prefix + "".join(part.capitalize() for part in tail.lower().split("_"))


def _parse(table: str, type_id: int) -> tuple[FieldSpec, ...]:
    irregular = (_IRREGULAR if type_id in (1, 2, 3, 4, 7) else {}) | _IRREGULAR_BY_TYPE.get(type_id, {})
    fields = []
    for line in table.strip().splitlines():
        name, kind, title, *flags = (part.strip() for part in line.split("|"))
        options: dict[str, Any] = {}
        for flag in flags[0].split() if flags else ():
            key, _, value = flag.partition("=")
            if key == "status":
                options["status_type"] = value
            elif key == "parent":
                options["parent_type"] = int(value)
            else:
                attribute = {"ro": "read_only", "im": "immutable", "multi": "multiple"}.get(key, key)
                options[attribute] = value != "no"
        fields.append(FieldSpec(name, kind, title, irregular.get(name, camel_name(name)), **options))
    return tuple(fields)


_UTM = """
UTM_SOURCE|string|Рекламная система
UTM_MEDIUM|string|Тип трафика
UTM_CAMPAIGN|string|Обозначение рекламной кампании
UTM_CONTENT|string|Содержание кампании
UTM_TERM|string|Условие поиска кампании
"""
_ACTIVITY_TAIL = """
LAST_ACTIVITY_TIME|datetime|Последняя активность|ro
LAST_ACTIVITY_BY|user|Кем выполнена последняя активность|ro
"""
_MULTIFIELDS = """
PHONE|crm_multifield|Телефон|multi universal=no
EMAIL|crm_multifield|E-mail|multi universal=no
WEB|crm_multifield|Сайт|multi universal=no
IM|crm_multifield|Мессенджер|multi universal=no
LINK|crm_multifield|Ссылка|multi universal=no
"""
_ORIGIN = """
ORIGINATOR_ID|string|Внешний источник
ORIGIN_ID|string|Идентификатор элемента во внешнем источнике
"""
_PEOPLE = """
OPENED|char|Доступен для всех
COMMENTS|string|Комментарий
ASSIGNED_BY_ID|user|Ответственный
CREATED_BY_ID|user|Кем создан|ro
MODIFY_BY_ID|user|Кем изменён|ro
"""
_DATES = """
DATE_CREATE|datetime|Дата создания|ro
DATE_MODIFY|datetime|Дата изменения|ro
"""
_ADDRESS = """
ADDRESS|string|Адрес|universal=no
ADDRESS_2|string|Адрес (стр. 2)|universal=no
ADDRESS_CITY|string|Город|universal=no
ADDRESS_POSTAL_CODE|string|Почтовый индекс|universal=no
ADDRESS_REGION|string|Район|universal=no
ADDRESS_PROVINCE|string|Область|universal=no
ADDRESS_COUNTRY|string|Страна|universal=no
"""

DEAL_FIELDS = _parse(
    """
ID|integer|ID|ro
TITLE|string|Название
TYPE_ID|crm_status|Тип|status=DEAL_TYPE
CATEGORY_ID|crm_category|Воронка|im
STAGE_ID|crm_status|Стадия сделки|status=DEAL_STAGE
STAGE_SEMANTIC_ID|string|Группа стадии|ro
IS_NEW|char|Новая сделка|ro
IS_RECURRING|char|Регулярная сделка
IS_RETURN_CUSTOMER|char|Повторная сделка
IS_REPEATED_APPROACH|char|Повторное обращение
PROBABILITY|integer|Вероятность
CURRENCY_ID|crm_currency|Валюта
OPPORTUNITY|double|Сумма
IS_MANUAL_OPPORTUNITY|char|Сумма введена вручную
TAX_VALUE|double|Ставка налога
COMPANY_ID|crm_company|Компания|parent=4
CONTACT_ID|crm_contact|Контакт|deprecated
CONTACT_IDS|crm_contact|Контакты|multi
QUOTE_ID|crm_quote|Предложение|ro parent=7
BEGINDATE|date|Дата начала
CLOSEDATE|date|Дата завершения
OPENED|char|Доступна для всех
CLOSED|char|Закрыта
COMMENTS|string|Комментарий
ASSIGNED_BY_ID|user|Ответственный
CREATED_BY_ID|user|Кем создана|ro
MODIFY_BY_ID|user|Кем изменена|ro
MOVED_BY_ID|user|Кем перемещена|ro
"""
    + _DATES.strip()
    + """
MOVED_TIME|datetime|Дата перемещения|ro
SOURCE_ID|crm_status|Источник|status=SOURCE
SOURCE_DESCRIPTION|string|Дополнительно об источнике
LEAD_ID|crm_lead|Лид|ro parent=1
ADDITIONAL_INFO|string|Дополнительная информация
LOCATION_ID|location|Местоположение
"""
    + _ORIGIN.strip()
    + _UTM
    + _ACTIVITY_TAIL.strip()
    + """
PARENT_ID_142|crm_entity|Проект|parent=142
PARENT_ID_149|crm_entity|Объект|parent=149
PARENT_ID_185|crm_entity|Тендер|parent=185""",
    2,
)

LEAD_FIELDS = _parse(
    """
ID|integer|ID|ro
TITLE|string|Название лида
HONORIFIC|crm_status|Обращение|status=HONORIFIC
NAME|string|Имя
SECOND_NAME|string|Отчество
LAST_NAME|string|Фамилия
BIRTHDATE|date|Дата рождения
COMPANY_TITLE|string|Название компании
SOURCE_ID|crm_status|Источник|status=SOURCE
SOURCE_DESCRIPTION|string|Дополнительно об источнике
STATUS_ID|crm_status|Стадия|status=STATUS
STATUS_DESCRIPTION|string|Дополнительно о стадии
STATUS_SEMANTIC_ID|string|Группа стадии|ro
POST|string|Должность
"""
    + _ADDRESS.strip()
    + """
CURRENCY_ID|crm_currency|Валюта
OPPORTUNITY|double|Сумма
IS_MANUAL_OPPORTUNITY|char|Сумма введена вручную
HAS_PHONE|char|Задан телефон|ro
HAS_EMAIL|char|Задан e-mail|ro
"""
    + _PEOPLE.strip()
    + "\nMOVED_BY_ID|user|Кем перемещён|ro"
    + _DATES
    + """MOVED_TIME|datetime|Дата перемещения|ro
COMPANY_ID|crm_company|Компания|parent=4
CONTACT_ID|crm_contact|Контакт|deprecated
CONTACT_IDS|crm_contact|Контакты|multi
IS_RETURN_CUSTOMER|char|Повторный лид|ro
DATE_CLOSED|datetime|Дата закрытия|ro
"""
    + _ORIGIN.strip()
    + _UTM
    + _ACTIVITY_TAIL.strip()
    + _MULTIFIELDS,
    1,
)

CONTACT_FIELDS = _parse(
    """
ID|integer|ID|ro
HONORIFIC|crm_status|Обращение|status=HONORIFIC
NAME|string|Имя
SECOND_NAME|string|Отчество
LAST_NAME|string|Фамилия
PHOTO|file|Фотография
BIRTHDATE|date|Дата рождения
TYPE_ID|crm_status|Тип контакта|status=CONTACT_TYPE
SOURCE_ID|crm_status|Источник|status=SOURCE
SOURCE_DESCRIPTION|string|Дополнительно об источнике
POST|string|Должность
"""
    + _ADDRESS.strip()
    + "\nEXPORT|char|Участвует в экспорте контактов\n"
    + "HAS_PHONE|char|Задан телефон|ro\nHAS_EMAIL|char|Задан e-mail|ro"
    + _PEOPLE
    + _DATES.strip()
    + """
COMPANY_ID|crm_company|Компания|deprecated
COMPANY_IDS|crm_company|Компании|multi
LEAD_ID|crm_lead|Лид|ro parent=1
"""
    + _ORIGIN.strip()
    + _UTM
    + _ACTIVITY_TAIL.strip()
    + _MULTIFIELDS,
    3,
)

COMPANY_FIELDS = _parse(
    """
ID|integer|ID|ro
TITLE|string|Название компании
COMPANY_TYPE|crm_status|Тип компании|status=COMPANY_TYPE
LOGO|file|Логотип
"""
    + _ADDRESS.strip()
    + """
BANKING_DETAILS|string|Банковские реквизиты
INDUSTRY|crm_status|Сфера деятельности|status=INDUSTRY
EMPLOYEES|crm_status|Количество сотрудников|status=EMPLOYEES
CURRENCY_ID|crm_currency|Валюта
REVENUE|double|Годовой оборот
HAS_PHONE|char|Задан телефон|ro
HAS_EMAIL|char|Задан e-mail|ro
IS_MY_COMPANY|char|Моя компания
"""
    + _PEOPLE.strip()
    + _DATES
    + "LEAD_ID|crm_lead|Лид|ro parent=1\n"
    + _ORIGIN.strip()
    + _UTM
    + _ACTIVITY_TAIL.strip()
    + _MULTIFIELDS,
    4,
)

QUOTE_FIELDS = _parse(
    """
ID|integer|ID|ro
QUOTE_NUMBER|string|Номер
TITLE|string|Тема
STATUS_ID|crm_status|Статус|status=QUOTE_STATUS
CURRENCY_ID|crm_currency|Валюта
OPPORTUNITY|double|Сумма
TAX_VALUE|double|Сумма налога
COMPANY_ID|crm_company|Компания|parent=4
CONTACT_ID|crm_contact|Контакт|deprecated
CONTACT_IDS|crm_contact|Контакты|multi
MYCOMPANY_ID|crm_company|Реквизиты вашей компании
BEGINDATE|date|Дата выставления
CLOSEDATE|date|Срок
"""
    + _PEOPLE.strip()
    + _DATES
    + """CLOSED|char|Закрыто|ro
LEAD_ID|crm_lead|Лид|parent=1
DEAL_ID|crm_deal|Сделка|parent=2
CONTENT|string|Содержание
TERMS|string|Условия
"""
    + _UTM.strip(),
    7,
)

_DYNAMIC_HEAD = """
ID|integer|ID|ro
TITLE|string|Название
XML_ID|string|Внешний код
CREATED_TIME|datetime|Когда создан|ro
UPDATED_TIME|datetime|Когда обновлён|ro
CREATED_BY|user|Кем создан|ro
UPDATED_BY|user|Кем обновлён|ro
ASSIGNED_BY_ID|user|Ответственный
OPENED|boolean|Доступен для всех|required
WEBFORM_ID|integer|Создано CRM-формой
"""
_DYNAMIC_SWITCHES = {
    "isBeginCloseDatesEnabled": "BEGINDATE|date|Дата начала\nCLOSEDATE|date|Дата завершения\n",
    "isClientEnabled": (
        "COMPANY_ID|crm_company|Компания|parent=4\nCONTACT_ID|crm_contact|Контакт|deprecated\n"
        "CONTACT_IDS|crm_contact|Контакты|multi\n"
    ),
    "isObserversEnabled": "OBSERVERS|user|Наблюдатели|multi\n",
    "isStagesEnabled": (
        "MOVED_TIME|datetime|Когда перемещён|ro\nMOVED_BY|user|Кем перемещён|ro\n"
        "STAGE_ID|crm_status|Стадия|status=DYNAMIC_{type}_STAGE_{category}\n"
        "PREVIOUS_STAGE_ID|crm_status|Предыдущая стадия|ro status=DYNAMIC_{type}_STAGE_{category}\n"
    ),
    "isSourceEnabled": (
        "SOURCE_ID|crm_status|Источник|status=SOURCE\nSOURCE_DESCRIPTION|text|Дополнительно об источнике\n"
    ),
    "isLinkWithProductsEnabled": (
        "CURRENCY_ID|crm_currency|Валюта\nIS_MANUAL_OPPORTUNITY|boolean|Сумма введена вручную\n"
        "OPPORTUNITY|double|Сумма\nTAX_VALUE|double|Сумма налога\n"
    ),
    "isMycompanyEnabled": "MYCOMPANY_ID|crm_company|Реквизиты вашей компании\n",
}


def dynamic_fields(type_id: int, switches: dict[str, bool], category: int) -> tuple[FieldSpec, ...]:
    """Fields of a smart process as its switches decide; parents are deals."""
    text = _DYNAMIC_HEAD + "CATEGORY_ID|crm_category|Воронка\n"
    for switch, lines in _DYNAMIC_SWITCHES.items():
        if switches.get(switch):
            text += lines.format(type=type_id, category=category)
    text += _ACTIVITY_TAIL.strip() + "\nPARENT_ID_2|crm_entity|Сделка|parent=2\n"
    return _parse(text, type_id)


INVOICE_FIELDS = _parse(
    _DYNAMIC_HEAD
    + """ACCOUNT_NUMBER|string|Номер
COMMENTS|text|Комментарий
CATEGORY_ID|crm_category|Воронка
"""
    + "".join(
        lines.format(type=31, category=31).replace("DYNAMIC_31", "SMART_INVOICE")
        for switch, lines in _DYNAMIC_SWITCHES.items()
        if switch != "isObserversEnabled"
    )
    + _ACTIVITY_TAIL.strip()
    + "\nPARENT_ID_2|crm_entity|Сделка|parent=2\nPARENT_ID_7|crm_entity|Предложение|parent=7\n",
    31,
)

ACTIVITY_FIELDS = _parse(
    """
ID|integer|ID|ro
OWNER_ID|integer|Владелец|im
OWNER_TYPE_ID|crm_enum_ownertype|Тип владельца|im
TYPE_ID|crm_enum_activitytype|Тип|im required
PROVIDER_ID|string|Провайдер
PROVIDER_TYPE_ID|string|Тип провайдера
SUBJECT|string|Тема|required
START_TIME|datetime|Начало
END_TIME|datetime|Окончание
DEADLINE|datetime|Крайний срок
COMPLETED|char|Завершено
STATUS|crm_enum_activitystatus|Статус
RESPONSIBLE_ID|user|Ответственный|required
PRIORITY|crm_enum_activitypriority|Приоритет
NOTIFY_TYPE|crm_enum_activitynotifytype|Тип напоминания
NOTIFY_VALUE|integer|Значение напоминания
DESCRIPTION|string|Описание
DESCRIPTION_TYPE|crm_enum_contenttype|Тип описания
DIRECTION|crm_enum_activitydirection|Направление
LOCATION|string|Место
CREATED|datetime|Создано|ro
AUTHOR_ID|user|Автор|ro
LAST_UPDATED|datetime|Изменено|ro
EDITOR_ID|user|Кем изменено|ro
SETTINGS|object|Настройки
ORIGIN_ID|string|Внешний код
RESULT_VALUE|double|Результат
BINDINGS|crm_activity_binding|Связи|multi
COMMUNICATIONS|crm_activity_communication|Коммуникации|multi
FILES|diskfile|Файлы|multi
""",
    0,
)

STAGE_HISTORY_FIELDS = _parse(
    """
ID|integer|ID|ro
TYPE_ID|integer|Тип записи|ro
OWNER_ID|integer|Владелец|ro
CREATED_TIME|datetime|Дата создания|ro
CATEGORY_ID|integer|Воронка|ro
STAGE_SEMANTIC_ID|string|Группа стадии|ro
STAGE_ID|string|Стадия|ro
""",
    0,
)
LEAD_HISTORY_FIELDS = _parse(
    """
ID|integer|ID|ro
TYPE_ID|integer|Тип записи|ro
OWNER_ID|integer|Владелец|ro
CREATED_TIME|datetime|Дата создания|ro
STATUS_SEMANTIC_ID|string|Группа стадии|ro
STATUS_ID|string|Стадия|ro
""",
    0,
)

_DEMO_FIELDS: tuple[tuple[str, str, str, bool], ...] = (
    ("1700000001", "string", "Номер договора", False),
    ("CITY", "string", "Город доставки", False),
    ("TAGS", "string", "Метки", True),
    ("CHANNEL", "enumeration", "Канал продаж", False),
    ("FEATURES", "enumeration", "Пожелания клиента", True),
    ("BUDGET", "money", "Бюджет", False),
    ("BUDGETS", "money", "Бюджет по кварталам", True),
    ("SCAN", "file", "Скан договора", False),
    ("FILES", "file", "Вложения", True),
    ("IS_VIP", "boolean", "Особый клиент", False),
    ("SHIP_DATE", "date", "Дата отгрузки", False),
    ("VISITS", "date", "Дни визитов", True),
    ("CALL_AT", "datetime", "Когда позвонить", False),
    ("PLACE", "address", "Адрес объекта", False),
    ("SITE", "url", "Сайт", False),
    ("SITES", "url", "Страницы объявлений", True),
    ("ENGINEER", "employee", "Инженер", False),
    ("LINK", "crm", "Связь", False),
    ("LINKS", "crm", "Связи", True),
    ("SCORE10", "integer", "Оценка из десяти", False),
    ("RATE", "double", "Ставка", False),
    ("REGION", "crm_status", "Сфера", False),
)
ENUM_VALUES = ("Сайт", "Звонок «с улицы»", "Рекомендация", "Выставка & форум", "Повторная продажа")


def make_user_field(
    entity_prefix: str,
    code: str,
    kind: str,
    title: str,
    *,
    uf_id: int,
    multiple: bool = False,
    filled: bool = True,
    values: Iterable[str] = ENUM_VALUES,
) -> FieldSpec:
    """A user field; `entity_prefix` is empty for classic entities and `<type.id>_` for smart processes."""
    name = code if code.startswith("UF_CRM_") else f"UF_CRM_{entity_prefix}{code}"
    items = tuple((uf_id * 100 + n, text) for n, text in enumerate(values)) if kind == "enumeration" else ()
    return FieldSpec(
        name,
        kind,
        title,
        user_field_camel(name),
        multiple=multiple,
        user_field=True,
        items=items,
        filled=filled,
        uf_id=uf_id,
        status_type="INDUSTRY" if kind == "crm_status" else None,
    )


def demo_user_fields(entity_prefix: str, first_id: int) -> tuple[FieldSpec, ...]:
    """User fields of every kind, single and multiple."""
    return tuple(
        make_user_field(entity_prefix, code, kind, title, uf_id=first_id + n, multiple=multiple)
        for n, (code, kind, title, multiple) in enumerate(_DEMO_FIELDS)
    )
