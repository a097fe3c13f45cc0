"""What guarding costs beside plain generation, on the generator alone or with a judge."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import statistics
import time
from collections.abc import Awaitable, Sequence
from typing import Any

from benchmarks.gpu.clock import Run, seconds
from benchmarks.gpu.shapes import Shape, conversation
from stars_guard.audit import MemoryStore
from stars_guard.core.events import Released
from stars_guard.core.judging import Rule
from stars_guard.core.step_costs import StepCosts
from stars_guard.guard import CallOptions, Guard
from stars_guard.prompting.chat_encoding import encode_chat
from stars_guard.scorers import Judge
from stars_guard.testing import FunctionScorer

NEVER = {"r_star": -1e6}
"""A threshold that no reward is under."""


class Coin:
    """Accepts by chance; the n-th call's segments need the same number of attempts whatever the width."""

    def __init__(self, acceptance: float) -> None:
        self._acceptance = acceptance
        self._calls: dict[str, int] = {}
        self._attempts: dict[tuple[int, int], int] = {}

    def __call__(self, passage: Any) -> float:
        call = self._calls.setdefault(passage.call_id, len(self._calls))
        place = (call, passage.index)
        self._attempts[place] = attempt = self._attempts.get(place, 0) + 1
        return 1.0 if random.Random(f"{call} {passage.index} {attempt}").random() < self._acceptance else -1.0


