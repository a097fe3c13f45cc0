"""The law of the output against the closed form, on the real model: total variation by width and attempts.

``top_k`` leaves the model a few tokens at each step, so that all answers can be written down. Each one's probability
under the guard follows from the model's own logits, taken from a full forward pass without any cache, and from the
judge's rewards (`benchmarks.closed_form`). Then two things are checked. The guard on the real
engine gives, seed by seed, the answer that the decoder gives when its proposals are looked up in the table of those
logits and rewards. And the decoder with the table, which is fast, is drawn so often that a law that is off by a
hundredth shows.

vLLM draws by its own random numbers, and its batches round differently, so there no seed tells the answer: the answers
of the engine itself are counted, fewer of them.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.closed_form import JUDGE, PROMPT, REFUSED, Closed, Remembering
from benchmarks.measure import table, write_section
from stars_guard.audit import MemoryStore
from stars_guard.backends.base import Backend
from stars_guard.backends.transformers import TransformersBackend
from stars_guard.calling.backend_loading import load_backend
from stars_guard.calling.judge_loading import load_cascade
from stars_guard.calling.settings import settings_of
from stars_guard.core.events import Kept, Rewound
from stars_guard.core.judging import Judgement
from stars_guard.core.segments import Candidate, Token
from stars_guard.core.vocabulary import FinishReason
from stars_guard.decoding import Decoder, Generate, make_decoder
from stars_guard.decoding.settings import Recovery
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import load_policy
from stars_guard.scorers.cascade import Cascade, Judge

__all__ = ["Closed", "Table", "Tally", "closed_form", "engine_answers", "main", "tally"]

SIMULATIONS = 2000


@dataclass(frozen=True, slots=True)
class Tally:
    """What was seen beside what was due.

    Attributes:
        tv: total variation between the shares seen and the closed form.
        noise: 95% quantile of what drawing as many from the closed form itself gives.
        impossible: answers seen that the closed form gives no chance.
        refused: share of refusals due.
    """

    draws: int
    outcomes: int
    tv: float
    noise: float
    impossible: int
    refused: float

    @property
    def bound(self) -> float:
        """The true total variation is below this with 95% confidence, by the triangle inequality."""
        return self.tv + self.noise


def tally(law: Mapping[str, float], seen: Mapping[str, int]) -> Tally:
    """Compare counts with a law."""
    draws, chances = sum(seen.values()), np.array(list(law.values()))
    chances = chances / chances.sum()
    counts = np.array([seen.get(text, 0) for text in law])
    stray = draws - int(counts.sum())
    tv = (float(np.abs(counts / draws - chances).sum()) + stray / draws) / 2
    fake = np.random.default_rng(0).multinomial(draws, chances, SIMULATIONS) / draws
    noise = float(np.quantile(np.abs(fake - chances).sum(1) / 2, 0.95))
    refused = sum(p for text, p in law.items() if text.endswith(REFUSED))
    return Tally(draws, len(law), tv, noise, stray, refused)


async def engine_answers(
    closed: Closed, seeds: Sequence[int | None], engine: Backend | None = None, **decoding: Any
) -> list[str]:
    """What a guard on a real engine gives for each seed.

    Args:
        engine: the closed form's own if not given.
    """
    spec = load_policy(closed.policy(**decoding))
    rule = (await load_cascade(spec)).judges[0].rule
    guard = Guard(spec, model=engine or closed.engine, judges=[Judge(rule, closed.scorer)], audit=MemoryStore())
    slots = asyncio.Semaphore(64)

    async def one(seed: int | None) -> str:
        async with slots:
            done = await guard.generate(PROMPT, CallOptions(seed=seed))
            return done.text + (REFUSED if done.finish == "refused" else "")

    return list(await asyncio.gather(*(one(seed) for seed in seeds)))


class Table:
    """The decoder with proposals looked up instead of drawn by an engine."""

    def __init__(self, closed: Closed, prompt_reward: float, rewards: Mapping[tuple[int, ...], float]) -> None:
        self._closed = closed
        self._prompt_reward = prompt_reward
        self._rewards = rewards

    @classmethod
    async def of(cls, closed: Closed, recovery: Recovery | None = None) -> Table:
        """Ask the judge about every prefix that can end a segment."""
        rewards: dict[tuple[int, ...], float] = {}
        ends: list[tuple[int, ...]] = [()]
        instructions = [""] if recovery is None else ["", recovery.instruction]
        while ends:
            before = ends.pop()
            for ids in {ids for instruction in instructions for ids in closed.segments(before, instruction)}:
                whole = before + ids
                rewards[whole] = await closed.reward(closed.text(whole))
                if ids[-1] not in closed.engine.eos_ids and len(whole) < closed.length:
                    ends.append(whole)
        return cls(closed, await closed.reward(""), rewards)

    def _propose(self, before: tuple[int, ...], seed: int, limit: int, instruction: str) -> tuple[int, ...]:
        """As the engine draws: inverse CDF in the order of token ids, a uniform number a token."""
        numbers, ids = random.Random(seed), ()
        while len(ids) < limit and not (ids and ids[-1] in self._closed.engine.eos_ids):
            u, options = numbers.random(), sorted(self._closed.next_tokens(before + ids, instruction))
            reached = itertools.accumulate(p for _, p in options)
            ids = (*ids, next((token for (token, _), p in zip(options, reached, strict=True) if u < p), options[-1][0]))
        return ids

    def answer(self, seed: int, **decoding: Any) -> str:
        """The decoder's answer for a seed."""
        settings = settings_of(load_policy(self._closed.policy(**decoding)), self._closed.length)
        return self._answer(make_decoder(settings, seed))

    def count(self, seeds: Sequence[int], **decoding: Any) -> Counter[str]:
        """How often each answer comes."""
        settings = settings_of(load_policy(self._closed.policy(**decoding)), self._closed.length)
        return Counter(self._answer(make_decoder(settings, seed)) for seed in seeds)

    def _answer(self, decoder: Decoder) -> str:
        """With ``hold_tokens`` the last segment is held, and a refusal lacks it. Each token counts as a character."""
        settings = decoder.settings
        decoder.begin(self._prompt_reward)
        before: tuple[int, ...] = ()
        released = 0
        drawn: dict[int, tuple[int, ...]] = {}
        while isinstance(step := decoder.plan(), Generate):
            judged = []
            for attempt, seed in enumerate(step.seeds, start=step.attempt):
                instruction = settings.recovery.instruction if settings.is_recovery(attempt) else ""
                ids = drawn[attempt] = self._propose(before, seed, step.limit, instruction)
                finish: FinishReason | None = "eos" if ids[-1] in self._closed.engine.eos_ids else None
                tokens = tuple(Token(token, ".") for token in ids)
                text = "." * len(tokens)
                judged.append(
                    (Candidate(tokens=tokens, text=text, finish=finish), Judgement(reward=self._rewards[before + ids]))
                )
            end = decoder.decide(judged).end
            if isinstance(end, Kept):
                before += drawn[end.attempt]
                released = max(released, len(before) - settings.hold_tokens)
                decoder.hold(len(before) - released)
            elif isinstance(end, Rewound):
                before = before[: end.place]
                decoder.hold(len(before) - released)
        if step.finish == "refused":
            return self._closed.text(before[:released]) + REFUSED
        return self._closed.text(before)


