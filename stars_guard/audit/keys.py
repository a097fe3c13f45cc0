"""The audit log's keys, from the environment. A key is never in a message, a log or a repr."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from stars_guard.errors import AuditError, MissingExtra

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

__all__ = ["ENCRYPTION_VARIABLE", "KEY_VARIABLE", "AuditKey", "audit_keys", "cipher"]

KEY_VARIABLE = "STARS_GUARD_AUDIT_KEY"
"""Signs the log and keys the digests of mode ``hash``. After a change: the new key, a space, the old ones."""

ENCRYPTION_VARIABLE = "STARS_GUARD_AUDIT_ENCRYPTION_KEY"
"""Fernet keys, the newest first, with spaces between: the first encrypts, all decrypt."""


@dataclass(frozen=True, slots=True)
class AuditKey:
    """One key. Seals and digests are made with keys that are derived from it, so one says nothing of the other.

    Attributes:
        id: names the key without giving it away.
    """

    id: str
    _secret: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: str) -> AuditKey:
        """From the environment's text."""
        return cls(_mac(secret.encode(), b"id").hex()[:16], secret.encode())

    def seal(self, data: bytes) -> str:
        """HMAC-SHA-256 of an entry, in hex."""
        return _mac(_mac(self._secret, b"seal"), data).hex()

    def digest(self, data: bytes) -> str:
        """HMAC-SHA-256 of a text that is not kept, in hex."""
        return _mac(_mac(self._secret, b"digest"), data).hex()


def audit_keys() -> tuple[AuditKey, ...]:
    """The keys of `KEY_VARIABLE`: the first one signs, all verify. Empty where it is not set."""
    return tuple(AuditKey.of(secret) for secret in os.environ.get(KEY_VARIABLE, "").split())


def cipher() -> MultiFernet | None:
    """Encrypts and decrypts texts under the keys of `ENCRYPTION_VARIABLE`; None where it is not set.

    Raises:
        AuditError: a key is not in the right form.
        MissingExtra: the package ``cryptography`` is not installed.
    """
    keys = os.environ.get(ENCRYPTION_VARIABLE, "").split()
    return _cipher(tuple(keys)) if keys else None


@lru_cache(maxsize=4)
def _cipher(keys: tuple[str, ...]) -> MultiFernet:
    try:
        from cryptography.fernet import Fernet, MultiFernet
    except ImportError as exc:
        raise MissingExtra("encryption of the audit log", "encryption") from exc
    if not all(re.fullmatch(r"[A-Za-z0-9_-]{43}=", key) for key in keys):
        raise AuditError(
            f"a key in {ENCRYPTION_VARIABLE} is not 32 bytes in URL-safe base64",
            hint="make one with cryptography.fernet.Fernet.generate_key()",
        )
    return MultiFernet([Fernet(key) for key in keys])


def _mac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()
