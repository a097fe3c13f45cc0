"""What every audit store must do, as tests to inherit. This module imports pytest, so import it in tests only."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pytest

from stars_guard.audit import AuditStore, Filter, MemoryStore, Text
from stars_guard.audit.stats import Stats
from stars_guard.audit.versions import VERSIONS
from stars_guard.errors import AuditError
from stars_guard.testing._records import HARD_TEXTS, NOON, generated, record

__all__ = ["AuditStoreTests"]

OpenLog = Callable[[], AuditStore]


def filters() -> Iterator[Filter]:
    """One filter of each kind, and some together."""
    yield Filter()
    yield Filter(since=NOON + timedelta(seconds=1))
    yield Filter(until=NOON + timedelta(seconds=1))
    yield Filter(since=NOON, until=NOON + timedelta(seconds=300))
    yield Filter(policy="strict")
    yield Filter(judge="words")
    yield Filter(judge="useful")
    yield Filter(finish="refused")
    yield Filter(stage="input")
    yield Filter(run_id="run-3")
    yield Filter(rejected=True)
    yield Filter(policy="default", finish="eos", rejected=True)
    for text in ("RIVER", "élbe rhine", "σίσυφος", "STRASSE", "riv", "nowhere", "...", "' OR 1"):
        yield Filter(text=text)
    yield Filter(text="river", judge="kind", since=NOON + timedelta(seconds=59))
    yield Filter(policy="nobody's")


class AuditStoreTests:
    """Inherit from it, and say in a fixture how your store is opened.

    .. code-block:: python

        class TestMyStore(AuditStoreTests):
            @pytest.fixture
            def open_log(self, tmp_path):
                return lambda: MyStore.from_url(f"mine://{tmp_path}/log")

    The fixture returns a function. Each time it is called, it opens the same log, which is empty at first. A store that
    keeps records in memory returns the same store each time. The tests close what they open.
    """

    @pytest.fixture
    def open_log(self) -> OpenLog:
        """Override this."""
        raise NotImplementedError("give the fixture open_log: a function that opens the log")

    @pytest.fixture
    def store(self, open_log: OpenLog) -> Iterator[AuditStore]:
        """A store on the empty log."""
        made = open_log()
        yield made
        _run(made.aclose())

    def test_an_empty_log_can_be_read(self, store: AuditStore) -> None:
        assert store.read() == []
        assert store.search() == []
        assert list(store.select()) == []
        assert _rounded(store.stats()) == _rounded(MemoryStore().stats())
        assert store.after().calls == ()
        with pytest.raises(AuditError):
            store.get("a")

    def test_records_are_read_in_the_order_of_writing(self, store: AuditStore, open_log: OpenLog) -> None:
        records = generated(1, 30)
        _run(_append_all(store, records))
        assert store.read() == records
        assert _run(store.aread()) == records
        _run(store.aclose())
        again = open_log()
        assert again.read() == records
        _run(again.aclose())

    def test_a_record_is_found_by_its_ids(self, store: AuditStore) -> None:
        names = (("abc", "r1"), ("abcd", "r2"), ("xyz", None), ("ABC", "r3"), ("a%c", "r3"))
        records = [record(call_id, run_id=run_id) for call_id, run_id in names]
        _run(_append_all(store, records))
        for wanted, place in (
            ("abc", 0),
            ("r1", 0),
            ("abcd", 1),
            ("r2", 1),
            ("xyz", 2),
            ("x", 2),
            ("AB", 3),
            ("a%", 4),
        ):
            assert store.get(wanted) == records[place], wanted
            assert _run(store.aget(wanted)) == records[place], wanted
        for wrong in ("", "a", "ab", "r", "r3", "abcde", "bc", "%", "_yz"):
            with pytest.raises(AuditError):
                store.get(wrong)

    @pytest.mark.parametrize("seed", range(3))
    def test_searches_and_counts_agree_with_the_reference(self, store: AuditStore, seed: int) -> None:
        """The reference is `MemoryStore`, whose answers come from pure functions of the records."""
        reference = MemoryStore()
        records = generated(seed, 40)
        begin = store.after().cursor
        _run(_append_all(store, records[:25]))
        half = store.after(begin)
        _run(_append_all(store, records[25:]))
        _run(_append_all(reference, records))
        for wanted in filters():
            rows = reference.search(wanted, limit=None)
            assert store.search(wanted, limit=None) == rows, wanted
            assert _pages(store, wanted) == rows, wanted
            assert list(store.select(wanted)) == list(reference.select(wanted)), wanted
            assert _rounded(store.stats(wanted)) == _rounded(reference.stats(wanted)), wanted
            assert store.after(begin, wanted).calls == reference.after("0", wanted).calls, wanted
            assert store.after(half.cursor, wanted).calls == reference.after("25", wanted).calls, wanted
        assert [row.id for row in half.calls] == [each.call_id for each in records[:25]]
        assert store.after(store.after(begin).cursor).calls == ()

    def test_tasks_append_at_once(self, store: AuditStore) -> None:
        async def one(task: int) -> None:
            for number in range(8):
                await store.append(record(f"{task}-{number}"))

        async def all_tasks() -> None:
            await asyncio.gather(*(one(task) for task in range(16)))

        _run(all_tasks())
        _each_once_in_order(store, 16, 8)

    def test_threads_append_at_once(self, store: AuditStore) -> None:
        async def some(thread: int) -> None:
            for number in range(8):
                await store.append(record(f"{thread}-{number}"))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda thread: asyncio.run(some(thread)), range(8)))
        _each_once_in_order(store, 8, 8)

    def test_a_cancelled_caller_has_its_record_written_once(self, store: AuditStore) -> None:
        rng = random.Random(1)  # noqa: S311
        records = generated(4, 60)

        async def impatient() -> None:
            tasks = []
            for each in records:
                tasks.append(asyncio.create_task(store.append(each)))
                await asyncio.sleep(0)
                if rng.random() < 0.5:
                    await asyncio.sleep(rng.random() / 500)
                rng.choice(tasks).cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await store.aclose()

        _run(impatient())
        found = store.read()
        assert sorted(each.call_id for each in found) == sorted(each.call_id for each in records)
        assert {each.call_id: each for each in found} == {each.call_id: each for each in records}

    def test_a_cancelled_append_ends_as_cancelled(self, store: AuditStore) -> None:
        async def impatient() -> bool:
            task = asyncio.create_task(store.append(record("a")))
            await asyncio.sleep(0)
            wanted = task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            return not wanted or isinstance(result, asyncio.CancelledError)

        assert _run(impatient())

    def test_a_store_may_be_closed_twice_and_used_again(self, store: AuditStore) -> None:
        async def use() -> None:
            await store.aclose()
            await store.append(record("a"))
            await store.aclose()
            await store.aclose()
            assert [each.call_id for each in await store.aread()] == ["a"]
            await store.append(record("b"))
            async with store:
                await store.append(record("c"))
            assert [each.call_id for each in await store.aread()] == ["a", "b", "c"]

        _run(use())

    def test_closing_waits_for_what_is_being_written(self, store: AuditStore) -> None:
        async def use() -> None:
            writing = [asyncio.create_task(store.append(record(f"{number}"))) for number in range(50)]
            await asyncio.sleep(0)
            await asyncio.gather(store.aclose(), store.aclose())
            await asyncio.gather(*writing)

        _run(use())
        assert sorted(each.call_id for each in store.read()) == sorted(str(number) for number in range(50))

    def test_two_stores_share_a_log(self, store: AuditStore, open_log: OpenLog) -> None:
        other = open_log()

        async def both() -> None:
            for number in range(4):
                await store.append(record(f"one-{number}"))
                await other.append(record(f"other-{number}"))

        _run(both())
        expected = [f"{name}-{number}" for number in range(4) for name in ("one", "other")]
        assert [each.call_id for each in store.read()] == [each.call_id for each in other.read()] == expected
        _run(other.aclose())

    @pytest.mark.parametrize("version", VERSIONS)
    def test_records_of_every_version_are_kept_as_they_are(self, store: AuditStore, version: int) -> None:
        old = record("old", schema_version=version)
        _run(store.append(old))
        assert store.read() == [old]
        assert store.get("old").schema_version == version

    @pytest.mark.parametrize("number", range(len(HARD_TEXTS)))
    def test_any_text_is_kept_as_it_is(self, store: AuditStore, number: int) -> None:
        text = HARD_TEXTS[number]
        kept = Text(content=text, chars=len(text))
        reference = MemoryStore()
        hard = record("hard", text, answer=kept, reason=text, policy=f"p{text}", run_id=f"r{text}")
        for each in (hard, record("plain")):
            _run(store.append(each))
            _run(reference.append(each))
        assert store.read() == reference.read()
        for wanted in (Filter(), Filter(policy=f"p{text}"), Filter(run_id=f"r{text}"), Filter(text=text)):
            assert store.search(wanted) == reference.search(wanted)
        assert store.get("hard") == hard

    def test_large_records_are_kept_whole(self, store: AuditStore) -> None:
        text = "a long sentence with words " * 40_000
        words = " ".join(f"{number:05}{'ж' * 60}" for number in range(20_000))
        records = [
            record("long", text),
            record("wordy", answer=Text(content=words, chars=len(words))),
            record("many", segments=tuple(generated(2, 1)[0].segments[:1]) * 500, totals={"proposals": 500}),
        ]
        records[2] = records[2].model_copy(
            update={"segments": tuple(s.model_copy(update={"index": i}) for i, s in enumerate(records[2].segments))}
        )
        _run(_append_all(store, records))
        assert store.read() == records
        assert [row.id for row in store.search(Filter(text="sentence"))] == ["long"]
        reference = MemoryStore()
        _run(_append_all(reference, records))
        assert _rounded(store.stats()) == _rounded(reference.stats())


async def _append_all(store: AuditStore, records: list[Any]) -> None:
    for each in records:
        await store.append(each)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def _pages(store: AuditStore, wanted: Filter) -> list[Any]:
    rows: list[Any] = []
    while page := store.search(wanted, limit=9, before=rows[-1].place if rows else None):
        rows += page
    return rows


def _each_once_in_order(store: AuditStore, writers: int, count: int) -> None:
    found: dict[str, list[int]] = {}
    for each in store.read():
        writer, _, number = each.call_id.partition("-")
        found.setdefault(writer, []).append(int(number))
    assert found == {str(writer): list(range(count)) for writer in range(writers)}


def _rounded(value: Any) -> Any:
    """Numbers that were added up in another order are the same."""
    match value:
        case Stats():
            return _rounded(asdict(value))
        case float():
            return float(f"{value:.9g}")
        case dict():
            return {name: _rounded(each) for name, each in value.items()}
        case list() | tuple():
            return [_rounded(each) for each in value]
        case _:
            return value
