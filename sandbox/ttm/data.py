"""Invented tickets. Those of a day depend on the seed and the day only, so a restart changes no past day."""

import random
from datetime import UTC, date, datetime, timedelta
from typing import Any

Ticket = dict[str, Any]

CLOSED = "Закрыт"
OPEN = "В работе"
WAITING = "Ожидание"
CLIENT = "Клиент"

UNITS = (
    "Служба приёма Север",
    "Линия 2 Сигма",
    "Инженеры доступа Юг",
    "Группа маршрутизации Вега",
    "Дежурная смена Омега",
    "Решение сетевого ТТ",
    "Вендор (ДЭФИР)",
    "Провайдер",
)
PEOPLE = tuple(
    f"{family} {name}"
    for family, name in zip(
        ("Клеверова", "Лугов", "Ручьёва", "Яблоков", "Облакова", "Мостовой", "Лесная", "Камышев"),
        ("Яна", "Тест", "Проба", "Образец", "Рада", "Демид", "Лада", "Савва"),
        strict=True,
    )
)
COMMENTS = (
    "<p>Линия восстановлена<br>клиент <b>подтвердил</b></p>",
    "Заменён модуль &lt;SFP-1&gt; &amp; перезапущен порт",
    "<div>Скорость 5 &lt; 7 Мбит/с</div><div>заявка&nbsp;повторная</div>",
    "<ul><li>кабель цел</li><li>питание есть</li></ul>",
    "<p>Доступ на площадку завтра</p>",
    "<table><tr><td>узел</td><td>N-17</td></tr></table>",
)
MOSCOW = timedelta(hours=3)
FIRST_DAY = date(2020, 1, 1).toordinal()


def stamp(when: datetime) -> str:
    """As the system prints it: UTC with milliseconds."""
    return f"{when.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{when.microsecond // 1000:03d}Z"


def closed_on(day: date, count: int, seed: int) -> list[Ticket]:
    """Tickets whose last task ended on that day, Moscow time; every twentieth is out of the ordinary."""
    rng = random.Random(f"{seed}:{day}")
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC) - MOSCOW
    tickets = []
    for number in range(count):
        closed = midnight + timedelta(seconds=rng.randrange(60, 86_340))
        ticket = _ticket(rng, _id(day, number), closed, rng.randrange(3, 8))
        if number % 20 == 19:
            _spoil(rng, ticket)
        tickets.append(ticket)
    return tickets


def suspended(rng: random.Random, number: int, now: datetime) -> Ticket:
    """A ticket of today that waits for the client."""
    began = now - timedelta(minutes=rng.randrange(5, 600))
    ticket = _ticket(rng, number, began, rng.randrange(2, 5))
    ticket |= {"status": OPEN, "closeDate": None}
    suspend(rng, ticket, began, began + timedelta(minutes=rng.randrange(60, 2000)))
    ticket["ola"]["kdSLA"] = stamp(now + timedelta(minutes=rng.randrange(-120, 900)))
    return ticket


def suspend(rng: random.Random, ticket: Ticket, when: datetime, until: datetime) -> None:
    """One more task, a wait; whatever was open ends."""
    for task in ticket["tasks"]:
        task["completionDate"] = task["completionDate"] or stamp(when)
    task = _task(rng, ticket, WAITING, CLIENT, when, None)
    ticket["tasks"].append(task | {"suspendDate": stamp(until)})


def resume(rng: random.Random, ticket: Ticket, when: datetime) -> None:
    """The wait ends, somebody works on it again."""
    for task in ticket["tasks"]:
        task["completionDate"] = task["completionDate"] or stamp(when)
    ticket["tasks"].append(_task(rng, ticket, "Решение", rng.choice(UNITS), when, None))


def close(ticket: Ticket, when: datetime) -> None:
    for task in ticket["tasks"]:
        task["completionDate"] = task["completionDate"] or stamp(when)
    ticket |= {"status": CLOSED, "closeDate": stamp(when)}


def _id(day: date, number: int) -> int:
    return 1_000_000 + (day.toordinal() - FIRST_DAY) * 10_000 + number


def _ticket(rng: random.Random, number: int, closed: datetime, tasks: int) -> Ticket:
    """A closed ticket with that many tasks, one after another; the last ends when it is closed."""
    lengths = [
        timedelta(minutes=rng.randrange(5, 90), milliseconds=rng.randrange(1000)) for _ in range(tasks)
    ]
    created = at = closed - sum(lengths, timedelta())
    limit = rng.choice((60, 120, 240, 480))
    ticket: Ticket = {
        "id": number,
        "status": CLOSED,
        "createTs": stamp(created),
        "closeDate": stamp(closed),
        "coordinatorUser": rng.choice(PEOPLE),
        "ola": {"ksSla": limit, "kdSLA": stamp(created + timedelta(minutes=limit))},
        "order": {"selectedMrf": f"Регион {rng.choice(('Луч', 'Заря', 'Ключ'))}"},
        "tasks": [],
    }
    for position, length in enumerate(lengths):
        kind = (
            "Диагностика"
            if position == 0
            else rng.choice(("Решение", "Решение", "Проверка", "Запрос клиента"))
        )
        unit = rng.choice(UNITS)
        if position and rng.random() < 0.2:
            kind, unit = WAITING, rng.choice((CLIENT, "Решение сетевого ТТ"))
        ticket["tasks"].append(_task(rng, ticket, kind, unit, at, at + length))
        at += length
    return ticket


def _task(
    rng: random.Random, ticket: Ticket, kind: str, unit: str, created: datetime, ended: datetime | None
) -> dict[str, Any]:
    position = len(ticket["tasks"]) + 1
    outside = unit in ("Вендор (ДЭФИР)", "Провайдер") and rng.random() < 0.8
    took = (ended or created + timedelta(minutes=30)) - created
    return {
        "id": ticket["id"] * 100 + position,
        "taskNumber": f"{ticket['id']}-{position}",
        "troubleTicketId": ticket["id"],
        "typeName": kind,
        "statusName": "Закрыта" if ended else "В работе",
        "createTs": stamp(created),
        "assignmentDate": stamp(created + took * rng.random()) if ended else None,
        "completionDate": stamp(ended) if ended else None,
        "suspendDate": None,
        "targetUnitName": rng.choice(UNITS[:5]),
        "taskExecutorDTO": {
            "execUnitId": 100 + len(unit),
            "execUnitName": unit,
            "executorName": rng.choice(PEOPLE),
        },
        "closeComment": rng.choice(COMMENTS) if ended else None,
        "taskComments": [{"comment": rng.choice(COMMENTS)} for _ in range(rng.randrange(3))],
        "foreignTicketId": f"V-{rng.randrange(10_000)}" if outside else None,
        "providerName": rng.choice(("ООО Вымпел-проба", "АО Связь-образец")) if outside else None,
    }


def _spoil(rng: random.Random, ticket: Ticket) -> None:
    task = rng.choice(ticket["tasks"][:-1])
    match rng.randrange(4):
        case 0:
            ticket["ola"]["ksSla"] = None
        case 1:
            task["completionDate"] = None
        case 2:
            task["createTs"] = "вчера"
        case _:
            task["taskExecutorDTO"] = None
