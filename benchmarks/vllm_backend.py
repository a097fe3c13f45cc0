"""vLLM in process with the embedded model: what guarding costs beside plain generation."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.measure import REPEATS, medians, seconds, table, write_section
from benchmarks.parts import PROMPT, guard_of, released
from stars_guard.audit import MemoryStore
from stars_guard.backends.vllm_engine import VllmEngineBackend
from stars_guard.calling.backend_loading import load_backend
from stars_guard.calling.judge_loading import load_cascade
from stars_guard.core.segments import Passage
from stars_guard.guard import Guard
from stars_guard.policy import load_policy
from stars_guard.prompting.chat_encoding import encode_chat

TOKENS = 64
ANSWER = 24
ANSWERS = 8
NOTE = "The embedded 135M model in bfloat16, KV blocks of 32 tokens; the end of sequence is not looked for.\n\n"


class Plain:
    """The engine's own generate."""

    def __init__(self, engine: VllmEngineBackend) -> None:
        self.engine = engine
        self.ids = encode_chat(engine.vocabulary.tokenizer, PROMPT)
        self.numbers = itertools.count()

    async def run(self, calls: int, tokens: int) -> None:
        await asyncio.gather(*(self._one(tokens) for _ in range(calls)))

    async def _one(self, tokens: int) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            max_tokens=tokens, ignore_eos=True, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
        )
        name = f"plain-{next(self.numbers)}"
        async for _ in self.engine.engine.generate({"prompt_token_ids": self.ids}, params, request_id=name):
            pass


async def against_plain(engine: VllmEngineBackend) -> tuple[list[str], list[list[float]]]:
    """Always-accepting STARS beside plain generate, the same number of kept tokens: head and rows."""
    plain, rows = Plain(engine), []
    guards: dict[str, Guard] = {
        f"B = {size}": guard_of(engine, 1.0, segment_tokens=size, max_tokens=TOKENS) for size in (16, 32, 64)
    }
    guards["B = 32, not ahead"] = guard_of(engine, 1.0, segment_tokens=32, max_tokens=TOKENS, optimistic=False)
    for guard in guards.values():
        await guard.batch([PROMPT] * 4)
    for calls in (1, 8, 32):
        cases: dict[str, Any] = {"plain": lambda n=calls: seconds(lambda: plain.run(n, TOKENS))}
        for name, guard in guards.items():
            cases[name] = lambda n=calls, g=guard: seconds(lambda: g.batch([PROMPT] * n, concurrency=n))
        found = await medians(f"plain and STARS, {calls} calls", cases)
        ratios = [found["plain"] / found[name] for name in guards]
        rows.append([calls, calls * TOKENS / found["plain"], *ratios])
    return ["calls", "plain tokens/s", *(f"ratio, {name}" for name in guards)], rows


async def by_width(engine: VllmEngineBackend) -> str:
    """Time for all answers by parallel width, at three acceptance rates, alone and in a crowd."""
    rows = []
    for calls, acceptance in itertools.product((1, 32), (0.3, 0.6, 0.9)):
        guards = {
            str(width): guard_of(engine, acceptance, segment_tokens=8, parallel=width, attempts=64, max_tokens=ANSWER)
            for width in (1, 4, "auto")
        }
        drawn: dict[str, int] = dict.fromkeys(guards, 0)

        async def answers(name: str, n: int = calls, guards: Any = guards, drawn: Any = drawn) -> float:
            began = time.perf_counter()
            done = await guards[name].batch([PROMPT] * max(n, ANSWERS), concurrency=n)
            drawn[name] += sum(answer.totals.drawn for answer in done)
            return time.perf_counter() - began

        await guards["auto"].batch([PROMPT] * 4)
        found = await medians(
            f"widths, {calls} calls at {acceptance}", {name: lambda name=name: answers(name) for name in guards}
        )
        best = min(found["1"], found["4"])
        kept = max(calls, ANSWERS) * ANSWER * REPEATS
        rows.append(
            [calls, acceptance, *(f"{found[n]:.2f} s, {drawn[n] / kept:.2f}" for n in guards), found["auto"] / best]
        )
    head = ["calls", "acceptance", *(f"width {w}: time, drawn per kept" for w in (1, 4, "auto")), "auto / best fixed"]
    return table(head, rows)


async def first_text(engine: VllmEngineBackend) -> dict[str, float]:
    """Seconds to the first released text under the default policy's judge, beside B plain tokens and one judging."""
    loaded = load_policy("default")
    cascade = await load_cascade(loaded)
    guard = Guard(loaded.model_copy(update={"mode": "monitor"}), model=engine, audit=MemoryStore())
    plain, size = Plain(engine), loaded.decoding.segment_tokens

    async def drawn_and_judged() -> float:
        began = time.perf_counter()
        await plain.run(1, size)
        await cascade.judge(
            [
                Passage(
                    call_id="bench",
                    messages=tuple(PROMPT),
                    accepted="",
                    segment="The keeper of the light looked at the sea. " * 2,
                )
            ]
        )
        return time.perf_counter() - began

    await released(guard)
    return await medians("first text", {"released": partial(released, guard), "plain": drawn_and_judged})


async def main() -> None:
    """Measure all."""
    engine = await load_backend("embedded", "vllm")
    assert isinstance(engine, VllmEngineBackend)
    found, size = await first_text(engine), load_policy("default").decoding.segment_tokens
    head = ["first released text, ms", f"plain {size} tokens and one judging, ms", "ratio"]
    times = [1000 * found["released"], 1000 * found["plain"], found["released"] / found["plain"]]
    write_section("vLLM: time to the first text", table(head, [times]))
    engine.vocabulary = replace(engine.vocabulary, eos_ids=frozenset())
    await Plain(engine).run(8, 32)
    write_section("vLLM: beside plain generate", NOTE + table(*await against_plain(engine)))
    about = f"Answers of {ANSWER} tokens, B = 8; a call alone gives {ANSWERS} of them in turn.\n\n"
    write_section("vLLM: parallel width", NOTE + about + await by_width(engine))
