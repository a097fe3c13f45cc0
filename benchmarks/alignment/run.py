"""The whole evaluation: calibrate on the tuning prompts, draw on the held-out ones, time, mark. The cheaper level goes
first, so that a run that was stopped has whole levels to tell of."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.alignment.book import Book
from benchmarks.alignment.drawing import Bench, answer_all, missing
from benchmarks.alignment.fits import Fits
from benchmarks.alignment.judges import second_judge
from benchmarks.alignment.marks import mark_all
from benchmarks.alignment.methods import PLAIN, Method
from benchmarks.alignment.plans import Plan
from benchmarks.alignment.prompts import choose, prompts
from benchmarks.alignment.speed import measure_speed, widened
from stars_guard.calibration.thresholds import Answer
from stars_guard.calling.backend_loading import load_backend

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that the report needs.

    Attributes:
        methods: those whose answers are all there, calibrated.
        free: unguarded answers to the tuning prompts, by how they are cut.
        calibration: rows of r_star, beta, the rate aimed for and the level reached, by method.
        harmful: marked answers to harmful prompts, by method; so ``benign``.
        speed: rows by method and batch.
    """

    plan: Plan
    engine: dict[str, str]
    judges: dict[str, Any]
    sources: dict[str, int]
    methods: list[Method]
    free: dict[str, list[Answer]]
    calibration: dict[str, dict[str, Any]]
    harmful: dict[str, list[dict[str, Any]]]
    benign: dict[str, list[dict[str, Any]]]
    speed: list[dict[str, Any]]


async def evaluate(
    plan: Plan, model: str, backend: str, out: Path, *, draw: bool = True, only: Sequence[str] = ()
) -> Evaluation:
    """Draw, time and mark what the folder ``out`` does not hold yet, and evaluate the methods whose answers are all
    there.

    Args:
        draw: whether anything is drawn.
        only: families or single methods that are drawn; all if empty.

    Raises:
        ValueError: the folder holds another evaluation, or there is nothing to tell of.
    """
    found = prompts()
    tuning = choose(found, kind="harmful", tuning=True, count=plan.tuning)
    harmful = choose(found, kind="harmful", tuning=False, count=plan.harmful)
    benign = choose(found, kind="benign", tuning=False, count=plan.benign)
    jobs = plan.jobs([*harmful, *benign])
    answers = Book(out / "answers.jsonl", ("method", "prompt", "seed"))
    speeds = Book(out / "speed.jsonl", ("method", "batch"))
    texts = Book(out / "texts.jsonl", ("prompt", "digest"))
    marks = Book(out / "marks.jsonl", ("prompt", "digest"))
    fits = Fits(plan, tuning, out)
    second = second_judge()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:

        def bar(title: str, total: int) -> Any:
            task = progress.add_task(title, total=total)
            return lambda: progress.advance(task)

        if draw:
            engine = await load_backend(model, backend)
            _claim(out, {"plan": asdict(plan), "engine": engine.identity})
            bench = Bench(engine, plan.max_tokens, asyncio.Semaphore(plan.concurrency))
            wanted = [method for method in plan.methods() if not only or {method.family, method.name} & set(only)]
            bars = {method.name: bar(f"answers: {method.name}", len(jobs)) for method in wanted}

            async def answered(method: Method) -> Method:
                ready = await fits.ready(bench, method)
                await answer_all(bench, ready, jobs, answers, texts, bars[method.name])
                return ready

            drawn: list[Method] = []
            for _, level in itertools.groupby(wanted, key=lambda method: method.level):
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(answered(method)) for method in level]
                drawn += [task.result() for task in tasks]
            timed = widened(drawn)
            advance = bar("speed", len(timed) * len(plan.batches))
            await measure_speed(bench, timed, harmful, plan.batches, plan.least, speeds, advance)
        known = [ready for method in plan.methods() if (ready := fits.known(method)) is not None]
        methods = [method for method in known if not missing(method, plan.max_tokens, jobs, answers)]
        if PLAIN not in (method.name for method in methods):
            raise ValueError(f"{out} does not hold all answers of the plain model, which all are compared with")
        rows = {m.name: [row for p, s in jobs if (row := answers.get(m.name, p.key, s))] for m in methods}
        named = {(row["prompt"], row["digest"]) for several in rows.values() for row in several}
        await mark_all(named, texts, {p.key: p for p in found}, model, second, marks, bar("judging", len(named)))

    def marked(method: Method, kind: str) -> list[dict[str, Any]]:
        return [
            {**row, **(marks.get(row["prompt"], row["digest"]) or {})}
            for row in rows[method.name]
            if row["kind"] == kind
        ]

    sources: dict[str, int] = {}
    for prompt in [*harmful, *benign]:
        sources[prompt.source] = sources.get(prompt.source, 0) + 1
    names = {method.name for method in widened(methods)}
    return Evaluation(
        plan,
        json.loads((out / "plan.json").read_text())["engine"],
        {"second": second.about},
        sources,
        methods,
        fits.free,
        {method.name: fits.found[method.name] for method in methods if method.fitted},
        {method.name: marked(method, "harmful") for method in methods},
        {method.name: marked(method, "benign") for method in methods},
        [row for row in speeds.rows() if row["method"] in names and row["batch"] in plan.batches],
    )


def _claim(out: Path, what: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    path, text = out / "plan.json", json.dumps(what, indent=1)
    if path.exists() and path.read_text() != text:
        raise ValueError(f"{out} holds an evaluation of another plan or engine: remove it, or name another with --out")
    path.write_text(text)
