"""What never reaches storage, and how addresses and numbers become pseudonyms."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any

from resources.http import register_secret

# Keys to a person's room, to an upload, to a file: worth nothing in a warehouse and much to a thief.
DROPPED = frozenset({"uploadUrl", "password"})
EMAILS = frozenset({"email", "ownerEmail", "userEmail"})
PHONES = frozenset({"phone", "phoneMain", "phoneNumber", "mobilePhone"})
# What a person typed into a form of the organiser's own: the field does not tell what it holds.
_TYPED = "value"
_PHONE = re.compile(r"\+?(?:[\s().-]*\d){10,15}")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")


class Scrubber:
    """Takes secrets out of a record, and makes pseudonyms of e-mails and phones if there is a key.

    The same address gives the same pseudonym everywhere, so tables still join; without the key nobody can
    try addresses against it.
    """

    def __init__(self, pseudonym_key: str | None = None) -> None:
        self._key = pseudonym_key.encode() if pseudonym_key else None
        if pseudonym_key:
            register_secret(pseudonym_key)

    def scrub(self, record: Mapping[str, Any], dropped: frozenset[str] = frozenset()) -> dict[str, Any]:
        """A copy without secrets at any depth, and without `dropped` at the top."""
        kept = {name: value for name, value in record.items() if name not in dropped}
        return self._clean(kept)

    def _clean(self, value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {k: self._clean(v, k) for k, v in value.items() if k not in DROPPED}
        if isinstance(value, list):
            return [self._clean(v, name) for v in value]
        return self._pseudonym(name, value) if self._key and isinstance(value, str) and value else value

    def _pseudonym(self, name: str, value: str) -> str:
        if name in PHONES or (name == _TYPED and _PHONE.fullmatch(value.strip())):
            return self._hash("phone", re.sub(r"\D", "", value))
        if name in EMAILS or _EMAIL.fullmatch(value.strip()):
            return self._hash("email", value.strip().lower())
        return value

    def _hash(self, kind: str, value: str) -> str:
        assert self._key is not None
        return f"{kind}:{hmac.new(self._key, value.encode(), hashlib.sha256).hexdigest()[:32]}"
