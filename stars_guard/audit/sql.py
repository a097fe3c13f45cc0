"""The audit log in a database: SQLite for one machine, PostgreSQL for a fleet. Each process writes its own chain."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import unquote

from sqlalchemy import Connection, Engine, Row, Select, delete, func, insert, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from stars_guard.audit._database import Database, at_head, migrate, translated
from stars_guard.audit._derived import Comparison, entries_in_order, index_of_words, insert_derived, pages_of, rebuild
from stars_guard.audit._files import local_path
from stars_guard.audit._query import Filter, News, Place, Summary
from stars_guard.audit._sql_query import ids_of, news, page
from stars_guard.audit._sql_stats import count_rows
from stars_guard.audit._tables import attempts, blames, calls, entries, texts
from stars_guard.audit.chained_store import ChainedStore
from stars_guard.audit.entries import Differs, Entry, Head, Item, Purge, new_writer, seal
from stars_guard.audit.record import CallRecord
from stars_guard.audit.stats import Stats
from stars_guard.audit.writing import Writing
from stars_guard.errors import AuditError

__all__ = ["SqlStore"]

_log = logging.getLogger("stars_guard.audit")

_CHUNK = 500


class SqlStore(ChainedStore):
    """Keeps records in a database.

    Args:
        url: of SQLAlchemy. Nothing is connected to before the first use, and a file that is not there is not made by
            reading.
        writing: see `ChainedStore`.

    Raises:
        MissingExtra: the database's driver is not installed.
    """

    def __init__(self, url: URL, *, writing: Writing | None = None) -> None:
        super().__init__(url.render_as_string(hide_password=True), writing)
        self._url = url
        self._database = Database(url)
        self._opening = threading.Lock()
        # who writes what follows holds the lock
        self._lock = threading.Lock()
        self._written_to = self._database
        self._head = Head(writer=new_writer())
        self._uncertain = False

    @classmethod
    def from_url(cls, url: str, writing: Writing | None = None) -> Self:
        """``sqlite:///path``, or a URL of SQLAlchemy for PostgreSQL.

        Raises:
            AuditError: it is neither.
            MissingExtra: the database's driver is not installed.
        """
        scheme, _, rest = url.partition("://")
        if scheme == "sqlite":
            path = local_path(url, rest)
            return cls(URL.create("sqlite+pysqlite", database=str(path)), writing=writing)
        try:
            if "\0" in unquote(url):
                raise ValueError("no part of a URL holds a NUL")
            url.encode()
            return cls(make_url(url), writing=writing)
        except (ArgumentError, ValueError, TypeError) as exc:
            raise AuditError(
                f"cannot use the audit URL {scheme}://...", hint="write it as scheme://user@host:port/database"
            ) from exc

    def rest(self) -> None:
        self._database.pool.close()

    def close(self) -> None:
        super().close()
        self._database.pool.close()

    def write(self, items: Sequence[Item]) -> None:
        with self._lock:
            while items and self._write(items).is_gone:
                pass  # not for good: the file went meanwhile

    def _write(self, items: Sequence[Item]) -> Database:
        with self._changing("write") as (database, connection):
            self._begin_in(database)
            if self._uncertain:
                # whether the last batch was committed is not known: the connection broke
                self._head = self._last(connection) or self._head
                there = _has(connection, {item.record.call_id for item in items})
                items = [item for item in items if item.record.call_id not in there]
            self._uncertain = True
            made = self._seal(connection, [("record", item.payload) for item in items])
            if items:
                insert_derived(connection, [(item.record, entry) for item, entry in zip(items, made, strict=True)])
        self._head = made[-1].head if made else self._head
        self._uncertain = False
        return database

    def has(self, calls: Collection[str]) -> set[str]:
        with self._reading() as connection:
            return _has(connection, calls) if connection else set()

    def entries(self) -> Iterator[Entry]:
        yield from self._stream(select(entries).order_by(entries.c.writer, entries.c.seq))

    def checked(self) -> Iterator[Entry | Differs]:
        """As `ChainedStore.checked`. All is read from one snapshot, a bounded number of calls at a time."""
        with self._reading(whole=True) as connection:
            if connection is None:
                return
            comparison = Comparison(connection)
            for part in entries_in_order(connection):
                yield from part
                yield from self._compared(comparison.of(part))
            yield from self._compared(comparison.strays())
            wrong = pages_of(connection) if self._dialect == "sqlite" else None
        if self._dialect == "sqlite" and wrong is None:
            with self._changing("read") as (_, connection):
                wrong = index_of_words(connection)
        if wrong is not None:
            yield Differs(where="", call="", text=f"what searches read is damaged: {wrong}")

    def _compared(self, found: Iterator[Differs]) -> Iterator[Differs]:
        try:
            yield from found
        except DBAPIError as exc:
            if self._dialect != "sqlite":
                raise
            # SQLite stores anything anywhere, also what no program can read as what it is to be
            yield Differs(where="", call="", text=f"what lists and counts read is damaged: {exc.orig}")

    def rebuild(self) -> int:
        with self._lock, self._changing("rebuild") as (_, connection):
            return rebuild(connection)

    def records(self) -> Iterator[CallRecord]:
        for entry in self._stream(select(entries).join_from(entries, calls, _OF_CALL).order_by(calls.c.id)):
            yield entry.record()

    def size(self) -> int:
        with self._reading() as connection:
            return connection.scalar(select(func.count()).select_from(entries)) or 0 if connection else 0

    def heads(self) -> list[Head]:
        last = select(entries.c.writer, func.max(entries.c.seq).label("seq")).group_by(entries.c.writer).subquery()
        match = (entries.c.writer == last.c.writer) & (entries.c.seq == last.c.seq)
        query = select(entries.c.writer, entries.c.seq, entries.c.hash).join_from(entries, last, match)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(entries.c.writer)) if connection else ()
            return [Head(writer=row.writer, seq=row.seq, hash=row.hash) for row in rows]

    def purge(self, before: datetime) -> int:
        cutoff = before.astimezone(UTC).timestamp()
        with self._lock, self._changing("purge") as (database, connection):
            self._begin_in(database)
            gone, records = [], 0
            earlier = connection.scalars(select(entries.c.payload).where(entries.c.kind == "purge")).all()
            for writer in connection.scalars(select(calls.c.writer).distinct()).all():
                of_writer = entries.c.writer == writer
                ended = calls.c.started + calls.c.seconds
                young = select(func.min(calls.c.seq)).where(calls.c.writer == writer, ended >= cutoff)
                first_kept = connection.scalar(young)
                old = of_writer if first_kept is None else of_writer & (entries.c.seq < first_kept)
                last = connection.execute(select(entries).where(old).order_by(entries.c.seq.desc()).limit(1)).first()
                if last is not None:
                    gone.append(_entry(last).head)
                    records += _forget(connection, writer, last.seq)
            if not records:
                return 0
            if self._uncertain:
                self._head = self._last(connection) or self._head
            self._uncertain = True
            made = self._seal(connection, [("purge", Purge.of(before, gone, earlier))])
        self._head = made[-1].head
        self._uncertain = False
        if self._dialect == "sqlite":
            with translated("purge", self.name), database.pool.used(), database.engine.connect() as connection:
                # until then the file itself holds what was taken out
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return records

    def get(self, call_id: str) -> CallRecord:
        exact = select(calls.c.id).where((calls.c.call_id == call_id) | (calls.c.run_id == call_id))
        start = select(calls.c.id).where(calls.c.call_id >= call_id, calls.c.call_id < call_id + "\U0010ffff")
        with self._reading() as connection:
            found: Sequence[int] = []
            if connection and call_id:
                found = connection.scalars(exact.limit(100)).all() or connection.scalars(start.limit(100)).all()
        if len(found) != 1:
            raise AuditError(f"{len(found) or 'no'} records fit the id {call_id!r}")
        query = select(entries).join_from(entries, calls, _OF_CALL).where(calls.c.id == found[0])
        (entry,) = self._stream(query)
        return entry.record()

    def search(
        self, wanted: Filter | None = None, *, limit: int | None = 50, before: Place | None = None
    ) -> list[Summary]:
        with self._reading() as connection:
            return page(connection, wanted or Filter(), limit, before) if connection else []

    def select(self, wanted: Filter | None = None) -> Iterator[CallRecord]:
        query = select(entries).join_from(entries, calls, _OF_CALL)
        for entry in self._stream(
            query.where(calls.c.id.in_(ids_of(wanted or Filter(), self._dialect))).order_by(calls.c.id)
        ):
            yield entry.record()

    def stats(self, wanted: Filter | None = None) -> Stats:
        with self._reading() as connection:
            return count_rows(connection, wanted or Filter()) if connection else super().stats(wanted)

    def after(self, cursor: str | None = None, wanted: Filter | None = None) -> News:
        with self._reading() as connection:
            return news(connection, wanted or Filter(), cursor) if connection else News((), "0")

    @property
    def _engine(self) -> Engine:
        return self._database.engine

    @property
    def _dialect(self) -> str:
        return self._engine.dialect.name

    @contextmanager
    def _changing(self, doing: str) -> Iterator[tuple[Database, Connection]]:
        with translated(doing, self.name):
            database = self._current()
            with database.pool.used():
                self._connect(database, lambda: migrate(database.engine, database.path))
                with database.engine.connect().execution_options(immediate=True) as connection, connection.begin():
                    yield database, connection

    def _current(self) -> Database:
        """The database that is in its place now."""
        with self._opening:
            if self._database.is_gone:
                _log.warning("%s was deleted or replaced while in use; what is written goes to the new file", self.name)
                self._database.pool.close()
                self._database = Database(self._url)
            return self._database

    def _begin_in(self, database: Database) -> None:
        """Begin a new chain where this process has not written yet."""
        if database is not self._written_to:
            self._written_to, self._head, self._uncertain = database, Head(writer=new_writer()), False

    def _up_to_date(self, database: Database) -> None:
        with database.engine.connect() as connection:
            newest = at_head(connection)
        if not newest:
            migrate(database.engine, database.path)

    def _connect(self, database: Database, first: Callable[[], None]) -> None:
        """Use the database for the first time. Only then can the URL be one that the driver cannot use at all."""
        try:
            database.use(first)
        except (ValueError, TypeError, LookupError) as exc:
            raise AuditError(f"cannot use the audit log {self.name}: {type(exc).__name__}") from exc

    @contextmanager
    def _reading(self, *, whole: bool = False) -> Iterator[Connection | None]:
        """A connection, or None where nothing has been written yet.

        Args:
            whole: whether all that is read must be of one moment.
        """
        with translated("read", self.name):
            path = self._database.path
            there = path is None or path.exists()
        if not there:
            yield None
            return
        with translated("read", self.name):
            database = self._current()
            with database.pool.used():
                self._connect(database, lambda: self._up_to_date(database))
                with database.engine.connect() as connection:
                    if whole and self._dialect == "postgresql":
                        connection.execution_options(isolation_level="REPEATABLE READ")
                    yield connection

    def _stream(self, query: Select[Any]) -> Iterator[Entry]:
        with self._reading() as connection:
            if connection is not None:
                with closing(connection.execution_options(yield_per=_CHUNK).execute(query)) as rows:
                    yield from map(_entry, rows)

    def _last(self, connection: Connection) -> Head | None:
        mine = select(entries).where(entries.c.writer == self._head.writer).order_by(entries.c.seq.desc()).limit(1)
        row = connection.execute(mine).first()
        return _entry(row).head if row is not None else None

    def _seal(self, connection: Connection, bodies: Sequence[tuple[Any, str]]) -> list[Entry]:
        made = seal(self._head, bodies)
        if made:
            connection.execute(_ADD_ENTRIES, [asdict(entry) for entry in made])
        return made


_ADD_ENTRIES = insert(entries)

_OF_CALL = (calls.c.writer == entries.c.writer) & (calls.c.seq == entries.c.seq)


def _entry(row: Row[Any]) -> Entry:
    return Entry(**row._mapping)


def _has(connection: Connection, wanted: Collection[str]) -> set[str]:
    return set(connection.scalars(select(calls.c.call_id).where(calls.c.call_id.in_(wanted))))


def _forget(connection: Connection, writer: str, seq: int) -> int:
    """Take out a writer's entries up to one, and what was made from them; how many were records."""
    old = (calls.c.writer == writer) & (calls.c.seq <= seq)
    ids = select(calls.c.id).where(old).scalar_subquery()
    for column in (attempts.c.call, blames.c.call, texts.c.rowid):
        connection.execute(delete(column.table).where(column.in_(ids)))
    records = connection.execute(delete(calls).where(old)).rowcount
    connection.execute(delete(entries).where(entries.c.writer == writer, entries.c.seq <= seq))
    if connection.dialect.name == "sqlite":
        # words that were taken out stay in the index until it is merged
        connection.execute(text("INSERT INTO texts (texts) VALUES ('optimize')"))
    return records
