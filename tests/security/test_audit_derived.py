"""Whatever is changed in the tables that lists, searches and counts read is found by ``verify``."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from audit_writers import small
from conftest import USER, guard, rewarding, vetoing, words
from postgres import Postgres, postgres
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

from stars_guard.audit import CallRecord, Filter, MemoryStore, Text, open_store
from stars_guard.audit.record import Turn
from stars_guard.audit.sql import SqlStore
from stars_guard.auditing.verification import verify
from stars_guard.cli.app import app
from stars_guard.errors import AuditError
from stars_guard.guard import CallOptions
from stars_guard.testing.scripted import ScriptedBackend

__all__ = ["postgres"]

SEALED = {"entries", "alembic_version"}
"""The log itself, and what says which schema it has: all other tables are derived."""

WORDLESS: dict[str, Any] = {"prompt": (Turn(role="user", content=Text(chars=3)),), "answer": Text(chars=0)}


def records() -> list[CallRecord]:
    made = guard(rewarding(), vetoing(), backend=ScriptedBackend(words(12)), beta=0.2, parallel=1, attempts=2)
    for seed in range(2):
        made.blocking.generate(USER, CallOptions(seed=seed, run_id=f"run\0{seed}"))
    assert isinstance(made.audit, MemoryStore)
    # of the last two nothing is kept that another table could hold
    return [*made.audit.records, small("one"), small("bare", **WORDLESS), small("bare too", **WORDLESS)]


def written(url: str) -> SqlStore:
    store = open_store(url)
    assert isinstance(store, SqlStore)

    async def go() -> None:
        for record in records():
            await store.append(record)
        await store.aclose()

    asyncio.run(go())
    return store


def other(value: Any) -> Iterator[Any]:
    """Values that a column could be changed to."""
    match value:
        case bool() | None:
            yield 1
        case int():
            yield from (value + 1, value + 1000, -value - 1)
        case float():
            yield from (value + 1.0, value * (1 + 1e-12) + 1e-12)
        case str():
            yield from (value + "x", value[:-1] if value else "x", value.swapcase() + " ")
        case bytes():
            yield value[:-1] + bytes([value[-1] ^ 1]) if value else b"x"


def changes(tables: dict[str, list[dict[str, Any]]]) -> Iterator[tuple[str, str, list[tuple[str, dict[str, Any]]]]]:
    """Every single change of a row: its name, its table, and its statements.

    Args:
        tables: the rows of each table. ``:_`` names of values are those of the row as it was.
    """
    for table, rows in tables.items():
        for at, row in enumerate(rows):
            old = {f"_{name}": value for name, value in row.items()}
            match = " AND ".join(f'"{name}" IS NOT DISTINCT FROM :_{name}' for name in row)
            yield f"delete {table} {at}", table, [(f'DELETE FROM "{table}" WHERE {match}', old)]
            for name, value in row.items():
                for number, new in enumerate(other(value)):
                    yield (
                        f"update {table} {at} {name} {number}",
                        table,
                        [(f'UPDATE "{table}" SET "{name}" = :new WHERE {match}', {**old, "new": new})],
                    )
                if value is not None:
                    yield (
                        f"empty {table} {at} {name}",
                        table,
                        [(f'UPDATE "{table}" SET "{name}" = NULL WHERE {match}', old)],
                    )
            names = ", ".join(f'"{name}"' for name in row)
            for name, value in row.items():
                if isinstance(value, int):
                    values = {f"_{each}": each_value for each, each_value in row.items()} | {f"_{name}": value + 777}
                    given = ", ".join(f":_{each}" for each in row)
                    yield (
                        f"insert {table} {at} {name}",
                        table,
                        [(f'INSERT INTO "{table}" ({names}) VALUES ({given})', values)],
                    )
        for first, second in pairwise(rows):
            for name in first:
                if first[name] != second[name]:
                    yield f"swap {table} {name}", table, _swap(table, name, first, second)


def _swap(table: str, name: str, first: dict[str, Any], second: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Exchange one column of two rows, by way of a value that neither has."""
    between = -987654 if isinstance(first[name], int) else 1e9 if isinstance(first[name], float) else "between"
    steps = []
    for row, now, new in (
        (first, first[name], between),
        (second, second[name], first[name]),
        (first, between, second[name]),
    ):
        values = {f"_{each}": value for each, value in row.items()} | {f"_{name}": now, "new": new}
        match = " AND ".join(f'"{each}" IS NOT DISTINCT FROM :_{each}' for each in row)
        steps.append((f'UPDATE "{table}" SET "{name}" = :new WHERE {match}', values))
    return steps


