"""A store whose records form a chain, and which writes in batches on a thread of its own."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

import anyio.to_thread

from stars_guard.audit._write_queue import WriteQueue
from stars_guard.audit.entries import Broken, Differs, Entry, Head, Item, Unsealed
from stars_guard.audit.record import CallRecord
from stars_guard.audit.store import AuditStore
from stars_guard.audit.writing import Backlog, Writing
from stars_guard.errors import AuditError

__all__ = ["ChainedStore"]

_log = logging.getLogger("stars_guard.audit")


class ChainedStore(AuditStore):
    """Adds to an `AuditStore` what proof needs. Its own methods block.

    Args:
        name: the store's URL, without a password.
        writing: when a record counts as written, and what happens when it cannot be.
    """

    def __init__(self, name: str, writing: Writing | None = None) -> None:
        self.name = name
        self._queue = WriteQueue(self, writing or Writing())

    async def append(self, record: CallRecord) -> None:
        """Write a record. When this returns it is as durable as `Writing` says.

        Raises:
            AuditError: it could not be written, nor be put aside where `Writing` says so.
        """
        await self._queue.append(record)

    def backlog(self) -> Backlog:
        """What has not reached the log yet. Blocks, for a moment."""
        return self._queue.backlog()

    async def aclose(self) -> None:
        await anyio.to_thread.run_sync(self.close)

    def close(self) -> None:
        """As `aclose`, for code without an event loop. Blocks."""
        self._queue.close()

    @abstractmethod
    def write(self, items: Sequence[Item]) -> None:
        """Add records to this process' chain, all or none, durably.

        Raises:
            AuditError: they could not be written.
        """

    def rest(self) -> None:
        """Let go of files and connections: nothing is written for a while."""

    @abstractmethod
    def has(self, calls: Collection[str]) -> set[str]:
        """Which of these calls have a record."""

    @abstractmethod
    def entries(self) -> Iterator[Entry | Unsealed | Broken]:
        """Everything that the log holds, each chain in its order.

        Raises:
            AuditError: the log cannot be read.
        """

    def checked(self) -> Iterator[Entry | Unsealed | Broken | Differs]:
        """As `entries`, and also every call of which lists, searches and counts show something else than its record.

        A store that answers them from the entries themselves has none of these.
        """
        yield from self.entries()

    def rebuild(self) -> int:
        """Make again, from the entries, what lists, searches and counts read. Returns how many calls there are.

        Raises:
            AuditError: the log cannot be changed, or an entry cannot be read.
        """
        return sum(1 for _ in self.records())

    @abstractmethod
    def size(self) -> int:
        """How many entries there are to read, for a progress bar."""

    @abstractmethod
    def heads(self) -> list[Head]:
        """The last entry of every chain."""

    @abstractmethod
    def purge(self, before: datetime) -> int:
        """Delete the records of calls that ended before a time.

        They go from the start of each chain up to the first record that is younger. A new entry says that they went.

        Returns:
            How many records went.

        Raises:
            AuditError: the log cannot be changed.
        """

    def read(self) -> list[CallRecord]:
        return list(self.records())

    def records(self) -> Iterator[CallRecord]:
        """All records, one after the other. Raises as `read` does."""
        for found in self.entries():
            match found:
                case Entry(kind="record"):
                    yield found.record()
                case Unsealed():
                    yield found.record
                case Broken(error=AuditError() as error):
                    raise error
                case Broken(kind="torn"):
                    _log.warning("%s: a torn line was skipped", found.where)
                case Broken():
                    _log.warning("%s: a damaged line was skipped; `stars-guard audit verify` says more", found.where)
