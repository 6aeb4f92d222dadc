"""Answers about the organisation's settings."""

from typing import Any

from sandbox.mts_link.answers.base import Base
from sandbox.mts_link.wire import Query, items


class Organisation(Base):
    """Methods of settings."""

    def brandings(self, query: Query) -> Any:
        return [{"id": 701, "name": "Основная тема", "isDefault": True, "colors": {"primary": "#e30611"}}]

    def organisation_groups(self, query: Query) -> Any:
        return items(
            [{"id": 702, "name": "Отдел данных", "usersCount": 2, "createdAt": "2025-02-01T09:00:00+03:00"}]
        )

    def applications(self, query: Query) -> Any:
        return items(
            [{"id": 1, "clientId": "myapp", "name": "Пример", "isEnabled": 0, "approval": "approved"}]
        )

    def timezones(self, query: Query) -> Any:
        return [
            {"id": 1, "name": "Europe/Moscow", "description": "(UTC+03:00) Москва", "offset": 10800},
            {"id": 2, "name": "Asia/Yekaterinburg", "description": "(UTC+05:00)", "offset": 18000},
        ]
