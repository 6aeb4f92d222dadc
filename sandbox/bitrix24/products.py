"""Product rows: a pure function of their owner."""

from typing import Any

from sandbox.bitrix24.data import salt_of
from sandbox.bitrix24.dictionaries import owner_abbreviation

_GOODS = ("Насос «Вихрь»", 'Труба 1/2"', "Монтаж", "Кабель ВВГ 3×2,5", "Доставка")
_PER_OWNER = 64
_LONG = 53

PRODUCT_ROW_FIELDS: tuple[tuple[str, str], ...] = (
    ("id", "integer"),
    ("ownerId", "integer"),
    ("ownerType", "string"),
    ("productId", "integer"),
    ("productName", "string"),
    ("price", "double"),
    ("priceAccount", "double"),
    ("priceExclusive", "double"),
    ("priceNetto", "double"),
    ("priceBrutto", "double"),
    ("quantity", "double"),
    ("discountTypeId", "integer"),
    ("discountRate", "double"),
    ("discountSum", "double"),
    ("taxRate", "double"),
    ("taxIncluded", "char"),
    ("customized", "char"),
    ("measureCode", "integer"),
    ("measureName", "string"),
    ("sort", "integer"),
    ("type", "integer"),
    ("storeId", "integer"),
)


def product_rows(seed: int, type_id: int, owner: int) -> list[dict[str, Any]]:
    """0..4 rows of one owner, now and then more than a page; PRICE_ACCOUNT is a string."""
    h = salt_of(seed, "products", type_id, owner)
    count = _LONG if h % 150 == 0 else h % 5
    return [_row(h, type_id, owner, number) for number in range(count)]


def _row(h: int, type_id: int, owner: int, number: int) -> dict[str, Any]:
    price = (h >> number % 30) % 900_000 / 100 + 1
    return {
        "id": owner * _PER_OWNER + number + 1 + type_id * 10_000_000_000,
        "ownerId": owner,
        "ownerType": owner_abbreviation(type_id),
        "productId": 100 + (h + number) % 40,
        "productName": _GOODS[(h + number) % len(_GOODS)],
        "price": price,
        "priceAccount": f"{price:.2f}",
        "priceExclusive": price,
        "priceNetto": price,
        "priceBrutto": price,
        "quantity": (h >> 3) % 9 + 1,
        "discountTypeId": 2,
        "discountRate": 0,
        "discountSum": 0,
        "taxRate": None if h % 3 else 20,
        "taxIncluded": "Y",
        "customized": "Y",
        "measureCode": 796,
        "measureName": "шт",
        "sort": (number + 1) * 10,
        "type": 4,
        "storeId": 0,
    }