def shown(store: SqlStore) -> list[Any]:
    """All that the derived tables hold, and what a search for each word of it finds."""
    with store._engine.connect() as connection:
        form = "words" if connection.dialect.name == "sqlite" else "words::text"
        texts = [tuple(row) for row in connection.execute(text(f"SELECT rowid, {form} FROM texts ORDER BY 1"))]
        others = [
            [tuple(row) for row in connection.execute(text(f"SELECT * FROM {name} ORDER BY 1, 2, 3"))]
            for name in ("calls", "attempts", "blames")
        ]
    finds = [[row.id for row in store.search(Filter(text=word))] for word in ("one", "call", "bad", "nowhere")]
    return [texts, others, finds]


def test_every_single_change_is_found_in_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = written(f"sqlite://{path}")
    assert verify(store).problem is None
    before_all = shown(store)
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.row_factory = sqlite3.Row
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        tables: dict[str, list[dict[str, Any]]] = {}
        for name in set(names) - SEALED:
            # the tables in which SQLite keeps the index of words are tables too
            columns = "rowid, words" if name == "texts" else "*"
            tables[name] = [dict(row) for row in connection.execute(f'SELECT {columns} FROM "{name}"')]
    connection.close()
    assert set(tables) > {"calls", "attempts", "blames", "texts"}
    assert all(tables[name] for name in ("calls", "attempts", "blames", "texts"))
    chosen = list(changes(tables))
    random.Random(18).shuffle(chosen)
    seen: dict[str, int] = {}
    missed = []
    for name, _, statements in chosen:
        kind = " ".join(word for word in name.split() if not word.isdigit())
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] > 2:
            continue
        changed = tmp_path / "changed.db"
        for each in tmp_path.glob("changed.db*"):
            each.unlink()
        shutil.copy(path, changed)
        connection = sqlite3.connect(changed)
        try:
            with connection:
                before = connection.total_changes
                for statement, values in statements:
                    connection.execute(statement, values)
                done = connection.total_changes > before
        except sqlite3.DatabaseError:
            continue
        finally:
            connection.close()
        other_store = SqlStore(store._engine.url.set(database=str(changed)))
        # SQLite's tables for the index of words may hold what nothing reads
        if done and verify(other_store).problem is None and shown(other_store) != before_all:
            missed.append(name)
        other_store.close()
    assert not missed
    assert len(seen) > 60


def test_every_single_change_is_found_in_postgresql(postgres: Postgres) -> None:
    store = written(postgres.database())
    assert verify(store).problem is None
    before_all = shown(store)
    with store._engine.begin() as connection:
        names = set(inspect(connection).get_table_names()) - SEALED
        tables = {}
        for name in names:
            columns = "rowid, words::text AS words" if name == "texts" else "*"
            rows = connection.execute(text(f'SELECT {columns} FROM "{name}" ORDER BY 1, 2'))
            tables[name] = [dict(row._mapping) for row in rows]
    assert names == {"calls", "attempts", "blames", "texts"}
    chosen = list(changes(tables))
    random.Random(18).shuffle(chosen)
    seen: dict[str, int] = {}
    missed = []
    for name, table, statements in chosen:
        kind = " ".join(word for word in name.split() if not word.isdigit())
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] > 1:
            continue
        with store._engine.begin() as connection:
            connection.execute(text(f'CREATE TABLE kept AS SELECT * FROM "{table}"'))
        try:
            with store._engine.begin() as connection:
                done = sum(_run(connection, table, *each).rowcount for each in statements)
            if done and verify(store).problem is None and shown(store) != before_all:
                missed.append(name)
        except DBAPIError:
            continue
        finally:
            with store._engine.begin() as connection:
                connection.execute(text(f'DELETE FROM "{table}"'))
                connection.execute(text(f'INSERT INTO "{table}" SELECT * FROM kept'))
                connection.execute(text("DROP TABLE kept"))
    assert not missed
    assert len(seen) > 60
    assert verify(store).problem is None
    store.close()


