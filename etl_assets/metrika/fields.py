"""The two raw logs, as data: which fields are asked for, and the typed columns that they become.

Names and types: docs of the Logs API, field lists of visits (`ym:s:`) and hits (`ym:pv:`). The attribution is
written out (`lastsign`), so that a header has one spelling whatever the request's parameter says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from resources.clickhouse import Column, Table
from resources.clickhouse.plain import (
    DAY,
    FLOAT,
    INT16,
    INT32,
    INT64,
    PLACE,
    STRING,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    WORD,
    list_of,
    moment,
    scaled,
)
from resources.clickhouse.values import Kind

DATABASE = "metrika"
UTC3 = "Etc/GMT-3"  # `dateTimeUTC` and times of goals are UTC+3 whatever their names say
REQUEST_ID = "request_id"
LOCAL = Kind("local", "", lambda v, zone: v)  # stands for a time of the counter's own zone
LOCALS = Kind("locals", "", lambda v, zone: v)  # and for a list of them


@dataclass(frozen=True, slots=True)
class Log:
    """One log of the Logs API. `name` is the API's `source`, the table's and the asset's name.

    `optional` are fields that not every counter knows; without them their columns hold the default.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    about: str
    optional: frozenset[str] = frozenset()

    def fields(self, without: frozenset[str] = frozenset()) -> tuple[str, ...]:
        """Names of the API, in the order of the columns."""
        return tuple(c.source for c in self.columns if not c.context and c.source not in without)

    def table(self, shown: str, zone: str | None = None) -> Table:
        """The table, for loads from a counter of the zone `zone`; times are shown in the zone `shown`.

        Only `shown` is part of the table: counters of several zones share it.
        """
        local = {LOCAL: moment(shown), LOCALS: list_of(moment(shown))}
        columns = tuple(replace(c, kind=local.get(c.kind, c.kind)) for c in self.columns)
        return Table(
            database=DATABASE,
            name=self.name,
            columns=columns,
            key=self.key,
            mode="replace_window",
            comment=self.about,
            zone=zone or shown,
            day="date",
            owner="counter_id",
        )


def _c(name: str, field: str, kind: Kind, comment: str = "") -> Column:
    return Column(name, field, kind, comment, plain=True)


def _key(name: str, field: str, kind: Kind, comment: str) -> Column:
    return replace(_c(name, field, kind, comment), required=True)


def _utm(prefix: str) -> Iterator[Column]:
    for mark, kind in (
        ("Source", WORD),
        ("Medium", WORD),
        ("Campaign", STRING),
        ("Content", STRING),
        ("Term", STRING),
    ):
        yield _c(f"utm_{mark.lower()}", f"{prefix}UTM{mark}", kind, f"UTM-метка utm_{mark.lower()}")


_LOADED = Column(REQUEST_ID, REQUEST_ID, UINT32, "Номер запроса логов", context=True, plain=True)
_PLACE = Column("row_number", "first_row", PLACE, "Место строки в выгрузке, с нуля", context=True, plain=True)

