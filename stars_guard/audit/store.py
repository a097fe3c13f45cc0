"""Where records go, chosen by URL."""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, unquote
from weakref import WeakValueDictionary

import anyio.to_thread
from platformdirs import user_state_path

from stars_guard.audit.query import Filter, Key, News, Summary, matches, newest
from stars_guard.audit.record import CallRecord
from stars_guard.audit.stats import Stats, count
from stars_guard.errors import AuditError

if TYPE_CHECKING:
    from stars_guard.audit.writer import Writing

__all__ = ["AuditStore", "MemoryStore", "default_url", "local_path", "open_store", "shared_store"]


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


class MemoryStore(AuditStore):
    """Keeps records in the list ``records``: for tests."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []

    async def append(self, record: CallRecord) -> None:
        self.records.append(record)

    def read(self) -> list[CallRecord]:
        return list(self.records)


def default_url() -> str:
    """The SQLite database in the user's state directory."""
    return f"sqlite://{quote(str(user_state_path('stars-guard') / 'audit.db'))}"


def open_store(url: str | None = None, writing: Writing | None = None) -> AuditStore:
    """A store by URL; None is `default_url`. Nothing is made or connected to before it is used.

    Args:
        url: ``sqlite:///path``, ``postgresql+psycopg://user@host/database``, ``jsonl:///path`` or ``memory://``. Paths
            of files are absolute after three slashes, or begin with ``~``, or are relative after two. ``?max_bytes=N``
            and ``?daily=1`` after a JSONL path say when the file is turned over.
        writing: when a record counts as written, and what happens when it cannot be.

    Raises:
        AuditError: the URL's scheme is not known or it has no path.
        MissingExtra: the database's driver is not installed.
    """
    # here, because those modules need AuditStore from this one, and because SQLAlchemy is heavy
    url = url or default_url()
    scheme, _, rest = url.partition("://")
    match scheme:
        case "memory" if not rest:
            return MemoryStore()
        case "sqlite" | "postgresql+psycopg":
            return _database(url, scheme, rest, writing)
        case "jsonl":
            return _file(url, rest, writing)
    shown = f"{scheme}://..." if rest else repr(url)
    raise AuditError(
        f"cannot use the audit URL {shown}",
        hint="use sqlite:///path, postgresql+psycopg://user@host/database, jsonl:///path or memory://",
    )


def _database(url: str, scheme: str, rest: str, writing: Writing | None) -> AuditStore:
    from sqlalchemy.engine import URL, make_url
    from sqlalchemy.exc import ArgumentError

    from stars_guard.audit.sql import SqlStore

    if scheme == "sqlite":
        return SqlStore(URL.create("sqlite+pysqlite", database=str(local_path(rest, url))), writing=writing)
    try:
        return SqlStore(make_url(url), writing=writing)
    except (ArgumentError, ValueError) as exc:
        # not the URL itself: it may hold a password
        raise AuditError(f"cannot use the audit URL {scheme}://...", hint="it cannot be read as a URL") from exc


def _file(url: str, rest: str, writing: Writing | None) -> AuditStore:
    from stars_guard.audit.jsonl import JsonlStore

    path, options = _split(rest)
    if unknown := sorted(options.keys() - {"max_bytes", "daily"}):
        raise AuditError(f"cannot use the audit URL {url!r}: unknown {', '.join(unknown)}", hint="max_bytes, daily")
    size = options.get("max_bytes")
    if (size is not None and not size.isdecimal()) or options.get("daily", "0") not in ("0", "1"):
        raise AuditError(f"cannot use the audit URL {url!r}", hint="max_bytes is a number, daily 0 or 1")
    return JsonlStore(
        local_path(path, url), max_bytes=int(size) if size else None, daily=options.get("daily") == "1",
        writing=writing,
    )  # fmt: skip


def local_path(path: str, url: str | None) -> Path:
    """The path in a URL, absolute, so that a later chdir does not split the log.

    Raises:
        AuditError: there is none.
    """
    if not path or path.endswith("/"):
        raise AuditError(f"cannot use the audit URL {url!r}", hint="it needs the path of a file")
    try:
        return Path(unquote(path)).expanduser().absolute()
    except RuntimeError as exc:
        raise AuditError(f"cannot use the audit URL {url!r}: there is no home directory") from exc


_shared: WeakValueDictionary[tuple[str, Writing], AuditStore] = WeakValueDictionary()
_lock = threading.Lock()


def shared_store(url: str | None, writing: Writing) -> AuditStore:
    """As `open_store`, one store in this process for all who name the same, and so one chain."""
    key = (url or default_url(), writing)
    if key[0] == "memory://":
        return MemoryStore()
    with _lock:
        store = _shared.get(key)
        if store is None:
            store = _shared[key] = open_store(url, writing)
        return store


def _split(rest: str) -> tuple[str, dict[str, str]]:
    """Path and options; a question mark that no options follow belongs to the path."""
    path, mark, query = rest.rpartition("?")
    if mark and re.fullmatch(r"\w+=\w*(&\w+=\w*)*", query):
        return path, dict(option.split("=", 1) for option in query.split("&"))
    return rest, {}
