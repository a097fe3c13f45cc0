"""Records kept in this process."""

from __future__ import annotations

from typing import Self

from stars_guard.audit.record import CallRecord
from stars_guard.audit.store import AuditStore
from stars_guard.audit.writing import Writing
from stars_guard.errors import AuditError

__all__ = ["MemoryStore"]


class MemoryStore(AuditStore):
    """Keeps records in the list ``records``, for tests. Every ``memory://`` is another log, and empty."""

    shared = False

    def __init__(self) -> None:
        self.records: list[CallRecord] = []

    @classmethod
    def from_url(cls, url: str, writing: Writing | None = None) -> Self:
        """A new, empty store for ``memory://``.

        Raises:
            AuditError: the URL has a path.
        """
        if url != "memory://":
            raise AuditError("cannot use the audit URL memory://...", hint="it has no path: write memory://")
        return cls()

    async def append(self, record: CallRecord) -> None:
        self.records.append(record)

    def read(self) -> list[CallRecord]:
        return list(self.records)