class Bench:
    """The generator, and what is measured of it."""

    def __init__(self, run: Run, shape: Shape, engine: Any) -> None:
        self.run, self.shape, self.engine = run, shape, engine
        self.numbers = itertools.count()
        self.here: StepCosts | None = None

    def guard(self, judge: Any = None, **decoding: Any) -> Any:
        """A guard with one judge, threshold 0 and the hard rule; without a judge a constant accepts all."""
        settings = {
            "segment_tokens": 16,
            "max_tokens": self.shape.tokens,
            "r_star": 0.0,
            "schedule": "constant",
            "acceptance": "hard",
            "attempts": 64,
            **decoding,
        }
        policy = {"apiVersion": "stars-guard/v1", "name": "gpu", "decoding": settings}
        judges = [Judge(Rule(judge="judge", weight=1.0), judge or FunctionScorer(lambda passage: 1.0))]
        return Guard(policy, model=self.engine, judges=judges, audit=MemoryStore())

    def conversations(self, calls: int, words: int = 0) -> list[Any]:
        """Fresh ones, so that no answer begins in a cache of an earlier run."""
        return [conversation(next(self.numbers), words) for _ in range(calls)]

    async def plain(self, calls: int, tokens: int, words: int = 0, *, streamed: bool = False) -> float:
        """The engine's own generate, all calls at once."""
        prompts = self.conversations(calls, words)
        return await seconds(asyncio.gather(*(self._one(prompt, tokens, streamed) for prompt in prompts)))

    async def _one(self, messages: Any, tokens: int, streamed: bool) -> float:
        """Gives the seconds to the first output."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        kind = RequestOutputKind.DELTA if streamed else RequestOutputKind.FINAL_ONLY
        params = SamplingParams(max_tokens=tokens, ignore_eos=True, detokenize=False, output_kind=kind)
        began, took = time.perf_counter(), 0.0
        ids = encode_chat(self.engine.vocabulary.tokenizer, messages)
        name = f"plain-{next(self.numbers)}"
        async for _ in self.engine.engine.generate({"prompt_token_ids": ids}, params, request_id=name):
            took = took or time.perf_counter() - began
        return took

    async def guarded(self, guard: Any, calls: int, words: int, totals: dict[str, float]) -> float:
        """Seconds for all calls at once; what was drawn, and this process's own computing, are added to ``totals``."""
        began, busy = time.perf_counter(), time.process_time()
        done = await guard.batch(self.conversations(calls, words), concurrency=calls)
        took = time.perf_counter() - began
        seen = {name: sum(getattr(answer.totals, name) for answer in done) for name in ("drawn", "kept")}
        for name, value in {**seen, "busy": time.process_time() - busy, "wall": took}.items():
            totals[name] = totals.get(name, 0) + value
        return took

    async def settle(self, guards: Sequence[Any]) -> None:
        """``parallel: auto`` begins with a guess of the acceptance rate; a few answers teach it."""
        few = CallOptions(max_tokens=32)
        await asyncio.gather(*(guard.batch(self.conversations(4), few, concurrency=4) for guard in guards))

    async def warm_up(self) -> None:
        """Kernels that are compiled at their first use must not be counted."""
        began = time.perf_counter()
        for calls in (1, max(self.shape.calls)):
            await self.plain(calls, 16)
            await self.guarded(self.guard(max_tokens=32), calls, 0, {})
        self.run.emit("warm", s=time.perf_counter() - began)

    async def always(self, calls: int, judge: Any = None, words: int = 0) -> None:
        """Always-accepting STARS beside plain generate: the same number of kept tokens."""
        tokens, name = self.shape.tokens, "always-accept" if judge is None else "vLLM judge"
        keys = [(size, ahead) for size, ahead in ((32, True), (16, True), (32, False), (16, False))]
        guards = {key: self.guard(judge, segment_tokens=key[0], optimistic=key[1], **NEVER) for key in keys}
        totals: dict[Any, dict[str, float]] = {key: {} for key in keys}
        await self.settle(list(guards.values()))
        cases: dict[Any, Any] = {
            "plain": lambda: self.plain(calls, tokens, words),
            "streamed": lambda: self.plain(calls, tokens, words, streamed=True),
        }
        for key in keys:
            cases[key] = lambda key=key: self.guarded(guards[key], calls, words, totals[key])
        if (found := await self.run.medians(cases, f"{name}, {calls} calls")) is None:
            return
        plain = found["plain"]
        self.run.emit(
            "plain",
            calls=calls,
            tokens=tokens,
            s=plain,
            tokens_s=calls * tokens / plain,
            streamed_ratio=plain / found["streamed"],
        )
        for key, seen in totals.items():
            self.run.emit(
                name,
                calls=calls,
                B=key[0],
                ahead=key[1],
                ratio=plain / found[key],
                s=found[key],
                drawn_per_kept=seen["drawn"] / seen["kept"],
                own_cpu=seen["busy"] / seen["wall"],
            )

    async def row_cost(self) -> None:
        """What a step costs by its rows, beside what the engine measured of itself."""
        cases = {rows: lambda n=rows: self.plain(n, self.shape.short) for rows in self.shape.rows}
        if (found := await self.run.medians(cases, "row cost")) is None:
            return
        costs = {rows: (took / found[1] - 1) / (rows - 1) for rows, took in found.items() if rows > 1}
        for rows, took in found.items():
            self.run.emit("step", rows=rows, ms=1000 * took / self.shape.short, row_cost=costs.get(rows),
                          by_engine=self.engine.step_costs.at(rows), here=took / found[1])  # fmt: skip
        self.here = StepCosts.measured(found)

    async def first_text(self, judge: Any = None) -> None:
        """From the call to the first released text, and to the first token of plain generate; B = 16."""
        guard = self.guard(judge, **NEVER)
        await self.settle([guard])

        async def released(messages: Any) -> float:
            began, took = time.perf_counter(), math.nan
            stream = guard.stream(messages)
            async for event in stream:
                if isinstance(event, Released):
                    took = time.perf_counter() - began
                    break
            await stream.aclose()
            return took

        async def middle(works: Sequence[Awaitable[float]]) -> float:
            return statistics.median(await asyncio.gather(*works))

        name = "first text" if judge is None else "first text, vLLM judge"
        for calls in sorted(self.shape.calls[:3]):
            found = await self.run.medians(
                {
                    "released": lambda n=calls: middle([released(prompt) for prompt in self.conversations(n)]),
                    "token": lambda n=calls: middle([self._one(prompt, 16, True) for prompt in self.conversations(n)]),
                    "drawn": lambda n=calls: self.plain(n, 16),
                },
                f"{name}, {calls} calls",
            )
            if found is None:
                return
            self.run.emit(
                name,
                calls=calls,
                released_ms=1000 * found["released"],
                plain_first_token_ms=1000 * found["token"],
                plain_16_tokens_ms=1000 * found["drawn"],
            )

    async def widths(self, calls: int, acceptance: float) -> None:
        """Time by parallel width where a seeded coin accepts; ``auto`` also with the costs that were measured here."""
        given = self.engine.measured
        names = ["1", "4", "8", "auto"] + (["auto, measured here"] if self.here is not None else [])
        answers = max(calls, 2)
        guards: dict[str, Any] = {}
        totals: dict[str, dict[str, float]] = {name: {} for name in names}
        for name in names:
            width: int | str = int(name) if name.isdigit() else "auto"
            guards[name] = self.guard(FunctionScorer(Coin(acceptance)), parallel=width, max_tokens=self.shape.short)
        await self.settle(list(guards.values()))

        async def one(name: str) -> float:
            self.engine.measured = self.here if name == "auto, measured here" else given
            try:
                return await self._answers(guards[name], answers, calls, totals[name])
            finally:
                self.engine.measured = given

        found = await self.run.medians(
            {name: lambda name=name: one(name) for name in names}, f"widths, {calls} calls at {acceptance}"
        )
        if found is None:
            return
        best = min(found[name] for name in ("1", "4", "8"))
        for name, seen in totals.items():
            self.run.emit(
                "width",
                calls=calls,
                acceptance=acceptance,
                parallel=name,
                over_best=found[name] / best,
                s=found[name],
                tokens_s=answers * self.shape.short / found[name],
                drawn_per_kept=seen["drawn"] / seen["kept"],
            )

    async def _answers(self, guard: Any, answers: int, calls: int, totals: dict[str, float]) -> float:
        took = 0.0
        for _ in range(answers // calls):
            took += await self.guarded(guard, calls, 0, totals)
        return took
