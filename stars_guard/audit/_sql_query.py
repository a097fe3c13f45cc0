"""Finding calls in a database: the same answers as `stars_guard.audit._query` gives."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    TextClause,
    and_,
    bindparam,
    exists,
    func,
    or_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql import sqltypes

from stars_guard.audit._query import Filter, News, Place, Summary, stamp, storable, words
from stars_guard.audit._tables import blames, calls, texts

__all__ = ["conditions", "ids_of", "news", "page", "texts_row"]

_WINDOW = 1000
"""How far back a late commit can lie: numbers are given before they are committed, and not in that order."""


_FEW = 2000
"""Finds of a text up to which they are named one by one: PostgreSQL's planner guesses rare words to be frequent."""

_MANY = 20_000
"""Finds from which on SQLite goes through calls, newest first, and not through all finds."""


def conditions(wanted: Filter, dialect: str) -> list[ColumnElement[bool]]:
    """What must hold of a row of ``calls``."""
    found: list[ColumnElement[bool]] = []
    if wanted.since is not None:
        found.append(calls.c.started_at >= stamp(wanted.since))
    if wanted.until is not None:
        found.append(calls.c.started_at < stamp(wanted.until))
    for name in ("policy", "finish", "stage", "run_id"):
        value = getattr(wanted, name)
        if value is not None:
            found.append(calls.c[name] == storable(value))
    if wanted.judge is not None:
        blame = blames.alias()
        found.append(exists().where(blame.c.judge == storable(wanted.judge), blame.c.call == calls.c.id))
    if wanted.rejected:
        found.append(calls.c.rejections > 0)
    asked = sorted(words(wanted.text or ""))
    if asked:
        found.append(calls.c.id.in_(_found_by(asked, dialect)))
    return found


def ids_of(wanted: Filter, dialect: str) -> Select[Any]:
    """The ids of the wanted calls."""
    return select(calls.c.id).where(*conditions(wanted, dialect))


def page(connection: Connection, wanted: Filter, limit: int | None, before: Place | None) -> list[Summary]:
    """As `stars_guard.audit._query.newest`."""
    dialect = connection.dialect.name
    query = select(calls).where(*conditions(replace(wanted, text=None), dialect))
    if before is not None:
        start, call = map(storable, before)
        query = query.where(or_(calls.c.started_at < start, and_(calls.c.started_at == start, calls.c.call_id < call)))
    query = query.order_by(calls.c.started_at.desc(), calls.c.call_id.desc())
    asked = sorted(words(wanted.text or ""))
    if asked:
        finds = _found_by(asked, dialect)
        most = _MANY if dialect == "sqlite" else _FEW + 1
        found = connection.scalars(finds.limit(most)).all()
        if len(found) >= most and dialect == "sqlite":
            return _walk(connection, query, finds, limit)
        query = query.where(calls.c.id.in_(found if len(found) <= _FEW else finds))
    return _summaries(connection, connection.execute(query.limit(limit)).all())


def _walk(connection: Connection, query: Select[Any], finds: Select[Any], limit: int | None) -> list[Summary]:
    """Rows of the query that are among the finds: the first so many of a frequent word come soon."""
    rows: list[Row[Any]] = []
    with closing(connection.execution_options(yield_per=_WINDOW).execute(query)) as result:
        for part in result.partitions():
            numbers = [row.id for row in part]
            there = set(connection.scalars(finds.where(texts.c.rowid.between(min(numbers), max(numbers)))))
            rows += [row for row in part if row.id in there]
            if limit is not None and len(rows) >= limit:
                break
    return _summaries(connection, rows[:limit])


def news(connection: Connection, wanted: Filter, cursor: str | None) -> News:
    """As `stars_guard.audit.store.AuditStore.after`. The cursor is the last number, and those before that are open."""
    last = connection.scalar(select(func.max(calls.c.id))) or 0
    there = set(connection.scalars(select(calls.c.id).where(calls.c.id > last - _WINDOW, calls.c.id <= last)))
    first = min(there, default=last)
    missing = [number for number in range(max(first, last - _WINDOW + 1), last) if number not in there]
    now = ",".join(str(number) for number in (last, *missing))
    if cursor is None:
        return News((), now)
    seen, *were_open = (int(number) for number in cursor.split(","))
    if not all(0 <= number < 1 << 63 for number in (seen, *were_open)) or len(were_open) > _WINDOW:
        raise ValueError("the cursor is not one of this log")
    new = or_(and_(calls.c.id > seen, calls.c.id <= last), calls.c.id.in_(were_open))
    query = select(calls).where(new, *conditions(wanted, connection.dialect.name)).order_by(calls.c.id)
    return News(tuple(_summaries(connection, connection.execute(query).all())), now)


@cache
def texts_row(dialect: str) -> TextClause:
    """The statement that adds the words of a call."""
    if dialect == "sqlite":
        made = text("INSERT INTO texts (rowid, words) VALUES (:rowid, :words)")
        return made.bindparams(bindparam("words", type_=_Joined()))
    made = text("INSERT INTO texts (rowid, words) VALUES (:rowid, array_to_tsvector(:words))")
    return made.bindparams(bindparam("words", type_=ARRAY(sqltypes.Text)))


class _Joined(sqltypes.TypeDecorator[list[str]]):
    """Words with spaces between."""

    impl = sqltypes.Text
    cache_ok = True

    def process_bind_param(self, value: list[str] | None, dialect: object) -> str:
        return " ".join(value or ())


def _found_by(asked: list[str], dialect: str) -> Select[Any]:
    if dialect == "sqlite":
        match = text("texts MATCH :asked").bindparams(asked=" AND ".join(f'"{word}"' for word in asked))
        return select(texts.c.rowid).where(match)
    match = text("texts.words @@ CAST(:asked AS tsquery)").bindparams(asked=" & ".join(f"'{word}'" for word in asked))
    return select(texts.c.rowid).where(match)


def _summaries(connection: Connection, rows: Sequence[Row[Any]]) -> list[Summary]:
    judges: dict[int, list[str]] = {row.id: [] for row in rows}
    numbers = list(judges)
    for start in range(0, len(numbers), 500):
        part = blames.c.call.in_(numbers[start : start + 500])
        for blame in connection.execute(select(blames).where(part).order_by(blames.c.call, blames.c.place)):
            judges[blame.call].append(blame.judge)
    return [_summary(row, judges[row.id]) for row in rows]


def _summary(row: Row[Any], judges: list[str]) -> Summary:
    names = (
        "run_id",
        "started_at",
        "seconds",
        "policy",
        "mode",
        "stage",
        "finish",
        "segments",
        "proposals",
        "rejections",
        "drawn",
        "kept",
        "preview",
    )
    return Summary(id=row.call_id, judges=tuple(judges), **{name: getattr(row, name) for name in names})
