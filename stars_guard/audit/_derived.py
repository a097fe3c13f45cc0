"""Comparing what lists, searches and counts read in a database with the sealed entries that it was made from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from sqlalchemy import Column, Connection, Row, Select, Table, Text, cast, delete, insert, select, text, tuple_
from sqlalchemy.exc import DBAPIError

from stars_guard.audit._rows import attempts_of, blames_of, call_of, words_of
from stars_guard.audit._sql_query import texts_row
from stars_guard.audit._tables import attempts, blames, calls, entries, texts
from stars_guard.audit.entries import Differs, Entry
from stars_guard.audit.record import CallRecord
from stars_guard.errors import AuditError

__all__ = ["Comparison", "entries_in_order", "index_of_words", "insert_derived", "pages_of", "rebuild"]

_CHUNK = 100

_CHILDREN: Sequence[tuple[Table, Column[Any], str]] = (
    (attempts, attempts.c.call, "candidates"),
    (blames, blames.c.call, "judges that rejected"),
    (texts, texts.c.rowid, "words"),
)
"""The tables whose rows belong to a row of ``calls``, the column that says to which, and what a reader calls them."""


# made once, because SQLAlchemy compiles a statement that it has seen for nothing
_ADD_CALLS = insert(calls).returning(calls.c.id, sort_by_parameter_order=True)
_ADD_ATTEMPTS = insert(attempts)
_ADD_BLAMES = insert(blames)


def insert_derived(connection: Connection, made: Sequence[tuple[CallRecord, Entry]]) -> None:
    """Add what is derived from records, in their order."""
    if not made:
        return
    ids = connection.scalars(_ADD_CALLS, [call_of(record, entry) for record, entry in made]).all()
    records = [(call, record) for call, (record, _) in zip(ids, made, strict=True)]
    many: list[tuple[Any, list[dict[str, Any]]]] = [
        (_ADD_ATTEMPTS, [row for call, record in records for row in attempts_of(call, record)]),
        (_ADD_BLAMES, [row for call, record in records for row in blames_of(call, record)]),
        # each call has its row of words, though it may have none: so a call's number cannot be changed unseen
        (
            texts_row(connection.dialect.name),
            [{"rowid": call, "words": words_of(record)} for call, record in records],
        ),
    ]
    for statement, values in many:
        if values:
            connection.execute(statement, values)


def entries_in_order(connection: Connection) -> Iterator[Sequence[Entry]]:
    """All entries, each chain in its order, a bounded number at a time. No cursor stays open between them."""
    place: tuple[str, int] | None = None
    while True:
        query = select(entries).order_by(entries.c.writer, entries.c.seq).limit(_CHUNK)
        if place is not None:
            query = query.where(tuple_(entries.c.writer, entries.c.seq) > place)
        found = [Entry(**row._mapping) for row in connection.execute(query)]
        if not found:
            return
        yield found
        place = found[-1].writer, found[-1].seq


class Comparison:
    """Compares derived rows with entries. Give it all entries, in the order of `entries_in_order`.

    Args:
        connection: everything is read from one snapshot of the database if its transaction is one.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._writer = ""
        self._last = -1

    def of(self, made: Sequence[Entry]) -> Iterator[Differs]:
        """The calls among these entries whose rows are not those of their records."""
        records = [(entry, record) for entry in made if (record := _record(entry)) is not None]
        if not records:
            return
        rows: defaultdict[tuple[str, int], list[Row[Any]]] = defaultdict(list)
        places = [(entry.writer, entry.seq) for entry, _ in records]
        for row in self._connection.execute(select(calls).where(tuple_(calls.c.writer, calls.c.seq).in_(places))):
            rows[row.writer, row.seq].append(row)
        numbers = [row.id for found in rows.values() for row in found]
        children = [self._children(table, column, numbers) for table, column, _ in _CHILDREN]
        for entry, record in records:
            there = rows[entry.writer, entry.seq]
            wrong = list(self._differing(entry, record, there, children))
            if wrong:
                where = f"{entry.where}, call {record.call_id}"
                yield Differs(where=where, call=record.call_id, text="; ".join(wrong))

    def strays(self) -> Iterator[Differs]:
        """Rows that no entry stands behind."""
        match = (entries.c.writer == calls.c.writer) & (entries.c.seq == calls.c.seq) & (entries.c.kind == "record")
        no_entry = select(calls.c.id, calls.c.call_id).where(~select(entries.c.seq).where(match).exists())
        for row in self._stream(no_entry):
            text = "it is listed, and no record of it is in the log"
            yield Differs(where=f"call {row.call_id}", call=str(row.call_id), text=text)
        for table, column, name in _CHILDREN:
            no_call = select(column).where(~select(calls.c.id).where(calls.c.id == column).exists())
            for row in self._stream(no_call):
                where = f"row {row[0]} of {table.name}"
                yield Differs(where=where, call="", text=f"these {name} belong to no call")

    def _stream(self, query: Select[Any]) -> Iterator[Row[Any]]:
        with closing(self._connection.execution_options(yield_per=_CHUNK).execute(query)) as rows:
            yield from rows

    def _children(
        self, table: Table, column: Column[Any], numbers: Sequence[int]
    ) -> dict[int, list[Mapping[str, Any]]]:
        found: dict[int, list[Mapping[str, Any]]] = {number: [] for number in numbers}
        columns: list[Any] = list(table.c)
        if table is texts and self._vectors:
            columns = [texts.c.rowid, cast(texts.c.words, Text).label("words")]
        for row in self._connection.execute(select(*columns).where(column.in_(numbers))):
            found[row._mapping[column.name]].append(dict(row._mapping))
        return found

    @property
    def _vectors(self) -> bool:
        """Whether words are kept as a vector of PostgreSQL, which has an order of its own."""
        return self._connection.dialect.name == "postgresql"

    def _words(self, call: int, record: CallRecord) -> Mapping[str, Any]:
        words = words_of(record)
        return {"rowid": call, "words": sorted(f"'{word}'" for word in words) if self._vectors else " ".join(words)}

    def _stored(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**row, "words": sorted(row["words"].split())} if self._vectors and "words" in row else row

    def _differing(
        self,
        entry: Entry,
        record: CallRecord,
        there: Sequence[Row[Any]],
        children: Sequence[Mapping[int, Sequence[Mapping[str, Any]]]],
    ) -> Iterator[str]:
        """What is wrong with the rows of one call."""
        if len(there) != 1:
            yield "it is not listed" if not there else f"it is listed {len(there)} times"
            return
        (row,) = there
        if entry.writer != self._writer:
            self._writer, self._last = entry.writer, -1
        if row.id <= self._last:
            yield "it is not listed in the order of writing"
        self._last = max(self._last, row.id)
        wanted = call_of(record, entry)
        names = [name for name, value in wanted.items() if row._mapping[name] != value]
        if names:
            yield f"its {', '.join(names)} in lists is not that of its record"
        rebuilt = (attempts_of(row.id, record), blames_of(row.id, record), [self._words(row.id, record)])
        for (_, _, name), found, made in zip(_CHILDREN, children, rebuilt, strict=True):
            if sorted(map(_key, map(self._stored, found[row.id]))) != sorted(map(_key, made)):
                yield f"its {name} in lists and counts are not those of its record"


