"""The warehouse: tables as objects, typed loading, watermarks and the load log.

A ClickHouse server or the embedded engine.
"""

from resources.clickhouse.table import Column, Table, WriteMode
from resources.clickhouse.warehouse import Load, LoadResult, WarehouseError, WarehouseResource

__all__ = ["Column", "Load", "LoadResult", "Table", "WarehouseError", "WarehouseResource", "WriteMode"]