async def closed_form(top_k: int, size: int, length: int) -> tuple[Closed, float, float]:
    """The closed form on the embedded models, and an r_star and beta at which about half is accepted."""
    engine = await load_backend("embedded", "transformers")
    assert isinstance(engine, TransformersBackend)
    cascade: Cascade = await load_cascade(load_policy({"apiVersion": "stars-guard/v1", "name": "j", "judges": [JUDGE]}))
    closed = Closed(engine, Remembering(cascade.judges[0].scorer), top_k, size, length)
    rewards = await closed.rewards()
    return closed, float(np.quantile(rewards, 0.8)), max(float(rewards.std()) / 2, 0.05)


PLAIN: Mapping[str, Any] = {}
RECOVERY: Mapping[str, Any] = {"recovery": {"after": 1, "instruction": "Decline politely."}}
BACK: Mapping[str, Any] = {"rewinds": 2, "hold_tokens": 2}
CASES: Sequence[tuple[int, int | str, str, Mapping[str, Any]]] = (
    *((attempts, width, "-", PLAIN) for attempts, width in ((2, 1), (2, 2), (8, 1), (8, 4), (8, 8), (8, "auto"))),
    *((attempts, width, "recovery after 1", RECOVERY) for attempts, width in ((2, 1), (4, 4))),
    *((attempts, width, "going back, twice at most", BACK) for attempts, width in ((1, 1), (2, 2))),
    (2, 1, "both", {**RECOVERY, **BACK}),
)
"""Attempts, width, what is added in words, and as keys of a policy's decoding."""