def index_of_words(connection: Connection) -> str | None:
    """What is wrong with SQLite's index of words, which is made of tables of its own; None if nothing is.

    Args:
        connection: its transaction holds the lock for writing, as SQLite wants for this. Nothing is written.
    """
    try:
        if [tuple(row) for row in connection.execute(text("SELECT k, v FROM texts_config"))] != [("version", 4)]:
            return "its settings were changed"
        connection.execute(text("INSERT INTO texts (texts) VALUES ('integrity-check')"))
    except DBAPIError as exc:
        return str(exc.orig)
    return None


def pages_of(connection: Connection) -> str | None:
    """What is wrong with the tables and indexes of an SQLite database as such; None if nothing is."""
    try:
        said = [str(row[0]) for row in connection.execute(text("PRAGMA integrity_check(1)"))]
    except DBAPIError as exc:
        return str(exc.orig)
    return None if said == ["ok"] else " ".join(said)


def _record(entry: Entry) -> CallRecord | None:
    """The record of an entry. One that cannot be read has a problem of its own, which its reader reports."""
    try:
        return entry.record() if entry.kind == "record" else None
    except AuditError:
        return None


def _key(row: Mapping[str, Any]) -> tuple[tuple[str, str, Any], ...]:
    # whole numbers and floats that are equal are equal; everything else is compared with its type
    return tuple(
        (name, "number" if isinstance(value, int | float) else type(value).__name__, _ordered(value))
        for name, value in sorted(row.items())
    )


def _ordered(value: Any) -> Any:
    return 0 if value is None else value


def rebuild(connection: Connection) -> int:
    """Make all derived rows again, in the order in which calls ended. Returns how many calls there are.

    Raises:
        AuditError: an entry cannot be read.
    """
    connection.execute(text("CREATE TEMPORARY TABLE rebuilt (ended TEXT, writer TEXT, seq BIGINT)"))
    connection.execute(text("CREATE INDEX rebuilt_place ON rebuilt (ended, writer, seq)"))
    _note_ends(connection)
    for table in (attempts, blames, texts, calls):
        connection.execute(delete(table))
    done, place = 0, ("", "", 0)
    while part := connection.execute(_NEXT, dict(zip(("ended", "writer", "seq"), place, strict=True))).all():
        places = [(row.writer, row.seq) for row in part]
        there = select(entries).where(tuple_(entries.c.writer, entries.c.seq).in_(places))
        found = {(row.writer, row.seq): Entry(**row._mapping) for row in connection.execute(there)}
        insert_derived(connection, [(found[each].record(), found[each]) for each in places])
        done += len(part)
        ended, writer, seq = part[-1]
        place = (ended, writer, seq)
    connection.execute(text("DROP TABLE rebuilt"))
    return done


_NEXT = text(
    "SELECT ended, writer, seq FROM rebuilt WHERE (ended, writer, seq) > (:ended, :writer, :seq) "  # noqa: S608
    f"ORDER BY ended, writer, seq LIMIT {_CHUNK}"
)


def _note_ends(connection: Connection) -> None:
    """Write down when each call ended: within a chain never before the one before it."""
    writer, last = "", ""
    for part in entries_in_order(connection):
        rows = []
        for entry in part:
            last = last if entry.writer == writer else ""
            writer = entry.writer
            if entry.kind == "record":
                last = max(last, entry.record().ended_at)
                rows.append({"ended": last, "writer": entry.writer, "seq": entry.seq})
        if rows:
            connection.execute(text("INSERT INTO rebuilt VALUES (:ended, :writer, :seq)"), rows)
