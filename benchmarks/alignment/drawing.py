"""Drawing answers by a method, and calibrating the methods on the tuning prompts."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.alignment.book import Book
from benchmarks.alignment.methods import REFUSAL, Method, fingerprint, policy
from benchmarks.alignment.prompts import Prompt, digest
from stars_guard.audit import MemoryStore
from stars_guard.audit.record import CallRecord
from stars_guard.backends.base import Backend
from stars_guard.calibration.learned_schedule import propose
from stars_guard.calibration.thresholds import Answer
from stars_guard.calling.settings import settings_of
from stars_guard.core.events import Finished
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import load_policy

__all__ = ["Bench", "answer_all", "calibrate", "fitted", "missing", "unguarded"]

WIDEST = (0.02, 0.97)
"""Rates of acceptance that calibration may aim for."""

DEARNESS, POWER = 2.0, 1.4
"""Seen with the embedded models; only the first guess depends on the former."""

NEAR = 0.1

Advance = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Bench:
    """What all methods share.

    Attributes:
        max_tokens: T.
        slots: one for each answer that may be drawn at once. Methods share them, so that no slot stands idle while the
            longest answers of one method end.
    """

    engine: Backend
    max_tokens: int
    slots: asyncio.Semaphore


async def _draw(
    bench: Bench,
    under: Mapping[str, Any],
    jobs: Sequence[tuple[Prompt, int]],
    done: Callable[[Prompt, int, Finished, CallRecord], object],
) -> None:
    """Draw each job and hand it over.

    Seeds are passed on where the engine can draw the same again; elsewhere they number the answers of a prompt.
    """
    store = MemoryStore()
    guard = Guard(under, model=bench.engine, audit=store)

    async def one(prompt: Prompt, seed: int) -> None:
        async with bench.slots:
            number = (int(prompt.key, 16) + 7919 * seed) % 2**62 if bench.engine.reproducible else None
            finished = await guard.generate(prompt.messages, CallOptions(seed=number))
            record = store.get(finished.call_id)
            store.records.remove(record)
            done(prompt, seed, finished, record)

    async with asyncio.TaskGroup() as group:
        for prompt, seed in jobs:
            group.create_task(one(prompt, seed))


def missing(
    method: Method, max_tokens: int, jobs: Sequence[tuple[Prompt, int]], book: Book
) -> list[tuple[Prompt, int]]:
    """The jobs that the book does not hold under this very policy."""
    mark = fingerprint(_strict(method, max_tokens))
    rows = {job: book.get(method.name, job[0].key, job[1]) for job in jobs}
    return [job for job, row in rows.items() if row is None or row["policy"] != mark]


def _strict(method: Method, max_tokens: int) -> dict[str, Any]:
    """Nothing is drawn ahead, so that all that is drawn is due to the method."""
    return policy(method, max_tokens, optimistic=False)


async def answer_all(
    bench: Bench, method: Method, jobs: Sequence[tuple[Prompt, int]], book: Book, texts: Book, advance: Advance
) -> None:
    """Draw what the book does not hold yet. The book names texts by their digests: they have a book of their own, so
    that figures can be published without them."""
    under = _strict(method, bench.max_tokens)
    mark = fingerprint(under)

    def keep(prompt: Prompt, seed: int, finished: Finished, record: CallRecord) -> None:
        text = finished.text + REFUSAL if finished.finish == "refused" else finished.text
        name = digest(text)
        texts.add({"prompt": prompt.key, "digest": name, "text": text})
        book.add({"policy": mark, "digest": name, **_row(method, prompt, seed, finished, record)})
        advance()

    todo = missing(method, bench.max_tokens, jobs, book)
    for _ in range(len(jobs) - len(todo)):
        advance()
    await _draw(bench, under, todo, keep)


def _row(method: Method, prompt: Prompt, seed: int, finished: Finished, record: CallRecord) -> dict[str, Any]:
    steps, length = [], 0
    for segment in record.segments:
        kept = next((a for a in segment.attempts if a.attempt == segment.kept), None)
        length += kept.tokens if kept else 0
        steps.append(
            {
                "end": length,
                "reward": kept.reward if kept else None,
                "tau": kept.threshold if kept else None,
                "decided": sum(a.verdict != "surplus" for a in segment.attempts),
                "accepted": segment.how == "accepted",
            }
        )
    totals = finished.totals
    return {
        "method": method.name,
        "prompt": prompt.key,
        "seed": seed,
        "kind": prompt.kind,
        "refused": finished.finish == "refused",
        "finish": finished.finish,
        "seconds": round(finished.seconds, 3),
        "drawn": totals.drawn,
        "kept": totals.kept,
        "rejected": totals.rejected,
        "rejections": totals.rejections,
        "passages": totals.scorer_passages,
        "steps": steps,
    }


async def unguarded(bench: Bench, method: Method, prompts: Sequence[Prompt]) -> list[Answer]:
    """Answers that are cut and judged as the method does, and all let through."""
    watching = {**policy(method.with_(parallel=1), bench.max_tokens, optimistic=False), "mode": "monitor"}
    watching["decoding"].pop("budget_tokens", None)
    watching["decoding"]["schedule"] = "linear"
    found: list[Answer] = []

    def keep(prompt: Prompt, seed: int, finished: Finished, record: CallRecord) -> None:
        tokens, rewards, length = [], [], 0
        for segment in record.segments:
            attempt = segment.attempts[-1]
            assert attempt.reward is not None
            length += attempt.tokens
            tokens.append(length)
            rewards.append(attempt.reward)
        found.append(Answer(record.prompt_reward, tuple(tokens), tuple(rewards)))

    await _draw(bench, watching, [(prompt, 0) for prompt in prompts], keep)
    return found


def fitted(method: Method, max_tokens: int, free: Sequence[Answer], acceptance: float) -> dict[str, Any]:
    """The keys of ``decoding`` that give a method a rate of acceptance on unguarded prefixes."""
    settings = settings_of(load_policy(policy(method, max_tokens)), max_tokens)
    return propose(free, settings, acceptance, settings.schedule)[1]


async def calibrate(
    bench: Bench, method: Method, prompts: Sequence[Prompt], free: Sequence[Answer], rounds: int
) -> dict[str, Any]:
    """r_star or thresholds, and beta, that make the method draw ``method.level`` times what unguarded answers have.

    Hard prompts are rejected again and again, so what is drawn in excess of a plain answer grows faster than the odds
    of a rejection: it is taken to be ``DEARNESS * odds ** POWER``. `fitted` aims at the rate of acceptance that this
    gives. Each round then draws the tuning prompts under the values found, and sets the factor right by what they
    drew, until the level is met within `NEAR`. The round nearest to the level is taken.
    """
    plain = statistics.fmean(answer.tokens[-1] for answer in free)
    wanted = method.level - 1
    odds, tried = (wanted / DEARNESS) ** (1 / POWER), []
    for _ in range(max(rounds, 1)):
        acceptance = min(max(1 / (1 + odds), WIDEST[0]), WIDEST[1])
        values = fitted(method, bench.max_tokens, free, acceptance)
        entry = {"acceptance": acceptance, "level": None, **values}
        tried.append(entry)
        if not rounds:
            break
        drawn: list[int] = []

        def keep(prompt: Prompt, seed: int, finished: Finished, record: CallRecord, drawn: list[int] = drawn) -> None:
            drawn.append(finished.totals.drawn)

        tuned = policy(method, bench.max_tokens, optimistic=False, **values)
        await _draw(bench, tuned, [(prompt, 0) for prompt in prompts], keep)
        entry["level"] = statistics.fmean(drawn) / plain
        if abs(entry["level"] / method.level - 1) < NEAR:
            break
        odds *= (wanted / max(entry["level"] - 1, 0.1 * wanted)) ** (1 / POWER)
    return min(tried, key=lambda entry: abs((entry["level"] or method.level) - method.level))
