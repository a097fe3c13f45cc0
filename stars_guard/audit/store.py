"""The seam to whatever keeps records. Your own store needs two methods, and a third if it is to have a URL."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import ClassVar, Self

import anyio.to_thread

from stars_guard.audit._query import Filter, News, Place, Summary, matches, newest
from stars_guard.audit.record import CallRecord
from stars_guard.audit.stats import Stats, count
from stars_guard.audit.writing import Writing
from stars_guard.errors import AuditError

__all__ = ["AuditStore"]


class AuditStore(ABC):
    """Keeps records. Any number of tasks and threads may use one store.

    Nothing is opened or connected to before the first use, so that a store can be made where there is no log yet.
    `stars_guard.testing.AuditStoreTests` checks that a store keeps to all that is said here.

    Attributes:
        shared: whether all guards of this process that name the same URL use one store. False where each `from_url`
            makes a log of its own.
    """

    shared: ClassVar[bool] = True

    @classmethod
    def from_url(cls, url: str, writing: Writing | None = None) -> Self:
        """The store that a URL names. The entry points of ``stars_guard.stores`` are found by the URL's scheme.

        Args:
            url: whole, with its scheme. It may hold a password, so it must not be in an error.
            writing: when a record counts as written, and what happens when it cannot be. A store that writes at once
                may leave it out of account.

        Raises:
            AuditError: the URL cannot be used, or stores of this class have none.
        """
        raise AuditError(f"{cls.__name__} has no URL", hint="hand in the store itself")

    @abstractmethod
    async def append(self, record: CallRecord) -> None:
        """Write a record. When this returns, it is as durable as `Writing` says.

        A caller that is cancelled stops waiting, but its record is still written: all of it, and once.

        Raises:
            AuditError: it could not be written.
        """

    @abstractmethod
    def read(self) -> list[CallRecord]:
        """All records in the order of writing. Blocks: `aread` is for async code.

        Raises:
            AuditError: they could not be read.
        """

    def get(self, call_id: str) -> CallRecord:
        """The record of a call or of a LangChain run. Blocks.

        Args:
            call_id: the whole id of the call or of the run, or the start of the call's id if it fits only one record.

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
        self, wanted: Filter | None = None, *, limit: int | None = 50, before: Place | None = None
    ) -> list[Summary]:
        """The wanted calls, those that started last first. Blocks: `asearch` is for async code.

        Args:
            limit: the most rows that you want; None for all.
            before: the place of the last row of the page before.

        Raises:
            AuditError: the log cannot be read.
        """
        return newest(self.read(), wanted or Filter(), limit, before)

    def select(self, wanted: Filter | None = None) -> Iterator[CallRecord]:
        """The records of the wanted calls in the order of writing. Blocks. Raises as `search` does."""
        return (record for record in self.read() if matches(record, wanted or Filter()))

    def stats(self, wanted: Filter | None = None) -> Stats:
        """What the wanted calls add up to. Blocks. Raises as `search` does."""
        return count(self.read(), wanted)

    def after(self, cursor: str | None = None, wanted: Filter | None = None) -> News:
        """The wanted calls that were written since you last asked. Blocks. Raises as `search` does.

        Args:
            cursor: of the last `News`. None gives no calls, only the cursor to go on from.
        """
        return News.of(self.read(), wanted or Filter(), cursor)

    async def asearch(
        self, wanted: Filter | None = None, *, limit: int | None = 50, before: Place | None = None
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
        """Write what waits, and let go of all threads, files and connections.

        You may close a store twice. Guards share stores, so a closed store is not lost for the others: the next use
        opens again what it needs.
        """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
