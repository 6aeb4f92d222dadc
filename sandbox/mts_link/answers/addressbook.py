"""Answers of the address book: contacts and staff."""

from typing import Any

from sandbox.mts_link.answers.base import Base
from sandbox.mts_link.org import CONTACT, USER
from sandbox.mts_link.wire import NOT_FOUND, ApiError, Query, by_page


class AddressBook(Base):
    """Methods of the address book."""

    def contact_row(self, n: int) -> dict[str, Any]:
        """Ids are texts; `name` holds the surname, as the documented example does."""
        person, staff = self.org.person(n), n < self.org.config.staff
        return {
            "id": str(CONTACT + n),
            "userId": str(USER + n) if staff else None,
            "name": person["last"],
            "secondName": person["first"],
            "company": "ООО Ромашка" if staff else "",
            "position": "Инженер" if staff else "",
            "phoneMain": person["phone"],
            "email": person["email"],
            "tags": [{"id": "551", "isPublic": True, "name": "Клиенты"}] if n % 2 else [],
        }

    def contacts(self, query: Query) -> Any:
        rows = [self.contact_row(n) for n in range(self.org.config.contacts)]
        for key, value in query.items():
            name = key.removeprefix("contactsData[").removesuffix("]")
            if key.startswith("contactsData["):
                rows = [r for r in rows if str(r.get(name, "")).lower() == value.lower()]
            elif key == "query":
                rows = [r for r in rows if value.lower() in f"{r['name']} {r['secondName']}".lower()]
        return rows

    def _contact(self, text: str) -> int:
        number = int(text) - CONTACT if text.isdigit() else -1
        if not 0 <= number < self.org.config.contacts:
            raise ApiError(404, NOT_FOUND)
        return number

    def contact(self, query: Query, contact: str) -> Any:
        return self.contact_row(self._contact(contact))

    def contact_user(self, query: Query, contact: str) -> Any:
        number = self._contact(contact)
        if number >= self.org.config.staff:
            raise ApiError(404, NOT_FOUND)
        person = self.org.person(number)
        return {
            "id": USER + number,
            "firstName": person["first"],
            "lastName": person["last"],
            "email": person["email"],
        }

    def members(self, query: Query) -> Any:
        numbers = self.org.member_numbers()
        if "perPage" not in query:
            return [self._member(i) for i in numbers]
        return by_page(query, numbers, self._member, range(10, 501), 500)

    def _member(self, i: int) -> dict[str, Any]:
        person = self.org.person(i)
        picture = {"url": f"https://storage.example.com/avatars/{i}.png", "thumbnails": {}}
        return {
            "id": USER + i,
            "membershipId": 410001 + i,
            "role": "ADMIN" if i == 0 else "LECTURER",
            "name": person["first"],
            "secondName": person["last"],
            "patrName": "Тестович",
            "nickname": f"{person['first']} {person['last']}",
            "email": person["email"],
            "phone": person["phone"],
            "position": "Инженер",
            "organization": "ООО Ромашка",
            "sex": "f" if i % 2 else "m",
            ("photo" if i % 2 else "avatar"): picture if i % 3 else [],
        }

    def profile(self, query: Query) -> Any:
        person = self.org.person(0)
        return {
            "data": {
                "id": USER,
                "uuid": "5a1c0000-0000-4000-8000-000000000001",
                "email": person["email"],
                "name": person["first"],
                "secondName": person["last"],
                "patrName": "Тестовна",
                "avatarUrl": None,
                "avatarThumbnails": {},
            }
        }
