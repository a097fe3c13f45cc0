"""The lockstep claim, redone at our scale: STARS with fixed segments beside CARDS with segments cut at uncertainty.

The STARS paper (arXiv 2511.03827) reports 195 against 120.5 tokens/s at batch 64, 15 against 45 tokens discarded per
rejection, and a higher win rate of CARDS. Here both draw the same number of proposals a segment: their thresholds are
calibrated to one rate of acceptance. On transformers a batch moves in lockstep, one token a step for all; on vLLM each
answer goes at its own pace.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Any

from rich.progress import track

from benchmarks.alignment.drawing import Bench, fitted, unguarded
from benchmarks.alignment.judges import first_judge, second_judge
from benchmarks.alignment.methods import Method, methods, policy
from benchmarks.alignment.prompts import Prompt, choose, prompts
from benchmarks.measure import table, write_section
from stars_guard.audit import MemoryStore
from stars_guard.backends.base import Backend
from stars_guard.calling.backend_loading import load_backend
from stars_guard.core.events import Finished
from stars_guard.guard import Guard

__all__ = ["compare", "main"]

LEVEL = 2
SIZES = (15, 32)
BATCHES = (1, 8, 32, 64)
TIE = 0.1


async def compare(
    engine: Backend, *, max_tokens: int, tuning: int, batches: Sequence[int], least: int
) -> list[list[object]]:
    """One row a batch and method: kept tokens/s, tokens discarded per rejection, segment length, win rates.

    Args:
        tuning: prompts that calibration draws.
        batches: answers at once; ``least`` answers a row at least.
    """
    found = prompts()
    held_out = choose(found, kind="harmful", tuning=False, count=max(*batches, least))
    free_prompts = choose(found, kind="harmful", tuning=True, count=tuning)
    families = ("vanilla", "CARDS", *(f"STARS B={size}" for size in SIZES))
    bench = Bench(engine, max_tokens, asyncio.Semaphore(max(batches)))
    ready = []
    for method in [m for m in methods((LEVEL,), SIZES) if m.family in families]:
        if method.fitted:
            free = await unguarded(bench, method, free_prompts)
            method = method.with_(**fitted(method, max_tokens, free, 1 / LEVEL))
        ready.append(method)
    rows = []
    for batch in batches:
        drawn = {
            method.family: await _drawn(bench, method, held_out[: max(batch, least)], batch)
            for method in track(ready, description=f"{batch} at once")
        }
        rewards = {family: await _rewards(held_out, done) for family, (done, _) in drawn.items()}
        for family, (done, took) in drawn.items():
            wins = [_wins(rewards[family][k], rewards["vanilla"][k]) for k in (0, 1)]
            rows.append([batch, family, *_costs(done, took), *wins])
    return rows


async def _drawn(bench: Bench, method: Method, asked: Sequence[Prompt], batch: int) -> tuple[list[Finished], float]:
    guard = Guard(policy(method, bench.max_tokens, optimistic=False), model=bench.engine, audit=MemoryStore())
    began = time.perf_counter()
    done = await guard.batch([prompt.messages for prompt in asked], concurrency=batch)
    return done, time.perf_counter() - began


async def _rewards(asked: Sequence[Prompt], done: Sequence[Finished]) -> tuple[list[float], list[float]]:
    pairs = [(prompt.text, answer.text) for prompt, answer in zip(asked, done, strict=False)]
    return await first_judge(pairs), second_judge().score(pairs)


def _wins(ours: Sequence[float], plain: Sequence[float]) -> float:
    """Share of answers that win against the plain one, a tie counting a half."""
    gaps = [a - b for a, b in zip(ours, plain, strict=True)]
    return statistics.fmean(0.5 if abs(gap) < TIE else float(gap > 0) for gap in gaps)


def _costs(done: Sequence[Finished], took: float) -> list[Any]:
    def total(name: str) -> int:
        return sum(getattr(answer.totals, name) for answer in done)

    rejections = total("rejections")
    return [
        total("kept") / took,
        total("drawn") / took,
        total("drawn") / max(total("kept"), 1),
        total("rejected") / rejections if rejections else "-",
        total("kept") / max(total("segments"), 1),
    ]


async def main() -> None:
    """Measure all."""
    head = [
        "at once",
        "method",
        "kept tokens/s",
        "drawn tokens/s",
        "drawn per kept",
        "discarded per rejection",
        "tokens a segment",
        "wins, first judge",
        "wins, second judge",
    ]
    for backend, what in (("transformers", "lockstep"), ("vllm", "continuous batching")):
        engine = await load_backend("embedded", backend)
        rows = await compare(engine, max_tokens=96, tuning=32, batches=BATCHES, least=4)
        about = (
            f"STARS and CARDS calibrated to accept {1 / LEVEL:.0%} of the proposals for unguarded prefixes, answers of "
            "96 tokens at most to held-out harmful prompts; wins are against plain answers, a tie counting a half."
        )
        write_section(f"lockstep claim: {backend}, {what}", f"{about}\n\n{table(head, rows)}", how="One run a row.")
