"""Records kept in this process."""

from __future__ import annotations

from stars_guard.audit.record import CallRecord
from stars_guard.audit.store import AuditStore

__all__ = ["MemoryStore"]


class MemoryStore(AuditStore):
    """Keeps records in the list ``records``: for tests."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []

    async def append(self, record: CallRecord) -> None:
        self.records.append(record)

    def read(self) -> list[CallRecord]:
        return list(self.records)
