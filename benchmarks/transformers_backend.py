"""The transformers backend with the embedded model: what guarding costs beside plain generation."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import REPEATS, medians, seconds, table, write_section
from benchmarks.parts import PROMPT, guard_of
from stars_guard.audit import JsonlStore, Recorder
from stars_guard.audit.record import CallRecord
from stars_guard.backends.transformers import TransformersBackend
from stars_guard.calling.backend_loading import load_backend
from stars_guard.core.events import Event, Released
from stars_guard.guard import CallOptions
from stars_guard.prompting.chat_encoding import encode_chat


class Plain:
    """``model.generate`` on the same weights."""

    def __init__(self, engine: TransformersBackend) -> None:
        self.model, self.tokenizer = engine.slots.model, engine.tokenizer
        self.ids = encode_chat(self.tokenizer, PROMPT)

    async def run(self, batch: int, tokens: int, streamer: Any = None) -> None:
        inputs = torch.tensor([self.ids] * batch, device=self.model.device)
        await asyncio.to_thread(
            self.model.generate,
            inputs,
            attention_mask=torch.ones_like(inputs),
            do_sample=True,
            top_k=0,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=0,
            streamer=streamer,
        )


class Clock:
    """A streamer that notes when each token came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Any) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


async def against_generate(engine: TransformersBackend) -> str:
    """Always-accepting STARS beside ``model.generate``, the same number of kept tokens."""
    plain, guard, tokens, rows = Plain(engine), guard_of(engine, 1.0, parallel=1), 64, []
    for batch in (1, 8):
        both = await medians(
            f"generate and STARS, batch {batch}",
            {
                "generate": lambda b=batch: seconds(lambda: plain.run(b, tokens)),
                "stars": lambda b=batch: seconds(lambda: guard.batch([PROMPT] * b)),
            },
        )
        speeds = {name: batch * tokens / value for name, value in both.items()}
        rows.append([batch, speeds["generate"], speeds["stars"], speeds["stars"] / speeds["generate"]])
    return table(["batch", "`model.generate` tokens/s", "STARS, all accepted, tokens/s", "ratio"], rows)


async def by_length(engine: TransformersBackend) -> str:
    """Cost of a kept token as the answer grows."""
    marks = [64, 128, 256, 512, 1024]
    guard, plain = guard_of(engine, 1.0, parallel=1, max_tokens=1024), Plain(engine)
    runs: dict[str, list[list[float]]] = {"stars": [], "generate": []}

    async def stars() -> float:
        times, began = [], time.perf_counter()
        async for event in guard.stream(PROMPT, CallOptions(seed=1)):
            if isinstance(event, Released):
                times += [time.perf_counter() - began] * 16
        runs["stars"].append(times)
        return times[-1]

    async def generate() -> float:
        clock, began = Clock(), time.perf_counter()
        await plain.run(1, 1024, clock)
        runs["generate"].append([at - began for at in clock.times[1:]])
        return runs["generate"][-1][-1]

    await medians("answers of 1024 tokens", {"stars": stars, "generate": generate})
    rows = []
    for low, high in zip([0, *marks], marks, strict=False):
        cells: list[object] = [f"{low} to {high}"]
        for name in ("generate", "stars"):
            costs = sorted(1000 * (t[high - 1] - (t[low - 1] if low else 0)) / (high - low) for t in runs[name])
            cells.append(costs[len(costs) // 2])
        rows.append([*cells, cells[1] / cells[2]])  # type: ignore[operator]
    return table(["tokens of the answer", "`generate` ms a token", "STARS ms a token", "ratio of speeds"], rows)


async def by_width(engine: TransformersBackend) -> str:
    """Time of an answer of 32 tokens by parallel width, at three acceptance rates."""
    rows = []
    for acceptance in (0.3, 0.6, 0.9):
        guards = {
            str(width): guard_of(engine, acceptance, parallel=width, attempts=64, max_tokens=32)
            for width in (1, 2, 4, 8, "auto")
        }
        drawn: dict[str, int] = dict.fromkeys(guards, 0)
        runs = itertools.count()

        async def answer(width: str, guards: Any = guards, drawn: Any = drawn, runs: Any = runs) -> float:
            done = await guards[width].generate(PROMPT, CallOptions(seed=next(runs) // len(guards)))
            drawn[width] += done.totals.drawn
            return float(done.seconds)

        found = await medians(f"widths at acceptance {acceptance}", {w: lambda w=w: answer(w) for w in guards})
        cells = [f"{found[w]:.2f} s, {drawn[w] / 32 / REPEATS:.2f}" for w in guards]
        rows.append([acceptance, *cells, found["1"] / found["auto"]])
    head = ["acceptance", *(f"width {w}: time, drawn per kept" for w in (1, 2, 4, 8, "auto")), "gain of auto over 1"]
    return table(head, rows)


class TimedStore(JsonlStore):
    """Counts the time spent on writing."""

    spent = 0.0

    async def append(self, record: CallRecord) -> None:
        began = time.perf_counter()
        await super().append(record)
        self.spent += time.perf_counter() - began


async def audit_cost(engine: TransformersBackend) -> str:
    """Time spent on the record of a call, as a share of the call."""
    spent = 0.0
    real_add, real_finish = Recorder.add, Recorder.finish

    def add(self: Recorder, event: Event) -> None:
        nonlocal spent
        began = time.perf_counter()
        real_add(self, event)
        spent += time.perf_counter() - began

    def finish(self: Recorder, **about: Any) -> CallRecord:
        nonlocal spent
        began = time.perf_counter()
        record = real_finish(self, **about)
        spent += time.perf_counter() - began
        return record

    with tempfile.TemporaryDirectory() as folder:
        store = TimedStore(Path(folder) / "audit.jsonl")
        guard = guard_of(engine, 0.6, store)
        Recorder.add, Recorder.finish = add, finish  # type: ignore[method-assign]
        try:
            whole = 0.0

            async def share() -> float:
                nonlocal spent, whole
                spent = store.spent = 0.0
                done = await guard.generate(PROMPT)
                whole = done.seconds
                return 1000 * (spent + store.spent)

            found = await medians("audit", {"ms": share})
        finally:
            Recorder.add, Recorder.finish = real_add, real_finish  # type: ignore[method-assign]
    return table(
        ["audit, ms a call", "one call of 64 tokens, s", "share"],
        [[found["ms"], whole, f"{found['ms'] / whole / 10:.2f}%"]],
    )


async def main() -> None:
    """Measure all."""
    engine = await load_backend("embedded", "transformers")
    assert isinstance(engine, TransformersBackend)
    engine.eos_ids = frozenset()
    await guard_of(engine, 1.0).generate(PROMPT)
    note = "The embedded 135M model in float32; segments of 16 tokens; the end of sequence is not looked for.\n\n"
    write_section("transformers: beside `model.generate`", note + await against_generate(engine))
    write_section("transformers: audit", await audit_cost(engine))
    write_section("transformers: parallel width", note + await by_width(engine))
    write_section("transformers: by length of the answer", note + await by_length(engine))
