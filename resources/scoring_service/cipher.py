"""Secrets at rest: OAuth tokens encrypted, webhook secrets as hashes."""

import hashlib
import hmac
import secrets

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

SETTING = "SCORING_ENCRYPTION_KEY"
HOW_TO_MAKE = "`python -m services.scoring_api key` prints a fresh one"


class LedgerError(RuntimeError):
    """The ledger cannot be used as it is set up. The text is a sentence for the user, without secrets."""


class TokenCipher:
    """Encrypts OAuth tokens. Of several keys, comma-separated, the first encrypts and all decrypt."""

    def __init__(self, keys: str) -> None:
        """Raises LedgerError when `keys` is empty or holds something that is no Fernet key."""
        found = [key.strip() for key in keys.split(",") if key.strip()]
        if not found:
            raise LedgerError(f"{SETTING} is not set: {HOW_TO_MAKE}.")
        try:
            self._fernet = MultiFernet([Fernet(key) for key in found])
        except ValueError:
            raise LedgerError(
                f"{SETTING} must be keys of 32 bytes in URL-safe base64, comma-separated: {HOW_TO_MAKE}."
            ) from None
        self._first = found[0].encode()

    def encrypt(self, token: str) -> str:
        return self._fernet.encrypt(token.encode()).decode()

    def decrypt(self, cipher: str) -> str:
        """Raises LedgerError when none of the keys fits."""
        try:
            return self._fernet.decrypt(cipher).decode()
        except InvalidToken:
            raise LedgerError(
                f"A stored token cannot be decrypted: {SETTING} lacks the key that encrypted it."
            ) from None

    def rotate(self, cipher: str) -> str:
        """The same token under the first key."""
        try:
            return self._fernet.rotate(cipher).decode()
        except InvalidToken:
            raise LedgerError(f"A stored token cannot be decrypted: {SETTING} lacks an old key.") from None

    def fingerprint(self, token: str) -> bytes:
        """The same for the same token and first key; nobody without the key can test a guess."""
        return hmac.digest(self._first, b"token:" + token.encode(), "sha256")

    def sign(self, text: str) -> str:
        """A code by which `text` is known to come from a holder of the key, hexadecimal."""
        return hmac.digest(self._first, b"sign:" + text.encode(), "sha256").hex()


def new_key() -> str:
    return Fernet.generate_key().decode()


def new_secret() -> str:
    """32 random bytes as 43 URL-safe characters."""
    return secrets.token_urlsafe(32)


def secret_hash(secret: str) -> bytes:
    """What is stored of a secret: its bytes are random, so one round of SHA-256 is enough."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def same_secret(secret: str, stored: bytes) -> bool:
    """Whether `secret` is the one whose hash is stored, in constant time."""
    return hmac.compare_digest(secret_hash(secret), stored)
