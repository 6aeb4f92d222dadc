"""The tables that are computed from the raw logs: features, probabilities, visits of level 4 or higher."""

from __future__ import annotations

from etl_assets.metrika.fields import DATABASE
from resources.clickhouse import Column, Table
from resources.clickhouse.plain import DAY, FLOAT, INT32, UINT8, UINT16, UINT32, UINT64, WORD, moment
from resources.clickhouse.plain import plain_column as _c

SCORE = Column("score", "score", FLOAT, "Вероятность уровня 4+ по модели; NULL, если визит выбран правилом")


_KEY = (
    _c("counter_id", UINT32, "Счётчик"),
    _c("date", DAY, "День визита в часовом поясе счётчика"),
    _c("visit_id", UINT64, "Визит"),
)
_PLACE = _c("row_number", UINT32, "Место визита в выгрузке, с нуля")
_DEVICE = _c("device", UINT8, "1 компьютер, 2 телефон, 3 планшет, 4 ТВ, 0 нет данных")
_SLOTS = _c("slots", UINT16, "Занятые 15-секундные слоты от первого известного события")


def _table(name: str, comment: str, *columns: Column) -> Table:
    return Table(
        database=DATABASE,
        name=name,
        columns=(*_KEY, *columns),
        key=("counter_id", "date", "visit_id"),
        mode="replace_window",
        comment=comment,
        day="date",
        owner="counter_id",
    )


def visit_features(shown: str) -> Table:
    """One row a visit; times are shown in the zone `shown`."""
    return _table(
        "visit_features",
        "Признаки визитов для моделей уровня 4+, по одной строке на визит",
        _c("client_id", UINT64, "Посетитель (ClientID Метрики)"),
        _PLACE,
        _c("date_time", moment(shown), "Начало визита"),
        _c("visit_duration", UINT32, "Длительность, секунды; признак duration"),
        _c("page_views", INT32, "Просмотры; признак pageViews"),
        _c("bounce", UINT8, "Отказ"),
        _DEVICE,
        _c("listed_hits", UINT16, "Разных событий в watch_ids"),
        _c("known_hits", UINT16, "Сколько из них есть в журнале событий"),
        _SLOTS,
        _c("slot_range", UINT32, "Номер последнего слота; первый — 0"),
        _c("slot_density", FLOAT, "Слотов на минуту визита (плюс одна минута)"),
        _c("median_pause", FLOAT, "Медиана пауз между событиями, секунды"),
        _c("mean_pause", FLOAT, "Средняя пауза, секунды"),
        _c("std_pause", FLOAT, "Стандартное отклонение пауз, секунды"),
    )


def visit_scores() -> Table:
    """One row a visit that a model was asked about."""
    return _table(
        "visit_scores",
        "Вероятности уровня 4+ по моделям, по одной строке на визит, о котором модель спросили",
        _DEVICE,
        _c("score", FLOAT, "Вероятность уровня 4+"),
        _c("threshold", FLOAT, "Порог модели: визит выбран, если вероятность больше"),
        _c("model_version", WORD, "Версия или файл модели и начало его sha256"),
    )


def level4_visits(shown: str) -> Table:
    """One row a selected visit; times are shown in the zone `shown`."""
    return _table(
        "level4_visits",
        "Визиты уровня 4 и выше, по одной строке на визит",
        _c("client_id", UINT64, "Посетитель (ClientID Метрики)"),
        _PLACE,
        _c("date_time", moment(shown), "Начало визита"),
        _c("visit_duration", UINT32, "Длительность, секунды"),
        _DEVICE,
        SCORE,
        _c("reason", WORD, "rule: правило 180-5-5, model: вероятность выше порога"),
        _SLOTS,
        _c("model_version", WORD, "Версия или файл модели; пусто для правила"),
    )
