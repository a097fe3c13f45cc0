"""The seam to whatever keeps records: two required methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import anyio.to_thread

from stars_guard.audit._query import Filter, Key, News, Summary, matches, newest
from stars_guard.audit.record import CallRecord
from stars_guard.audit.stats import Stats, count
from stars_guard.errors import AuditError

__all__ = ["AuditStore"]


class AuditStore(ABC):
    """Keeps records. Any number of tasks may use one store."""

    @abstractmethod
    async def append(self, record: CallRecord) -> None:
        """Write a record. When this returns the operating system has it.

        Raises:
            AuditError: it could not be written.
        """

    @abstractmethod
    def read(self) -> list[CallRecord]:
        """All records, oldest first. Blocks: `aread` is for async code.

        Raises:
            AuditError: they could not be read.
        """

    def get(self, call_id: str) -> CallRecord:
        """The record of a call or of a LangChain run; the start of an id is enough where only one fits. Blocks.

        Raises:
            AuditError: no record fits, or several do.
        """
        records = self.read()
        exact = [record for record in records if call_id in (record.call_id, record.run_id)]
        found = exact or [record for record in records if call_id and record.call_id.startswith(call_id)]
        if len(found) != 1:
            raise AuditError(f"{len(found) or 'no'} records fit the id {call_id!r}")
        return found[0]

    def search(
        self, wanted: Filter | None = None, *, limit: int | None = 50, before: Key | None = None
    ) -> list[Summary]:
        """The wanted calls, newest start first. Blocks: `asearch` is for async code.

        Args:
            limit: at most so many; None for all.
            before: the key of the last row of the page before.

        Raises:
            AuditError: the log cannot be read.
        """
        return newest(self.read(), wanted or Filter(), limit, before)

    def select(self, wanted: Filter | None = None) -> Iterator[CallRecord]:
        """The records of the wanted calls, oldest first. Blocks. Raises as `search` does."""
        return (record for record in self.read() if matches(record, wanted or Filter()))

    def stats(self, wanted: Filter | None = None) -> Stats:
        """What the wanted calls add up to. Blocks. Raises as `search` does."""
        return count(self.read(), wanted)

    def after(self, cursor: str | None = None, wanted: Filter | None = None) -> News:
        """The wanted calls written since another look. Blocks.

        Args:
            cursor: of that look; None gives no calls, only the cursor to go on from.

        Raises as `search` does.
        """
        return News.of(self.read(), wanted or Filter(), cursor)

    async def asearch(
        self, wanted: Filter | None = None, *, limit: int | None = 50, before: Key | None = None
    ) -> list[Summary]:
        """As `search`, in a worker thread."""
        return await anyio.to_thread.run_sync(lambda: self.search(wanted, limit=limit, before=before))

    async def astats(self, wanted: Filter | None = None) -> Stats:
        """As `stats`, in a worker thread."""
        return await anyio.to_thread.run_sync(self.stats, wanted)

    async def aafter(self, cursor: str | None = None, wanted: Filter | None = None) -> News:
        """As `after`, in a worker thread."""
        return await anyio.to_thread.run_sync(self.after, cursor, wanted)

    async def aread(self) -> list[CallRecord]:
        """As `read`, in a worker thread."""
        return await anyio.to_thread.run_sync(self.read)

    async def aget(self, call_id: str) -> CallRecord:
        """As `get`, in a worker thread."""
        return await anyio.to_thread.run_sync(self.get, call_id)

    async def aclose(self) -> None:
        """Release what the store holds. It must not be used afterwards."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
