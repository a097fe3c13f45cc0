"""The audit log: records a second, what a call waits for its record, and lists and searches of a million segments.

``STARS_GUARD_BENCH_SEGMENTS`` takes another number of segments than a million.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.progress import track
from sqlalchemy import insert, text

from benchmarks.measure import table, write_section
from stars_guard.audit import AuditStore, CallRecord, Filter, Text, Writing, open_store
from stars_guard.audit._sql_query import texts_row
from stars_guard.audit._tables import attempts, blames, calls
from stars_guard.audit.record import Attempt, RuleEntry, ScoreEntry, Segment, Turn
from stars_guard.audit.sql import SqlStore
from tests.postgres import Postgres

SEGMENTS = int(os.environ.get("STARS_GUARD_BENCH_SEGMENTS", "1000000"))
PER_CALL = 8
KINDS = ("jsonl", "sqlite", "postgresql")
WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in ("a", "e", "ing", "o", "u") for c in ("", "ll", "n", "r", "st")]
START = datetime(2026, 1, 1, tzinfo=UTC)


def record(number: int) -> CallRecord:
    """A call of 16 segments, one proposal in three rejected."""
    rng = random.Random(number)
    segments = []
    for index in range(16):
        tries = []
        for attempt in range(2 if rng.random() < 0.5 else 1):
            said = " ".join(rng.choices(WORDS, k=14))
            value = rng.gauss(0, 1)
            scores = (ScoreEntry(judge="reward", value=value, seconds=0.01), ScoreEntry(judge="safe", value=0.1))
            tries.append(
                Attempt(
                    attempt=attempt,
                    text=Text(content=said, chars=len(said)),
                    tokens=16,
                    scores=scores,
                    reward=0.3,
                    threshold=0.5,
                    probability=0.6,
                    u=rng.random(),
                    verdict="rejected",
                    reason="reward is below",
                )
            )
        tries[-1] = tries[-1].model_copy(update={"verdict": "accepted"})
        segments.append(Segment(index=index, attempts=tuple(tries), kept=len(tries) - 1, how="accepted"))
    now = datetime.now(UTC).isoformat()
    prompt = Turn(role="user", content=Text(content="Tell me a story of the sea.", chars=27))
    return CallRecord(
        call_id=f"{number:032x}",
        started_at=now,
        ended_at=now,
        seconds=2.0,
        policy="default",
        policy_sha256="0" * 64,
        mode="enforce",
        seed=number,
        finish="eos",
        prompt=(prompt,),
        segments=tuple(segments),
        rules=(RuleEntry(judge="reward", weight=1.0), RuleEntry(judge="safe", reject_above=0.5)),
        answer=Text(content="", chars=0),
        totals={"proposals": 24, "rejections": 8, "drawn": 384, "kept": 256},
    )


async def _appends(store: AuditStore, records: list[CallRecord], concurrency: int) -> tuple[float, float]:
    """Records a second, and milliseconds that a call waits, as the median."""
    waits: list[float] = []
    left = iter(records)

    async def one() -> None:
        for each in left:
            began = time.perf_counter()
            await store.append(each)
            waits.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(concurrency)))
    await store.aclose()
    return len(records) / (time.perf_counter() - began), statistics.median(waits) * 1000


WRITTEN = ("store", "durability", "records/s, 1 call", "ms a call", "records/s, 32 calls", "ms a call, 32 calls")


async def written(make: Callable[[str], str], kinds: Sequence[str], count: int) -> list[tuple[str | float, ...]]:
    """How fast records are written: the columns of `WRITTEN`.

    Args:
        make: gives the URL of a new store of a kind.
    """
    rows = []
    for kind in kinds:
        for durability in ("every-call", "batch"):
            figures: list[float] = []
            for concurrency in (1, 32):
                store = open_store(make(kind), Writing(durability, "block"))  # type: ignore[arg-type]
                await store.append(record(10**9))
                numbers = range(count if concurrency > 1 or durability == "batch" else count // 4)
                figures += await _appends(store, [record(number) for number in numbers], concurrency)
            rows.append((kind, durability, *figures))
    return rows


def _call(number: int, rng: random.Random) -> dict[str, Any]:
    started = START + timedelta(seconds=20 * number)
    return {
        "id": number,
        "writer": "0" * 16,
        "seq": number,
        "call_id": f"{rng.getrandbits(128):032x}",
        "run_id": None,
        "started_at": started.isoformat(),
        "started": started.timestamp(),
        "seconds": 2.0,
        "policy": rng.choice(("default", "strict", "children")),
        "mode": "enforce",
        "stage": "answer",
        "finish": "refused" if rng.random() < 0.02 else "eos",
        "segments": PER_CALL,
        "proposals": PER_CALL,
        "rejections": 1,
        "drawn": 128,
        "kept": 112,
        "rejected": 16,
        "surplus": 0,
        "overrun": 0,
        "preview": "Tell me a story of the sea.",
    }


def _rows(numbers: range, rng: random.Random) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
    yield insert(calls), [_call(number, rng) for number in numbers]
    yield (
        insert(attempts),
        [
            {
                "call": number,
                "segment": segment,
                "attempt": 0,
                "verdict": "accepted" if segment else "rejected",
                "kept": int(segment > 0),
                "reward": rng.gauss(0, 1),
                "threshold": 0.5,
                "probability": 0.6,
                "tokens": 16,
                "position": 16 * segment + 16,
            }
            for number in numbers
            for segment in range(PER_CALL)
        ],
    )
    yield (
        insert(blames),
        [
            {"call": number, "judge": rng.choice(("reward", "safe")), "place": 0, "vetoes": 1, "low_reward": 0}
            for number in numbers
        ],
    )


def _load(store: SqlStore) -> None:
    """Segments as writing would have left them, without the records themselves: lists and searches read none."""
    rng = random.Random(1)
    last = SEGMENTS // PER_CALL
    for start in track(range(1, last + 1, 2000), description=f"loading {store._engine.dialect.name}"):
        numbers = range(start, min(start + 2000, last + 1))
        with store._changing("write") as connection:
            for statement, rows in _rows(numbers, rng):
                connection.execute(statement, rows)
            said = [
                {"rowid": n, "words": sorted({*rng.choices(WORDS, k=60), "sea", "gull" if n % 997 else "albatross"})}
                for n in numbers
            ]
            connection.execute(texts_row(connection.dialect.name), said)
    if store._engine.dialect.name == "postgresql":
        with store._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))


def _reading(store: SqlStore) -> dict[str, float]:
    middle = store.search(limit=1)[0].place
    later = (START + timedelta(seconds=10 * SEGMENTS / PER_CALL)).isoformat(), "f"
    cases: dict[str, Callable[[], object]] = {
        "list, newest 50": lambda: store.search(),
        "list, a page in the middle": lambda: store.search(before=later),
        "list, one policy": lambda: store.search(Filter(policy="strict"), before=middle),
        "list, refused": lambda: store.search(Filter(finish="refused")),
        "list, one judge": lambda: store.search(Filter(judge="safe")),
        "search, a rare word": lambda: store.search(Filter(text="albatross")),
        "search, two words": lambda: store.search(Filter(text=f"{WORDS[5]} {WORDS[77]}")),
        "search, a word of every call": lambda: store.search(Filter(text="sea")),
        "search, a word and a judge": lambda: store.search(Filter(text=WORDS[9], judge="reward")),
    }
    found = {}
    for name, work in cases.items():
        seen = []
        for _ in range(7):
            began = time.perf_counter()
            assert work()
            seen.append((time.perf_counter() - began) * 1000)
        found[name] = statistics.median(seen)
    return found


async def main() -> None:
    """Measure, and write the section."""
    folder = Path(tempfile.mkdtemp(prefix="stars-guard-bench-"))
    server = Postgres()
    server.start()
    made = 0

    def make(kind: str) -> str:
        nonlocal made
        made += 1
        return server.database() if kind == "postgresql" else f"{kind}://{folder}/{made}"

    try:
        rows = await written(make, KINDS, max(64, min(1000, SEGMENTS // 1000)))
        columns = {}
        for kind in ("sqlite", "postgresql"):
            store = open_store(make(kind))
            assert isinstance(store, SqlStore)
            await asyncio.to_thread(_load, store)
            columns[kind] = await asyncio.to_thread(_reading, store)
            await store.aclose()
    finally:
        server.remove()
        shutil.rmtree(folder)
    reading = [(name, columns["sqlite"][name], columns["postgresql"][name]) for name in columns["sqlite"]]
    write_section(
        "Audit log",
        f"Records of 16 segments and 24 proposals, with all text.\n\n{table(WRITTEN, rows)}\n\n"
        f"Milliseconds for 50 rows of {SEGMENTS:,} segments in {SEGMENTS // PER_CALL:,} calls.\n\n"
        f"{table(('what', 'SQLite', 'PostgreSQL'), reading)}",
    )