VISITS = Log(
    "visits",
    (
        _key("visit_id", "ym:s:visitID", UINT64, "Визит; уникален в пределах года"),
        _key("counter_id", "ym:s:counterID", UINT32, "Счётчик"),
        _c("client_id", "ym:s:clientID", UINT64, "Посетитель (ClientID Метрики)"),
        _c("counter_user_id_hash", "ym:s:counterUserIDHash", UINT64, "Хеш посетителя"),
        _c("watch_ids", "ym:s:watchIDs", list_of(UINT64), "События визита, не более 500"),
        _key("date", "ym:s:date", DAY, "День визита в часовом поясе счётчика"),
        _c("date_time", "ym:s:dateTime", LOCAL, "Начало визита"),
        _c("date_time_msk", "ym:s:dateTimeUTC", moment(UTC3, UTC3), "Начало визита, UTC+3"),
        _c("is_new_user", "ym:s:isNewUser", UINT8, "Первый визит посетителя"),
        _c("bounce", "ym:s:bounce", UINT8, "Отказ"),
        _c("page_views", "ym:s:pageViews", INT32, "Просмотры"),
        _c("visit_duration", "ym:s:visitDuration", UINT32, "Длительность, секунды"),
        _c("start_url", "ym:s:startURL", STRING, "Страница входа"),
        _c("end_url", "ym:s:endURL", STRING, "Страница выхода"),
        _c("referer", "ym:s:referer", STRING, "Откуда пришёл"),
        _c("ip_address", "ym:s:ipAddress", STRING, "IP-адрес без последней части"),
        _c("region_country", "ym:s:regionCountry", WORD, "Страна, код ISO"),
        _c("region_city", "ym:s:regionCity", WORD, "Город"),
        _c("region_country_id", "ym:s:regionCountryID", UINT32, "Страна, номер"),
        _c("region_city_id", "ym:s:regionCityID", UINT32, "Город, номер"),
        _c("goals_id", "ym:s:goalsID", list_of(UINT32), "Достигнутые цели"),
        _c("goals_serial_number", "ym:s:goalsSerialNumber", list_of(UINT32), "Номера достижений целей"),
        _c("goals_date_time", "ym:s:goalsDateTime", list_of(moment(UTC3, UTC3)), "Времена достижений, UTC+3"),
        _c("goals_price", "ym:s:goalsPrice", list_of(scaled(1000, 3)), "Ценность целей (в логе × 1000)"),
        _c("goals_order", "ym:s:goalsOrder", list_of(STRING), "Заказы целей"),
        _c("goals_currency", "ym:s:goalsCurrency", list_of(STRING), "Валюты целей"),
        _c("traffic_source", "ym:s:lastsignTrafficSource", WORD, "Источник трафика, последний значимый"),
        _c("adv_engine", "ym:s:lastsignAdvEngine", WORD, "Рекламная система"),
        _c("referal_source", "ym:s:lastsignReferalSource", STRING, "Ссылающийся сайт"),
        _c("search_engine_root", "ym:s:lastsignSearchEngineRoot", WORD, "Поисковая система"),
        _c("search_engine", "ym:s:lastsignSearchEngine", WORD, "Поисковая система, подробно"),
        _c("social_network", "ym:s:lastsignSocialNetwork", WORD, "Социальная сеть"),
        _c("direct_click_order", "ym:s:lastsignDirectClickOrder", UINT64, "Кампания Директа"),
        _c("direct_banner_group", "ym:s:lastsignDirectBannerGroup", UINT64, "Группа объявлений Директа"),
        _c("direct_click_banner", "ym:s:lastsignDirectClickBanner", UINT64, "Объявление Директа"),
        _c(
            "direct_click_order_name",
            "ym:s:lastsignDirectClickOrderName",
            STRING,
            "Кампания Директа, название",
        ),
        *_utm("ym:s:lastsign"),
        _c("browser_language", "ym:s:browserLanguage", WORD, "Язык браузера"),
        _c("client_time_zone", "ym:s:clientTimeZone", INT16, "Часовой пояс посетителя, минуты"),
        _c(
            "device_category",
            "ym:s:deviceCategory",
            UINT8,
            "1 ПК, 2 телефон, 3 планшет, 4 ТВ, 0 неизвестно",
        ),
        _c("mobile_phone", "ym:s:mobilePhone", WORD, "Производитель устройства"),
        _c("mobile_phone_model", "ym:s:mobilePhoneModel", WORD, "Модель устройства"),
        _c("operating_system_root", "ym:s:operatingSystemRoot", WORD, "Операционная система"),
        _c("operating_system", "ym:s:operatingSystem", WORD, "Версия операционной системы"),
        _c("browser", "ym:s:browser", WORD, "Браузер"),
        _c("browser_major_version", "ym:s:browserMajorVersion", UINT16, "Версия браузера"),
        _c("screen_width", "ym:s:screenWidth", UINT16, "Ширина экрана"),
        _c("screen_height", "ym:s:screenHeight", UINT16, "Высота экрана"),
        _c("purchase_id", "ym:s:purchaseID", list_of(STRING), "Покупки"),
        _c("purchase_date_time", "ym:s:purchaseDateTime", LOCALS, "Времена покупок"),
        _c("purchase_revenue", "ym:s:purchaseRevenue", list_of(FLOAT), "Доход с покупок"),
        _c("purchase_currency", "ym:s:purchaseCurrency", list_of(STRING), "Валюты покупок"),
        _c("purchase_product_quantity", "ym:s:purchaseProductQuantity", list_of(INT64), "Товаров в покупках"),
        _c("params_key1", "ym:s:parsedParamsKey1", list_of(STRING), "Параметры визита, уровень 1"),
        _c("params_key2", "ym:s:parsedParamsKey2", list_of(STRING), "Параметры визита, уровень 2"),
        _LOADED,
        _PLACE,
    ),
    ("counter_id", "date", "visit_id"),
    "Визиты Яндекс.Метрики, по одной строке на визит",
)

