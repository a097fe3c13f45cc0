"""Finding and counting records: filters, pages, what is blamed, and what it adds up to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from audit_records import NOON, RECORDS, RULES, call, tried

from stars_guard.audit import CallRecord, Filter, MemoryStore, Text, open_store, parse_time
from stars_guard.audit._query import News, blamed, summarize
from stars_guard.audit.record import RuleEntry, ScoreEntry, Turn
from stars_guard.audit.stats import LAST_INDEX, Cell, Cost, IndexCount, JudgeCount, bin_width, bucket_seconds
from stars_guard.errors import InputError


@pytest.fixture
async def store() -> MemoryStore:
    made = MemoryStore()
    for record in RECORDS:
        await made.append(record)
    return made


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (Filter(), "dcba"),
        (Filter(since=NOON + timedelta(minutes=5)), "dcb"),
        (Filter(until=NOON + timedelta(minutes=5)), "a"),
        (Filter(policy="strict"), "c"),
        (Filter(judge="words"), "b"),
        (Filter(judge="kind"), "c"),
        (Filter(judge="useful"), "c"),
        (Filter(finish="refused"), "c"),
        (Filter(stage="answer"), "dcba"),
        (Filter(stage="input"), ""),
        (Filter(run_id="run-a"), "a"),
        (Filter(run_id="run"), ""),
        (Filter(rejected=True), "cb"),
        (Filter(text="RHINE"), "b"),
        (Filter(text="of  rivers"), "cba"),
        (Filter(text="élbe"), "cba"),
        (Filter(text="rhine", policy="strict"), ""),
    ],
)
async def test_filters(store: MemoryStore, wanted: Filter, ids: str) -> None:
    assert "".join(row.id for row in await store.asearch(wanted)) == ids
    assert "".join(record.call_id for record in store.select(wanted)) == "".join(sorted(ids))


async def test_pages_hold_each_call_once(store: MemoryStore) -> None:
    pages, before = [], None
    while rows := store.search(limit=1, before=before):
        pages.append(rows[0].id)
        before = rows[0].place
    assert pages == ["d", "c", "b", "a"]
    assert [row.id for row in store.search(limit=2)] == ["d", "c"]


def test_the_row_of_a_call() -> None:
    row = summarize(RECORDS[1])
    assert (row.id, row.proposals, row.rejections, row.drawn, row.kept, row.judges) == ("b", 3, 1, 12, 4, ("words",))
    assert (row.stage, row.preview, row.segments) == ("answer", "Tell me of rivers", 1)
    assert summarize(RECORDS[2]).judges == ("kind", "useful")
    assert summarize(RECORDS[3]).preview is None
    long = call("x", prompt=(Turn(role="user", content=Text(content="word " * 999, chars=4995)),))
    assert len(summarize(long).preview or "") == 140


def test_who_is_blamed() -> None:
    failed = ScoreEntry(judge="kind", value=None, error="TimeoutError")
    high = ScoreEntry(judge="words", value=0.9)
    low = ScoreEntry(judge="words", value=0.1)
    assert blamed(tried(0, "x", verdict="rejected", scores=(low, failed), veto="kind failed: x"), RULES) == ("kind",)
    assert blamed(tried(0, "x", verdict="rejected", scores=(high, failed), veto="words"), RULES) == ("words",)
    ignored = (RuleEntry(judge="kind", weight=1.0, on_error="ignore"), RULES[2])
    assert blamed(tried(0, "x", verdict="rejected", scores=(failed, high), veto="words"), ignored) == ("words",)
    assert blamed(tried(0, "x", verdict="rejected", veto="other failed: x"), ()) == ("other",)
    assert blamed(tried(0, "x", verdict="accepted", scores=(high,), veto="words"), RULES) == ()


async def test_news_come_in_the_order_of_writing(store: MemoryStore) -> None:
    first = await store.aafter()
    assert first.calls == ()
    await store.append(call("late", minutes=-60))
    await store.append(call("later"))
    news = await store.aafter(first.cursor)
    assert [row.id for row in news.calls] == ["late", "later"]
    early = await store.aafter(first.cursor, Filter(until=NOON))
    assert ([row.id for row in early.calls], early.cursor) == (["late"], news.cursor)
    assert (await store.aafter(news.cursor)).calls == ()


async def test_a_file_that_has_not_grown_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_store(f"jsonl://{tmp_path}/a.jsonl?max_bytes=3000") as store:
        cursor = store.after().cursor
        for name in ("one", "two", "three", "four"):
            await store.append(call(name))
            news = store.after(cursor)
            assert [row.id for row in news.calls] == [name]
            cursor = news.cursor
        assert len(list(tmp_path.iterdir())) > 1

        def unread() -> list[CallRecord]:
            raise AssertionError("the log was read")

        monkeypatch.setattr(store, "read", unread)
        assert store.after(cursor) == News((), cursor)
        with pytest.raises(AssertionError, match="the log was read"):
            store.after("0@0:0")


async def test_what_it_adds_up_to(store: MemoryStore) -> None:
    stats = await store.astats()
    assert stats.total == Cost(
        "", calls=4, proposals=6, rejections=2, drawn=24, kept=12, rejected=8, surplus=4, seconds=12.0, slowest=7.5
    )
    assert stats.finishes == (("eos", 3), ("refused", 1))
    assert stats.judges == (
        JudgeCount("kind", low_reward=1),
        JudgeCount("useful", low_reward=1),
        JudgeCount("words", vetoes=1),
    )
    assert [(p.name, p.calls, p.rejections) for p in stats.policies] == [("default", 3, 1), ("strict", 1, 1)]
    assert stats.bucket == 300
    assert [(cost.name[11:16], cost.calls) for cost in stats.times] == [("12:00", 1), ("12:05", 1), ("13:30", 2)]
    assert stats.by_index == (
        IndexCount(0, accepted=2, rejected=2, threshold=pytest.approx(0.5)),
        IndexCount(1, accepted=1, threshold=0.5),
    )
    assert stats.width == 0.05
    assert [(cell.index, round(cell.low, 9), cell.accepted, cell.rejected) for cell in stats.cells] == [
        (0, -0.3, 0, 1),
        (0, 0.2, 1, 0),
        (0, 0.9, 1, 0),
        (1, 0.6, 1, 0),
    ]
    strict = store.stats(Filter(policy="strict"))
    assert (strict.total.calls, strict.total.slowest) == (1, 7.5)


def test_nothing_adds_up_to_nothing() -> None:
    stats = MemoryStore().stats()
    assert (stats.total, stats.times, stats.cells, stats.width) == (Cost(""), (), (), 0.0)


def test_late_segments_share_a_position() -> None:
    store = MemoryStore()
    store.records = [call("long", 0, tuple((tried(0, "x", 0.5),) for _ in range(LAST_INDEX + 20)))]
    stats = store.stats()
    assert stats.by_index[-1] == IndexCount(LAST_INDEX, accepted=20, threshold=0.5)
    assert stats.cells[-1] == Cell(LAST_INDEX, 0.5, accepted=20)


@pytest.mark.parametrize("span", [0.0, 1e-9, 0.3, 1.0, 2.5, 25.0, 26.0, 7e5])
def test_bins_are_few_and_round(span: float) -> None:
    width = bin_width(-1.0, -1.0 + span)
    assert span / width <= 25
    assert f"{width:.0e}"[0] in "125"
    assert span < 1e-3 or span / width >= 10


def test_stretches_of_time_are_few() -> None:
    for days, width in ((0, 60), (1 / 24, 60), (1, 3600), (10, 14400), (60, 86400), (400, 604800), (9000, 364 * 86400)):
        assert bucket_seconds(NOON, NOON + timedelta(days=days)) == width


def test_times_as_people_write_them() -> None:
    assert parse_time("90d", NOON) == NOON - timedelta(days=90)
    assert parse_time(" 2h ", NOON) == NOON - timedelta(hours=2)
    assert parse_time("30s") < datetime.now(UTC)
    assert parse_time("2026-01-31") == datetime(2026, 1, 31, tzinfo=UTC)
    assert parse_time("2026-01-31T10:00+02:00") == datetime(2026, 1, 31, 8, tzinfo=UTC)
    for wrong in ("yesterday", "3 days", "", "90y"):
        with pytest.raises(InputError, match="is not a time"):
            parse_time(wrong)