async def by_table(closed: Closed, r_star: float, beta: float, draws: int, real: int) -> list[list[object]]:
    """One row a case, by the decoder on the table.

    Args:
        draws: by the table, a row.
        real: answers of the real engine, a row.
    """
    rows: list[list[object]] = []
    for case, (attempts, width, what, more) in enumerate(CASES):
        recovery = Recovery.model_validate(more["recovery"]) if "recovery" in more else None
        table_of = await Table.of(closed, recovery)
        law = await closed.law(r_star, beta, attempts, recovery=recovery, rewinds=more.get("rewinds", 0))
        numbers = {"attempts": attempts, "parallel": width, "r_star": r_star, "beta": beta, **more}
        seeds = range(case * draws, (case + 1) * draws)
        found = tally(law, table_of.count(seeds, **numbers))
        given = await engine_answers(closed, seeds[:real], **numbers)
        same = sum(text == table_of.answer(seed, **numbers) for text, seed in zip(given, seeds, strict=False))
        rows.append([attempts, width, what, f"{same} of {real}", *_figures(found)])
    return rows


async def by_engine(closed: Closed, engine: Backend, r_star: float, beta: float, draws: int) -> list[list[object]]:
    """One row a width and number of attempts, by answers of an engine without seeds."""
    rows: list[list[object]] = []
    for attempts, width in ((1, 1), (2, 1), (2, 2), (8, 1), (8, 4), (8, "auto")):
        law = await closed.law(r_star, beta, attempts)
        numbers = {"attempts": attempts, "parallel": width, "r_star": r_star, "beta": beta}
        seen = Counter(await engine_answers(closed, [None] * draws, engine, **numbers))
        rows.append([attempts, width, *_figures(tally(law, seen))])
    return rows


def _figures(found: Tally) -> list[object]:
    return [found.outcomes, found.refused, found.tv, found.noise, found.bound, found.impossible]


async def main(draws: int = 200_000, real: int = 64, on_vllm: int = 5_000) -> None:
    """Measure all.

    Args:
        draws: by the table, a row.
        real: answers of the transformers engine, a row.
        on_vllm: answers of the vLLM engine, a row.
    """
    closed, r_star, beta = await closed_form(top_k=3, size=2, length=4)
    figures = [
        "outcomes",
        "refusals due",
        "total variation",
        "of noise alone, 95% quantile",
        "95% bound",
        "impossible answers",
    ]
    shape = (
        "The embedded 135M model in float32, the three likeliest tokens at each step, segments of 2 tokens and answers "
        f"of 4, r_star {r_star:.3g}, beta {beta:.3g}. The closed form is made of a full forward pass for each prefix."
    )
    rows = await by_table(closed, r_star, beta, draws, real)
    about = (
        f"{shape} The real engine's answers are compared seed by seed with the decoder's on a table of those passes; "
        f"the decoder on the table is then drawn {draws} times."
    )
    head = ["attempts", "width", "with", "engine's answers as due", *figures]
    write_section("exactness: law of the output", f"{about}\n\n{table(head, rows)}", how="One run a row.")
    engine = await load_backend("embedded", "vllm", {"dtype": "float32"})
    rows = await by_engine(closed, engine, r_star, beta, on_vllm)
    about = f"{shape} {on_vllm} answers of the guard on vLLM in float32, 64 at once, are counted."
    write_section(
        "exactness: law of the output on vLLM",
        f"{about}\n\n{table(['attempts', 'width', *figures], rows)}",
        how="One run a row.",
    )
