"""What several groups of answers share."""

from typing import Any

from sandbox.mts_link.org import EVENT, SESSION, USER, Org
from sandbox.mts_link.wire import NOT_FOUND, ApiError

PAGES = (10, 50, 100, 250)
MORE_PAGES = (*PAGES, 500)


class Base:
    """The organisation that answers tell of, and what several groups say of it."""

    base_url = "https://storage.example.com"

    def __init__(self, org: Org) -> None:
        self.org = org

    # Numbers behind ids

    def session(self, text: str) -> int:
        number = int(text) - SESSION if text.isdigit() else -1
        if not self.org.exists(number):
            raise ApiError(404, NOT_FOUND)
        return number

    def event(self, text: str) -> int:
        number = int(text) - EVENT if text.isdigit() else -1
        if not 0 <= number * self.org.config.sessions_per_event < self.org.config.sessions:
            raise ApiError(404, NOT_FOUND)
        if not self.org.sessions_of(number):
            raise ApiError(404, NOT_FOUND)
        return number

    def member(self, text: str) -> int:
        number = int(text) - USER if text.isdigit() else -1
        if number not in self.org.member_numbers():
            raise ApiError(404, NOT_FOUND)
        return number

    # Shared by records, files and conversions

    def has_record(self, s: int) -> bool:
        return s % 2 == 0 and s not in self.org.deleted["record"]

    def is_converted(self, s: int) -> bool:
        return s % 4 == 0 and self.org.finished(s)

    def file_url(self, number: int) -> str:
        return f"{self.base_url}/download/converted/{number}.mp4"

    def size_of(self, number: int) -> int:
        """Bytes of a file that can be downloaded."""
        return 50_000 + number % 1000

    # People inside of other records

    def brief(self, i: int) -> dict[str, Any]:
        person = self.org.person(i)
        return {"id": USER + i, "name": person["first"], "secondName": person["last"]}
