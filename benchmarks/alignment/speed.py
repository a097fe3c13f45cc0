"""Time and tokens of each method by the number of answers drawn at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.alignment.book import Book
from benchmarks.alignment.drawing import Bench
from benchmarks.alignment.methods import BLOCK, Method, fingerprint, policy
from benchmarks.alignment.prompts import Prompt
from stars_guard.audit import MemoryStore
from stars_guard.guard import Guard

__all__ = ["measure_speed", "widened"]

PARALLEL: tuple[int | str, ...] = (4, "auto")
"""Widths of STARS besides one by one. They change when an answer comes and what it costs, not what it is."""


def widened(methods: Sequence[Method]) -> list[Method]:
    """The methods, and STARS of `BLOCK` tokens also with parallel proposals under the same thresholds."""
    found = list(methods)
    for method in methods:
        if method.family in (f"STARS B={BLOCK}", f"STARS B={BLOCK}, learned"):
            for width in PARALLEL:
                label = f"{method.family}, parallel {width}"
                found.append(replace(method.with_(parallel=width), name=f"{label}, x{method.level}", family=label))
    return found


async def measure_speed(
    bench: Bench,
    methods: Sequence[Method],
    prompts: Sequence[Prompt],
    batches: Sequence[int],
    least: int,
    book: Book,
    advance: Callable[[], object],
) -> None:
    """One row a method and batch: answers drawn at once as one would use them, drawn ahead where the engine can.

    Methods take turns within a batch size, so that a slow minute of the machine does not fall on one alone. Overrun
    counts as drawn.

    Args:
        batches: answers at once.
        least: answers a row, at least.
    """
    for batch in batches:
        for method in methods:
            under = policy(method, bench.max_tokens)
            row, mark = book.get(method.name, batch), fingerprint(under)
            if row is None or row["policy"] != mark:
                guard = Guard(under, model=bench.engine, audit=MemoryStore())
                book.add(
                    {"method": method.name, "policy": mark, **await _one(guard, prompts, batch, max(batch, least))}
                )
            advance()


async def _one(guard: Guard, prompts: Sequence[Prompt], batch: int, count: int) -> dict[str, Any]:
    asked = [prompts[i % len(prompts)].messages for i in range(count)]
    began = time.perf_counter()
    done = await guard.batch(asked, concurrency=batch)
    took = time.perf_counter() - began
    kept, drawn = (sum(getattr(answer.totals, name) for answer in done) for name in ("kept", "drawn"))
    return {
        "batch": batch,
        "answers": count,
        "seconds": took,
        "seconds_per_answer": took / count,
        "latency": sum(answer.seconds for answer in done) / count,
        "kept_per_second": kept / took,
        "drawn_per_second": drawn / took,
        "drawn_per_kept": drawn / max(kept, 1),
    }
