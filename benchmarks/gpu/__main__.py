"""What guarding costs on one GPU, with the vLLM backend: one run, medians, most important rows first.

    python -m benchmarks.gpu --seconds 470 --out OUT

The models have the shapes of Llama-3-8B (with the tokenizer's own vocabulary) and of a 1B reward model, and made-up
weights. Each row is one JSON line on stdout; all of them go into OUT/gpu.json after every row, so that a run that is
cut off keeps what it has. ``--shape tiny`` checks the logic on a CPU.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpu.clock import REPEATS, Run, machine, stop_hard, summary
from benchmarks.gpu.generator import Bench
from benchmarks.gpu.shapes import FALLBACKS, SHAPES, WORDS, Shape, conversation, make_model
from stars_guard.calling import portal
from stars_guard.core.segments import Passage

HARD = 15
"""Seconds past the limit after which the process ends itself."""


async def judge_alone(run: Run, shape: Shape, scorer: Any, numbers: Any) -> None:
    """Judging one more segment of about 16 tokens on a long prompt, the generator idle."""
    for calls in sorted(shape.calls[:3]):
        cold: list[float] = []
        warm: list[float] = []
        cached: list[int] = []
        for _ in range(REPEATS):
            if run.left < 10:
                return run.emit("skipped", what=f"judge alone, {calls} calls")
            names = [f"judged-{next(numbers)}" for _ in range(calls)]
            prompts = [tuple(conversation(next(numbers), shape.prompt)) for _ in names]
            answers, draw = [""] * calls, random.Random(next(numbers))
            for step in range(8):
                segments = ["".join(f" {draw.choice(WORDS)}" for _ in range(16)) for _ in names]
                passages = [
                    Passage(call_id=name, messages=prompt, accepted=answer, segment=segment, index=step)
                    for name, prompt, answer, segment in zip(names, prompts, answers, segments, strict=True)
                ]
                began = time.perf_counter()
                ratings = await scorer.score(passages)
                (warm if step else cold).append(1000 * (time.perf_counter() - began))
                if not all(math.isfinite(rating.value) for rating in ratings):
                    raise ValueError("the judge's scores are no numbers")
                cached += [rating.cached for rating in ratings if step and rating.cached is not None]
                answers = [answer + segment for answer, segment in zip(answers, segments, strict=True)]
            for name in names:
                await scorer.forget(name)
        run.emit(
            "judge alone",
            calls=calls,
            first_ms=statistics.median(cold),
            next_ms=statistics.median(warm),
            cached_tokens=statistics.median(cached) if cached else None,
        )
    return None


async def start_generator(run: Run, args: argparse.Namespace, shape: Shape) -> Bench:
    import torch

    from stars_guard.backends.vllm_engine import VllmEngineBackend, VllmOptions

    path = make_model(args.models / "generator", args.tokenizer, shape.generator, judge=False)
    more = FALLBACKS if torch.cuda.is_available() and not args.eager else [{"enforce_eager": True}]
    for number, extra in enumerate(more):
        options = {"load_format": "dummy", **shape.engine, **extra, **args.engine}
        began = time.perf_counter()
        try:
            engine = await VllmEngineBackend.load(path, VllmOptions.model_validate(options))
        except Exception as exc:
            run.emit("failed", what="generator", options=options, s=time.perf_counter() - began, error=_chain(exc))
            if number + 1 == len(more) or run.left < 60:
                raise
            continue
        # random text ends by chance; that is not what is measured
        engine.vocabulary = replace(engine.vocabulary, eos_ids=frozenset())
        cache = engine.engine.vllm_config.cache_config
        started = time.perf_counter() - began
        # alone, before anything else runs
        await engine.measure()
        took = time.perf_counter() - began - started
        run.emit("measured", s=took, points=engine.measured and engine.measured.points)
        run.emit(
            "generator",
            start_s=started,
            options=options,
            kv_blocks=cache.num_gpu_blocks,
            block_size=cache.block_size,
            **engine.identity,
        )
        run.facts["generator"] = extra
        return Bench(run, shape, engine)
    raise AssertionError


async def start_judge(run: Run, args: argparse.Namespace, shape: Shape) -> Any:
    from stars_guard.scorers.vllm_pooling import VllmPoolingScorer

    path = make_model(args.models / "judge", args.tokenizer, shape.judge, judge=True)
    options = {"load_format": "dummy", **shape.judge_engine, **run.facts["generator"], **args.judge_engine}
    began = time.perf_counter()
    scorer = await VllmPoolingScorer.load(path, engine=options)
    run.emit("judge engine", start_s=time.perf_counter() - began, options=options)
    return scorer


async def measure(run: Run, args: argparse.Namespace) -> None:
    shape = SHAPES[args.shape]
    machine(run)
    bench = await start_generator(run, args, shape)
    await bench.warm_up()
    scorer: Any = None

    async def judge() -> None:
        nonlocal scorer
        if run.left < args.judge_needs:
            return run.emit("skipped", what="judge engine")
        started = await start_judge(run, args, shape)
        await judge_alone(run, shape, started, bench.numbers)
        scorer = started
        return None

    async def judged(work: Callable[[], Awaitable[None]]) -> None:
        if scorer is not None:
            await work()

    main, rest = shape.calls[:3], shape.calls[3:]
    plan: list[tuple[str, Callable[[], Awaitable[None]]]] = [
        *((f"always-{n}", lambda n=n: bench.always(n)) for n in main),
        ("row-cost", bench.row_cost),
        ("first-text", bench.first_text),
        *((f"widths-{n}-{a}", lambda n=n, a=a: bench.widths(n, a)) for n in (1, max(main)) for a in (0.3, 0.6)),
        ("judge", judge),
        *((f"judged-{n}", lambda n=n: judged(lambda: bench.always(n, scorer, shape.prompt // 4))) for n in main),
        ("judged-first-text", lambda: judged(lambda: bench.first_text(scorer))),
        *((f"always-{n}", lambda n=n: bench.always(n)) for n in rest),
        *((f"widths-{n}-{a}", lambda n=n, a=a: bench.widths(n, a)) for n in (sorted(main)[1],) for a in (0.3, 0.6)),
    ]
    for name, work in plan:
        if args.only and not any(name.startswith(wanted) for wanted in args.only.split(",")):
            continue
        if run.left < 8:
            run.emit("skipped", what=name)
            continue
        try:
            await work()
        except Exception as exc:
            run.emit("failed", what=name, error=_chain(exc))
            traceback.print_exc()
    run.emit("done", left_s=run.left)
    began = time.perf_counter()
    if scorer is not None:
        await scorer.aclose()
    await bench.engine.aclose()
    run.emit("closed", s=time.perf_counter() - began)


def _chain(exc: BaseException | None) -> list[str]:
    found = []
    while exc is not None:
        found.append(f"{type(exc).__name__}: {exc}"[:300])
        exc = exc.__cause__
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llama8b")
    parser.add_argument("--seconds", type=float, default=400, help=f"nothing begins after; {HARD} more, and it ends")
    parser.add_argument("--models", type=Path, default=Path("models"), help="where the models' configs are made")
    parser.add_argument("--tokenizer", type=Path, default=Path("tokenizer"), help="tokenizer.json and a chat template")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--only", default="", help="parts, or their beginnings, by commas: always-64,row-cost,judge")
    parser.add_argument("--eager", action="store_true", help="no torch.compile, no CUDA graphs")
    parser.add_argument("--engine", type=json.loads, default={}, help="more engine arguments of the generator, as JSON")
    parser.add_argument("--judge-engine", type=json.loads, default={}, help="the same for the judge")
    parser.add_argument("--judge-needs", type=float, default=60, help="seconds that must be left to start the judge")
    args = parser.parse_args()
    run = Run(args.seconds, args.out)
    timer = threading.Timer(args.seconds + HARD, stop_hard, [run])
    timer.daemon = True
    timer.start()
    try:
        portal.call(lambda: measure(run, args))
    finally:
        summary(run)
        sys.stdout.flush()
