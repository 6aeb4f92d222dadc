"""Registry of smart processes (dynamic types)."""

from typing import Any

SWITCHES = (
    "isCategoriesEnabled",
    "isStagesEnabled",
    "isBeginCloseDatesEnabled",
    "isClientEnabled",
    "isUseInUserfieldEnabled",
    "isLinkWithProductsEnabled",
    "isMycompanyEnabled",
    "isDocumentsEnabled",
    "isSourceEnabled",
    "isObserversEnabled",
    "isRecyclebinEnabled",
    "isAutomationEnabled",
    "isBizProcEnabled",
    "isSetOpenPermissions",
    "isPaymentsEnabled",
    "isCountersEnabled",
)
DEFAULT_PROCESSES: tuple[tuple[int, int, str, tuple[str, ...]], ...] = (
    (
        3,
        177,
        "Закупка оборудования",
        (
            "isCategoriesEnabled",
            "isStagesEnabled",
            "isBeginCloseDatesEnabled",
            "isClientEnabled",
            "isLinkWithProductsEnabled",
            "isObserversEnabled",
            "isRecyclebinEnabled",
        ),
    ),
    (8, 1038, "Договоры", ("isClientEnabled", "isMycompanyEnabled", "isSourceEnabled")),
)
"""(row id in crm.type.list, entityTypeId, title, enabled switches)"""


def process_row(
    row_id: int, type_id: int, title: str, enabled: tuple[str, ...], stamp: str
) -> dict[str, Any]:
    """A crm.type.list row; switches are Y/N."""
    row: dict[str, Any] = {
        "id": row_id,
        "title": title,
        "code": "",
        "createdBy": 1,
        "entityTypeId": type_id,
        "customSectionId": None,
    }
    row |= {switch: "Y" if switch in enabled else "N" for switch in SWITCHES}
    return row | {"createdTime": stamp, "updatedTime": stamp, "updatedBy": 1}


def enabled_switches(row: dict[str, Any]) -> dict[str, bool]:
    return {switch: row[switch] == "Y" for switch in SWITCHES}


def valid_type_id(type_id: int) -> bool:
    """128..192, or even numbers from 1030."""
    return 128 <= type_id <= 192 or (type_id >= 1030 and type_id % 2 == 0)


def free_type_id(taken: set[int]) -> int:
    return next(number for number in range(1030, 4000, 2) if number not in taken)


def process_category(row_id: int) -> int:
    """The default funnel of a smart process."""
    return row_id + 6
