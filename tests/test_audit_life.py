"""What waits while a store is down, and what is left when a store is closed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import threading
from pathlib import Path

import psycopg
import pytest
from audit_writers import small
from platformdirs import user_state_path
from postgres import Postgres, postgres

from stars_guard.audit import JsonlStore, Writing, open_store, shared_store
from stars_guard.audit.chained_store import ChainedStore
from stars_guard.audit.entries import canonical
from stars_guard.audit.versions import NEWEST
from stars_guard.auditing.verification import verify

__all__ = ["postgres"]

OLD_RECORD = (Path(__file__).parent / "records" / "v1" / "fa0b545.jsonl").read_bytes().splitlines()[0]


def spool_of(store: ChainedStore, lines: list[bytes]) -> Path:
    """What a process has left behind that died while the store was down."""
    folder = user_state_path("stars-guard") / "spool"
    folder.mkdir(parents=True)
    path = folder / f"{hashlib.sha256(store.name.encode()).hexdigest()[:16]}-0123456789abcdef.jsonl"
    path.write_bytes(b"".join(lines))
    return path


def payload(call_id: str, **more: object) -> bytes:
    return canonical({**small(call_id).model_dump(mode="json"), **more}).encode()


async def test_what_a_spool_holds_is_written_or_set_aside_and_never_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = JsonlStore(tmp_path / "a.jsonl")
    newer = payload("next", schema_version=NEWEST + 1, mood="fine")
    torn = payload("torn")[:99]
    unreadable = [newer + b"\n", b'garbage \xff\x00 {"a": \n', b"{}\n", b"\n", torn]
    readable = [payload("one") + b"\n", OLD_RECORD + b"\n", payload("two") + b"\n"]
    lines = [readable[0], *unreadable[:2], readable[1], *unreadable[2:4], readable[2], unreadable[4]]
    path = spool_of(store, lines)
    with caplog.at_level(logging.WARNING):
        await store.append(small("new"))
    records = store.read()
    old = json.loads(OLD_RECORD)
    assert [record.call_id for record in records] == ["one", old["call_id"], "two", "new"]
    assert [record.schema_version for record in records] == [NEWEST, 1, NEWEST, NEWEST]
    assert verify(store).problem is None
    assert not path.exists()
    aside = path.with_suffix(".unreadable")
    assert aside.read_bytes() == b"".join(unreadable)
    assert aside.stat().st_mode & 0o777 == 0o600
    assert "5 lines of an audit spool cannot be read by this version" in caplog.text
    assert str(aside) in caplog.text
    # nobody looks at it again, and after an upgrade its records can still be written
    await store.aclose()
    await store.append(small("later"))
    assert aside.exists()
    await store.aclose()
    aside.write_bytes(payload("next") + b"\n")
    aside.rename(path)
    await store.append(small("last"))
    assert [record.call_id for record in store.read()][4:] == ["later", "next", "last"]
    await store.aclose()
    assert list(path.parent.iterdir()) == []


async def test_a_spool_that_is_taken_over_twice_is_written_once(tmp_path: Path) -> None:
    store = JsonlStore(tmp_path / "a.jsonl")
    await store.append(small("one"))
    await store.aclose()
    path = spool_of(store, [payload("one") + b"\n", b"garbage\n", payload("two") + b"\n"])
    path.with_suffix(".unreadable").write_bytes(b"garbage\n")  # a crash came between setting aside and deleting
    await store.append(small("three"))
    await store.aclose()
    assert [record.call_id for record in store.read()] == ["one", "two", "three"]
    assert path.with_suffix(".unreadable").read_bytes() == b"garbage\n"
    assert not path.exists()


@pytest.mark.parametrize("kind", ["jsonl", "sqlite", "postgresql"])
async def test_closing_leaves_no_thread_file_or_connection(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"{kind}://{tmp_path}/audit"
    if kind == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        url = server.database()
    store = open_store(url)
    before = {thread for thread in threading.enumerate() if thread.name == "audit"}
    for _ in range(2):
        await asyncio.gather(*(store.append(small(f"{number}")) for number in range(100)))
        await asyncio.gather(*(store.aread() for _ in range(8)))
        half_read = store.select()
        next(half_read)
        await store.aclose()
        half_read.close()  # type: ignore[attr-defined]  # a generator
        await store.aclose()
        assert {thread for thread in threading.enumerate() if thread.name == "audit"} <= before
        assert open_files(tmp_path) == []
        if kind == "postgresql":
            assert connections(url) == 0


def open_files(folder: Path) -> list[str]:
    names = []
    for file in Path("/proc/self/fd").iterdir():
        try:
            names.append(os.readlink(file))
        except FileNotFoundError:
            continue
    return [name for name in names if name.startswith(str(folder))]


def connections(url: str) -> int:
    server, _, database = url.replace("+psycopg", "").rpartition("/")
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        for _ in range(200):
            # the server notices a moment later that a client has gone
            (count,) = connection.execute(query, (database,)).fetchone() or (0,)
            if not count:
                return 0
            connection.execute("SELECT pg_sleep(0.05)")
        return int(count)


async def test_a_guard_that_closes_a_shared_store_takes_it_from_nobody(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/audit.db"
    one, other = shared_store(url, Writing()), shared_store(url, Writing())
    assert one is other
    await one.append(small("a"))
    await one.aclose()
    await other.append(small("b"))
    await other.aclose()
    assert [record.call_id for record in other.read()] == ["a", "b"]
    assert shared_store("memory://", Writing()) is not shared_store("memory://", Writing())


async def test_records_that_come_while_the_thread_ends_are_written_by_one_thread(tmp_path: Path) -> None:
    store = JsonlStore(tmp_path / "a.jsonl")
    resting = threading.Event()
    go_on = threading.Event()
    threads: set[int] = set()
    write = store.write

    def rest() -> None:
        resting.set()
        go_on.wait(60)

    def noted(items: object) -> None:
        threads.add(threading.get_ident())
        write(items)  # type: ignore[arg-type]

    store.rest, store.write = rest, noted  # type: ignore[method-assign]
    await store.append(small("one"))
    closing = asyncio.create_task(store.aclose())
    while not resting.is_set():
        await asyncio.sleep(0.01)
    late = asyncio.create_task(store.append(small("two")))
    await asyncio.sleep(0.05)
    go_on.set()
    await asyncio.gather(late, closing)
    assert len(threads) == 1
    assert [record.call_id for record in store.read()] == ["one", "two"]
    await store.aclose()
