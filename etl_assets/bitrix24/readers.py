"""Which class reads an entity: the strategies of the entity table."""

from __future__ import annotations

from etl_assets.bitrix24 import owned, reading, work_reading
from etl_assets.bitrix24.entity import Strategy
from etl_assets.bitrix24.reading import EntityReader

READERS: dict[Strategy, type[EntityReader]] = {
    "object": reading.ObjectReader,
    "list": reading.ListReader,
    "stage_history": reading.StageHistoryReader,
    "catalog": reading.CatalogReader,
    "per_type": reading.PerTypeReader,
    "user_fields": reading.UserFieldsReader,
    "enum_labels": reading.EnumLabelsReader,
    "product_rows": owned.ProductRowsReader,
    "links": owned.LinksReader,
    "owned": owned.OwnedReader,
    "comments": owned.CommentsReader,
    "every_owner": owned.EveryOwnerReader,
    "open_line_messages": owned.OpenLineReader,
    "per_kind": work_reading.PerKindReader,
    "calendar": work_reading.CalendarReader,
    "work_time": work_reading.WorkTimeReader,
    "lists": work_reading.ListsReader,
    "list_fields": work_reading.ListFieldsReader,
    "list_sections": work_reading.ListSectionsReader,
    "universal_list": work_reading.UniversalListReader,
}