def _run(connection: Any, table: str, statement: str, values: dict[str, Any]) -> Any:
    if table == "texts":
        # a vector of words is not a text
        statement = statement.replace('"words" IS', "words::text IS").replace(":_words)", "CAST(:_words AS tsvector))")
        statement = statement.replace('"words" = :new', '"words" = CAST(:new AS tsvector)')
    return connection.execute(text(statement), values)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_rows_that_are_gone_or_new_are_named_and_made_anew(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite://{tmp_path}/a.db" if kind == "sqlite" else request.getfixturevalue("postgres").database()
    store = written(url)
    ids = [record.call_id for record in store.read()]
    rows, stats = store.search(limit=None), store.stats()
    with store._engine.begin() as connection:
        for statement in (
            f"DELETE FROM calls WHERE call_id = '{ids[0]}'",
            "UPDATE calls SET rejections = 0, finish = 'eos' WHERE call_id = 'one'",
            "INSERT INTO blames VALUES (99, 'nobody', 0, 1, 0)",
        ):
            connection.execute(text(statement))
    assert ids[0] not in [record.call_id for record in store.read()]
    run = CliRunner().invoke
    done = run(app, ["audit", "verify", url])
    assert done.exit_code == 1
    assert f"call {ids[0]}: it is not listed" in done.output
    assert "nobody" not in done.output
    report = verify(store)
    assert report.differences >= 3
    assert report.records == len(ids), "the records themselves hold"
    done = run(app, ["audit", "rebuild", url])
    assert (done.exit_code, f"from {len(ids)} records" in done.output) == (0, True)
    assert verify(store).problem is None
    assert [record.call_id for record in store.read()] == ids
    assert (store.search(limit=None), store.stats()) == (rows, stats)
    asyncio.run(store.append(small("new")))
    assert verify(store).problem is None
    store.close()


def test_a_log_of_many_calls_is_compared_in_parts(tmp_path: Path) -> None:
    stores = [open_store(f"sqlite://{tmp_path}/a.db") for _ in range(3)]

    async def go() -> None:
        await asyncio.gather(*(stores[number % 3].append(small(f"c{number}")) for number in range(350)))
        for store in stores:
            await store.aclose()

    asyncio.run(go())
    store = stores[0]
    assert isinstance(store, SqlStore)
    assert verify(store).problem is None
    with store._engine.begin() as connection:
        connection.execute(text("UPDATE calls SET seconds = 3 WHERE call_id LIKE 'c%7'"))
    report = verify(store)
    assert report.differences == 35
    assert len(report.differing) == 35
    assert store.rebuild() == 350
    assert verify(store).problem is None
    assert len(store.search(Filter(text="c7"), limit=None)) == 1
    store.close()


def test_calls_that_differ_are_counted_beyond_those_that_are_named(tmp_path: Path) -> None:
    store = written(f"sqlite://{tmp_path}/a.db")
    with store._engine.begin() as connection:
        for number in range(150):
            connection.execute(text(f"INSERT INTO blames VALUES ({1000 + number}, 'x', 0, 1, 0)"))
    report = verify(store)
    assert (report.differences, len(report.differing)) == (150, 100)
    store.close()


def test_what_is_stored_as_no_text_is_a_difference_too(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = written(f"sqlite://{path}")
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE calls SET preview = CAST(x'ff' AS TEXT)")
    connection.close()
    done = CliRunner().invoke(app, ["audit", "verify", f"sqlite://{path}"])
    assert done.exit_code == 1
    with pytest.raises(AuditError):
        store.search()
    store.close()
