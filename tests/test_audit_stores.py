"""Stores in files and databases: the same answers, whole chains whoever writes, and nothing lost when they are down."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from audit_writers import small, write_for_ever, write_many
from platformdirs import user_state_path
from postgres import Postgres, postgres
from sqlalchemy import inspect, text
from test_audit_query import RECORDS

from stars_guard.audit import (
    AuditStore,
    Filter,
    JsonlStore,
    MemoryStore,
    Text,
    Writing,
    default_url,
    open_store,
)
from stars_guard.audit import (
    _sql_query as sql_query,
)
from stars_guard.audit._tables import metadata
from stars_guard.audit.chained_store import ChainedStore
from stars_guard.audit.sql import SqlStore
from stars_guard.audit.stats import Stats
from stars_guard.audit.versions import NEWEST
from stars_guard.auditing.verification import verify
from stars_guard.errors import AuditError

__all__ = ["postgres"]

KINDS = ("jsonl", "sqlite", "postgresql")
LIGHT = ["stars_guard.audit.sql", "stars_guard.audit.jsonl", "alembic.command", "psycopg"]
"""What processes that write need: imported once, and not in each of them."""


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        return server.database()
    return f"{request.param}://{tmp_path}/log/audit"


def opened(url: str, **writing: Any) -> ChainedStore:
    store = open_store(url, Writing(**writing) if writing else None)
    assert isinstance(store, ChainedStore)
    return store


FILTERS = (
    Filter(),
    Filter(since=datetime(2026, 11, 24, 12, 3, tzinfo=UTC)),
    Filter(until=datetime(2026, 11, 24, 13, tzinfo=UTC)),
    Filter(policy="default"),
    Filter(policy="default", finish="eos", rejected=True),
    Filter(judge="words"),
    Filter(judge="useful", text="rivers"),
    Filter(run_id="run-a"),
    Filter(stage="answer", text="THE élbe"),
    Filter(text="rhin"),
    Filter(text="..."),
    Filter(text="nowhere"),
)


@pytest.mark.parametrize("many", [20_000, 1])
async def test_every_store_gives_the_same_answers(url: str, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_query, "_MANY", many)
    monkeypatch.setattr(sql_query, "_FEW", many // 10)
    memory = MemoryStore()
    async with opened(url) as store:
        assert (store.read(), store.search(), store.heads(), store.size()) == ([], [], [], 0)
        assert store.stats() == memory.stats()
        assert store.after().calls == ()
        begin = store.after().cursor
        for record in RECORDS:
            await store.append(record)
            await memory.append(record)
        assert store.read() == memory.read() == list(store.select())
        for wanted in FILTERS:
            rows = memory.search(wanted)
            assert store.search(wanted) == rows, wanted
            assert list(store.select(wanted)) == list(memory.select(wanted))
            same_counts(store.stats(wanted), memory.stats(wanted))
            assert store.after(begin, wanted).calls == memory.after("0", wanted).calls
            if rows:
                assert store.search(wanted, limit=1) == rows[:1]
                assert store.search(wanted, before=rows[0].place) == rows[1:]
        for call in ("a", "run-a", "b"):
            assert store.get(call) == memory.get(call)
        for wrong in ("", "z", "%"):
            with pytest.raises(AuditError, match="no records fit"):
                store.get(wrong)
        cursor = store.after(begin).cursor
        assert store.after(cursor).calls == ()
        await store.append(small("late"))
        assert [row.id for row in store.after(cursor).calls] == ["late"]


def same_counts(one: Stats, other: Stats) -> None:
    assert one.finishes == other.finishes
    assert one.judges == other.judges
    assert (one.total, one.policies, one.bucket, one.times) == (other.total, other.policies, other.bucket, other.times)
    assert [(p.index, p.accepted, p.rejected, pytest.approx(p.threshold)) for p in one.by_index] == [
        (p.index, p.accepted, p.rejected, p.threshold) for p in other.by_index
    ]
    assert (one.width, one.cells) == (other.width, other.cells)


def test_eight_processes_write_and_the_chain_is_whole(url: str) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIGHT)
    names = [f"p{number}" for number in range(8)]
    workers = [context.Process(target=write_many, args=(url, name, 300)) for name in names]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * 8
    store = opened(url)
    report = verify(store)
    assert report.problem is None
    assert report.records == 2400
    assert len(store.heads()) == (1 if url.startswith("jsonl") else 8)
    by_writer: dict[str, list[int]] = {name: [] for name in names}
    for record in store.read():
        name, _, number = record.call_id.partition("-")
        by_writer[name].append(int(number))
    assert all(numbers == list(range(300)) for numbers in by_writer.values())
    store.close()


def test_kill_minus_nine_loses_nothing_that_was_durable(url: str) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIGHT)
    durable: dict[str, int] = {}
    for number in range(28):
        here, there = context.Pipe(duplex=False)
        writer = context.Process(target=write_for_ever, args=(url, f"k{number}", there))
        writer.start()
        there.close()
        for _ in range(1 + number % 4):
            durable[f"k{number}"] = here.recv()
        time.sleep(number % 7 / 1000)
        writer.kill()
        writer.join(30)
        with suppress(EOFError):
            while True:
                durable[f"k{number}"] = here.recv()
        here.close()
    store = opened(url)
    report = verify(store)
    assert report.problem is None
    ids = [record.call_id for record in store.read()]
    assert len(ids) == len(set(ids)) == report.records
    assert {f"{name}-{i}" for name, count in durable.items() for i in range(count)} <= set(ids)
    asyncio.run(store.append(small("after")))
    assert verify(store).records == len(ids) + 1
    store.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_the_schema_is_made_from_nothing_and_is_what_the_code_expects(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    where = f"sqlite://{tmp_path}/a.db" if kind == "sqlite" else request.getfixturevalue("postgres").database()
    store = opened(where)
    assert isinstance(store, SqlStore)
    async with store:
        await store.append(small("one"))
        await opened(where).append(small("two"))
        with store._engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"include_name": _ours})
            assert compare_metadata(context, metadata) == []
            assert inspect(connection).has_table("texts")
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
            connection.commit()
        newer = opened(where, on_error="block", patience=0)
        with pytest.raises(AuditError, match="newer version"):
            await newer.append(small("three"))
        await newer.aclose()


def _ours(name: str | None, kind: str, parents: object) -> bool:
    return kind != "table" or not (name or "").startswith(("texts", "alembic"))


def test_an_sqlite_file_is_the_owners_and_reading_makes_none(tmp_path: Path) -> None:
    store = opened(f"sqlite://{tmp_path}/deep/a.db")
    assert store.search() == []
    assert not (tmp_path / "deep").exists()
    asyncio.run(store.append(small("one")))
    assert (tmp_path / "deep" / "a.db").stat().st_mode & 0o777 == 0o600
    store.close()


def test_the_default_is_sqlite_in_the_state_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = open_store()
    assert isinstance(store, SqlStore)
    assert store.name == f"sqlite+pysqlite:///{user_state_path('stars-guard')}/audit.db"
    assert default_url().startswith("sqlite:///")
    monkeypatch.chdir(tmp_path)
    for same in (f"sqlite://{tmp_path}/a%20b.db", "sqlite://a%20b.db", f"sqlite:///{tmp_path}/a b.db"):
        assert opened(same).name.endswith(f"{tmp_path}/a b.db")
    with pytest.raises(AuditError, match="cannot use the audit URL") as info:
        open_store("postgresql+psycopg://u:hush@host:port/x")
    assert "hush" not in str(info.value)
    assert "hush" not in opened("postgresql+psycopg://u:hush@host/x").name


async def test_records_wait_in_the_spool_while_postgresql_is_down(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Postgres()
    server.start()
    try:
        url = server.database()
        store = opened(url)
        await store.append(small("before"))
        server.stop()
        with caplog.at_level(logging.WARNING):
            await asyncio.gather(*(store.append(small(f"down-{number}")) for number in range(100)))
        assert "records are put aside" in caplog.text
        spools = list((user_state_path("stars-guard") / "spool").iterdir())
        assert len(spools) == 1
        assert spools[0].stat().st_mode & 0o777 == 0o600
        # this process goes; another finds what it left
        await store.aclose()
        server.start()
        other = opened(url)
        await other.append(small("back"))
        assert [r.call_id for r in other.read()] == ["before", *(f"down-{n}" for n in range(100)), "back"]
        assert not list((user_state_path("stars-guard") / "spool").iterdir())
        server.stop()
        await other.append(small("again"))
        server.start()
        async with asyncio.timeout(20):
            # nobody writes: the spool is emptied all the same
            while list((user_state_path("stars-guard") / "spool").iterdir()):
                await asyncio.sleep(0.1)
        assert other.get("again").call_id == "again"
        assert verify(other).problem is None
        await other.aclose()
    finally:
        server.remove()


async def test_block_waits_and_then_fails_and_drop_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    where = f"jsonl://{tmp_path}/file/a.jsonl"
    waiting = opened(f"jsonl://{tmp_path}/later/a.jsonl", on_error="block")
    (tmp_path / "later").write_text("")
    writing = asyncio.create_task(waiting.append(small("one")))
    await asyncio.sleep(0.3)
    assert not writing.done()
    (tmp_path / "later").unlink()
    await writing
    assert waiting.get("one")
    failing = opened(where, on_error="block", durability="batch", patience=0.1, linger=0.01)
    await failing.append(small("one"))
    await failing.aclose()
    with pytest.raises(AuditError, match="cannot write"):
        await failing.append(small("two"))
    await failing.aclose()
    dropping = opened(where, on_error="drop")
    await dropping.append(small("one"))
    assert dropping._queue.dropped == 1
    assert "1 audit records were dropped" in caplog.text
    await dropping.aclose()


async def test_a_batch_is_written_soon_and_when_the_store_is_closed(url: str) -> None:
    store = opened(url, durability="batch")
    for number in range(100):
        await store.append(small(f"c{number}"))
    async with asyncio.timeout(10):
        while len(store.read()) < 100:
            await asyncio.sleep(0.05)
    await store.append(small("last"))
    await store.aclose()
    assert opened(url).get("last")


def test_what_waits_is_written_when_the_program_ends(tmp_path: Path) -> None:
    code = (
        "import asyncio; from audit_writers import small; from stars_guard.audit import open_store;"
        "from stars_guard.audit import Writing;"
        f"s = open_store('sqlite://{tmp_path}/a.db', Writing(durability='batch', linger=60));"
        "asyncio.run(s.append(small('one')))"
    )
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={**os.environ, "PYTHONPATH": path})
    assert opened(f"sqlite://{tmp_path}/a.db").get("one")


@pytest.mark.parametrize("kind", ["jsonl", "sqlite"])
async def test_a_full_disk_fails_the_call_and_harms_no_record(kind: str, tmp_path: Path) -> None:
    store = opened(f"{kind}://{tmp_path}/a", on_error="block", patience=0)
    await store.append(small("one"))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    big = Text(content="x" * 200_000, chars=200_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, old[1]))
    try:
        with pytest.raises(AuditError, match="cannot write the audit log"):
            await store.append(small("two", answer=big))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    await store.append(small("three", answer=big))
    assert [record.call_id for record in store.read()] == ["one", "three"]
    assert verify(store).problem is None
    await store.aclose()


async def test_a_file_is_turned_over_by_size_and_by_day(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    store = opened(f"jsonl://{path}?max_bytes=3000")
    for number in range(20):
        await store.append(small(f"c{number}"))
    parts = sorted(tmp_path.glob("a.jsonl.*"))
    assert len(parts) > 3
    assert all(part.stat().st_size <= 3000 for part in (*parts, path))
    assert [record.call_id for record in JsonlStore(path).read()] == [f"c{number}" for number in range(20)]
    assert verify(JsonlStore(path)).records == 20
    assert len(store.heads()) == 1
    daily = opened(f"jsonl://{path}?daily=1")
    await daily.append(small("today"))
    yesterday = (datetime.now(UTC) - timedelta(days=1)).timestamp()
    os.utime(path, (yesterday, yesterday))
    await daily.append(small("tomorrow"))
    assert path.read_bytes().count(b"\n") == 1
    assert verify(daily).records == 22


async def test_a_log_of_before_the_chain_is_read_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    old = small("old").model_dump_json().replace(f'"schema_version":{NEWEST}', '"schema_version":1')
    old = old.replace(f'"{2**62}"', str(2**62))
    path.write_text(old + "\n" + old[:50] + "\n")
    store = opened(f"jsonl://{path}")
    await store.append(small("new"))
    assert [record.call_id for record in store.read()] == ["old", "new"]
    assert store.read()[0].seed == 2**62
    report = verify(store)
    assert (report.problem, report.records, report.unsealed) == (None, 1, 1)


def test_a_store_by_hand_needs_two_methods() -> None:
    class Mine(AuditStore):
        async def append(self, record: Any) -> None:
            self.last = record

        def read(self) -> list[Any]:
            return [self.last]

    mine = Mine()
    asyncio.run(mine.append(small("one")))
    assert mine.get("one") == mine.last