HITS = Log(
    "hits",
    (
        _key("watch_id", "ym:pv:watchID", UINT64, "Событие"),
        _c("page_view_id", "ym:pv:pageViewID", UINT32, "Просмотр страницы"),
        _key("counter_id", "ym:pv:counterID", UINT32, "Счётчик"),
        _c("client_id", "ym:pv:clientID", UINT64, "Посетитель (ClientID Метрики)"),
        _c("counter_user_id_hash", "ym:pv:counterUserIDHash", UINT64, "Хеш посетителя"),
        _c("visit_id", "ym:pv:visitID", UINT64, "Визит; 0, если счётчик не отдаёт"),
        _key("date", "ym:pv:date", DAY, "День события в часовом поясе счётчика"),
        _c("date_time", "ym:pv:dateTime", LOCAL, "Время события"),
        _c("title", "ym:pv:title", STRING, "Заголовок страницы"),
        _c("url", "ym:pv:URL", STRING, "Адрес страницы"),
        _c("referer", "ym:pv:referer", STRING, "Откуда пришёл"),
        _c("goals_id", "ym:pv:goalsID", list_of(UINT32), "Достигнутые цели"),
        *_utm("ym:pv:"),
        _c("last_traffic_source", "ym:pv:lastTrafficSource", WORD, "Источник трафика"),
        _c("last_search_engine_root", "ym:pv:lastSearchEngineRoot", WORD, "Поисковая система"),
        _c("last_adv_engine", "ym:pv:lastAdvEngine", WORD, "Рекламная система"),
        _c("browser", "ym:pv:browser", WORD, "Браузер"),
        _c("browser_major_version", "ym:pv:browserMajorVersion", UINT16, "Версия браузера"),
        _c("operating_system_root", "ym:pv:operatingSystemRoot", WORD, "Операционная система"),
        _c("operating_system", "ym:pv:operatingSystem", WORD, "Версия операционной системы"),
        _c(
            "device_category",
            "ym:pv:deviceCategory",
            UINT8,
            "1 ПК, 2 телефон, 3 планшет, 4 ТВ, 0 неизвестно",
        ),
        _c("region_country", "ym:pv:regionCountry", WORD, "Страна, код ISO"),
        _c("region_city", "ym:pv:regionCity", WORD, "Город"),
        _c("region_city_id", "ym:pv:regionCityID", UINT32, "Город, номер"),
        _c("is_page_view", "ym:pv:isPageView", UINT8, "Просмотр страницы"),
        _c("link", "ym:pv:link", UINT8, "Переход по внешней ссылке"),
        _c("download", "ym:pv:download", UINT8, "Загрузка файла"),
        _c("not_bounce", "ym:pv:notBounce", UINT8, "Событие «неотказ»"),
        _c("artificial", "ym:pv:artificial", UINT8, "Отправлено методом hit()"),
        _c("http_error", "ym:pv:httpError", WORD, "Код ошибки HTTP"),
        _c("ecommerce", "ym:pv:ecommerce", STRING, "Данные электронной торговли"),
        _c("params_key1", "ym:pv:parsedParamsKey1", list_of(STRING), "Параметры, уровень 1"),
        _c("params_key2", "ym:pv:parsedParamsKey2", list_of(STRING), "Параметры, уровень 2"),
        _LOADED,
        _PLACE,
    ),
    ("counter_id", "date", "watch_id"),
    "События Яндекс.Метрики, по одной строке на событие",
    optional=frozenset({"ym:pv:visitID"}),
)

LOGS = {log.name: log for log in (VISITS, HITS)}
