"""Users and departments of the portal, with the mixed date formats of user.get."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sandbox.bitrix24.data import DAY, World, mix, salt_of
from sandbox.bitrix24.wire import Wire

_FIRST = ("Анна", "Иван", "Мария", "Пётр", "Ольга", "Сергей", "Наталья", "Дмитрий")
_LAST = ("Иванова", "Смирнов", "Кузнецова", "Попов", "Лебедева", "Козлов", "Новикова", "Морозов")
_POSITIONS = ("Менеджер", "Руководитель отдела продаж", "Бухгалтер", "Инженер", "")
_DEPARTMENTS = ("Компания", "Отдел продаж", "Маркетинг & реклама", "Бухгалтерия", "Склад", "ИТ", "Юристы")

USER_TITLES = {
    "ID": "ID", "XML_ID": "Внешний код", "ACTIVE": "Активность", "NAME": "Имя", "LAST_NAME": "Фамилия",
    "SECOND_NAME": "Отчество", "EMAIL": "E-Mail", "LAST_LOGIN": "Последняя авторизация",
    "DATE_REGISTER": "Дата регистрации", "TIME_ZONE": "Часовой пояс", "IS_ONLINE": "Онлайн",
    "TIMESTAMP_X": "Дата изменения", "LAST_ACTIVITY_DATE": "Последняя активность",
    "PERSONAL_GENDER": "Пол", "PERSONAL_BIRTHDAY": "Дата рождения", "PERSONAL_MOBILE": "Мобильный",
    "PERSONAL_CITY": "Город", "WORK_PHONE": "Телефон компании", "WORK_POSITION": "Должность",
    "UF_EMPLOYMENT_DATE": "Дата принятия на работу", "UF_DEPARTMENT": "Подразделения",
    "UF_INTERESTS": "Интересы", "UF_PHONE_INNER": "Внутренний телефон", "USER_TYPE": "Тип",
    "PERSONAL_PHONE": "Домашний телефон", "UF_USR_SKILLS": "Навыки",
}  # fmt: skip
DEPARTMENT_TITLES = {
    "ID": "ID", "NAME": "Название подразделения", "SORT": "Сортировка",
    "PARENT": "Вышестоящее подразделение", "UF_HEAD": "Руководитель",
}  # fmt: skip


def make_user(world: World, wire: Wire, number: int, departments: int) -> dict[str, Any]:
    """One user.get row: JSON boolean ACTIVE, ISO and local dates side by side, `{}` for unknown times."""
    h = salt_of(world.seed, "user", number)
    registered = datetime.fromtimestamp(world.epoch - (h % 2000 + 1) * DAY, UTC)
    changed = datetime.fromtimestamp(world.epoch - mix(h) % (400 * DAY), UTC) + timedelta(seconds=wire.offset)
    birthday = wire.iso((h % 9000) * DAY - wire.offset) if h % 3 else ""
    return {
        "ID": str(number),
        "XML_ID": None,
        "ACTIVE": number == 1 or h % 7 != 0,
        "NAME": _FIRST[h % len(_FIRST)],
        "LAST_NAME": _LAST[(h >> 9) % len(_LAST)],
        "SECOND_NAME": "",
        "EMAIL": f"user{number}@example.com",
        "LAST_LOGIN": wire.iso(world.epoch - h % (30 * DAY)) if h % 4 else "",
        "DATE_REGISTER": f"{registered:%Y-%m-%d}T00:00:00+00:00",
        "TIME_ZONE": "" if h % 2 else "Europe/Moscow",
        "IS_ONLINE": "Y" if h % 5 == 0 else "N",
        "TIMESTAMP_X": {} if h % 3 == 0 else f"{changed:%d.%m.%Y %H:%M:%S}",
        "LAST_ACTIVITY_DATE": {} if h % 4 == 0 else f"{changed:%Y-%m-%d %H:%M:%S}",
        "PERSONAL_GENDER": ("", "M", "F")[h % 3],
        "PERSONAL_BIRTHDAY": birthday,
        "PERSONAL_MOBILE": f"+7999{number:07d}" if h % 2 else "",
        "PERSONAL_CITY": "Москва" if h % 2 else "",
        "WORK_PHONE": "",
        "WORK_POSITION": _POSITIONS[(h >> 5) % len(_POSITIONS)],
        "UF_EMPLOYMENT_DATE": wire.iso(world.epoch - h % (900 * DAY)) if h % 5 == 0 else "",
        "UF_DEPARTMENT": [1 + (h >> 3) % departments] if departments else [],
        "UF_INTERESTS": False if h % 2 else ["рыбалка", "шахматы"],
        "UF_PHONE_INNER": str(100 + number),
        "PERSONAL_PHONE": f"+7495{number:07d}",
        "UF_USR_SKILLS": ["Excel", "SQL"] if h % 2 else False,
        "USER_TYPE": "employee",
    }


def make_department(number: int) -> dict[str, Any]:
    """One department.get row: SORT is a number while ids are strings."""
    name = _DEPARTMENTS[number - 1] if number <= len(_DEPARTMENTS) else f"Отдел {number}"
    row: dict[str, Any] = {"ID": str(number), "NAME": name, "SORT": 500}
    if number > 1:
        row["PARENT"] = str(max(1, number // 2))
    row["UF_HEAD"] = str(number)
    return row
