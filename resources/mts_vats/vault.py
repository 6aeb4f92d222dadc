"""SIP passwords at rest: encrypted, and told apart by a fingerprint."""

from __future__ import annotations

import hashlib
import hmac

from resources.errors import PermanentSourceError
from resources.http import register_secret

SETTING = "MTS_VATS_ENCRYPTION_KEY"


class Vault:
    """Encrypts with the key of MTS_VATS_ENCRYPTION_KEY (Fernet: AES-128-CBC with HMAC-SHA256)."""

    def __init__(self, key: str) -> None:
        """Raises PermanentSourceError for a key that is missing or none."""
        from cryptography.fernet import Fernet

        register_secret(key)
        try:
            self._fernet = Fernet(key)
        except ValueError:
            raise PermanentSourceError(
                f"{SETTING} must be a Fernet key, 32 bytes in base 64; make one with "
                "`svod vats key`. SIP passwords are never stored without it."
            ) from None
        self._mark = hashlib.sha256(b"svod fingerprint " + key.encode()).digest()

    def encrypt(self, secret: str) -> str:
        """Text that only `decrypt` reads; different each time."""
        return self._fernet.encrypt(secret.encode("utf-8", "surrogatepass")).decode()

    def decrypt(self, text: str) -> str:
        """The secret again. Raises PermanentSourceError for text of another key."""
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet.decrypt(text).decode("utf-8", "surrogatepass")
        except InvalidToken:
            raise PermanentSourceError(f"The text was not encrypted with the key of {SETTING}.") from None

    def fingerprint(self, secret: str) -> str:
        """The same for the same secret, and of no use without the key."""
        return hmac.new(self._mark, secret.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:16]


def new_key() -> str:
    """A key for MTS_VATS_ENCRYPTION_KEY."""
    from cryptography.fernet import Fernet

    return Fernet.generate_key().decode()
