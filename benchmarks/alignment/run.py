"""The whole evaluation: calibrate on the tuning prompts, draw on the held-out ones, time, mark."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.alignment.book import Book
from benchmarks.alignment.drawing import Bench, answer_all, calibrate, unguarded
from benchmarks.alignment.judges import second_judge
from benchmarks.alignment.marks import mark_all
from benchmarks.alignment.methods import Method
from benchmarks.alignment.plans import Plan
from benchmarks.alignment.prompts import Prompt, choose, digest, prompts
from benchmarks.alignment.speed import measure_speed, widened
from stars_guard.assembly import load_backend
from stars_guard.calibration import Answer

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that the report needs.

    Attributes:
        methods: calibrated.
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


async def evaluate(plan: Plan, model: str, backend: str, out: Path) -> Evaluation:
    """Draw, time and mark what the folder ``out`` does not hold yet.

    Raises:
        ValueError: the folder holds another evaluation.
    """
    engine = await load_backend(model, backend)
    _claim(out, {"plan": asdict(plan), "engine": engine.identity})
    bench = Bench(engine, plan.max_tokens, plan.concurrency)
    found = prompts()
    tuning = choose(found, kind="harmful", tuning=True, count=plan.tuning)
    harmful = choose(found, kind="harmful", tuning=False, count=plan.harmful)
    benign = choose(found, kind="benign", tuning=False, count=plan.benign)
    second = second_judge()
    answers = Book(out / "answers.jsonl", ("method", "prompt", "seed"))
    speeds = Book(out / "speed.jsonl", ("method", "batch"))
    marks = Book(out / "marks.jsonl", ("prompt", "text"))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns) as progress:

        def bar(title: str, total: int) -> Any:
            task = progress.add_task(title, total=total)
            return lambda: progress.advance(task)

        methods, free, calibration = await _calibrated(bench, plan, tuning, out, bar)
        timed = widened(methods)
        of_methods = {title: bar(f"answers: {title}", (len(harmful) + len(benign)) * plan.seeds) for title in
                      (method.name for method in methods)}  # fmt: skip
        for method in methods:
            await answer_all(bench, method, [*harmful, *benign], plan.seeds, answers, of_methods[method.name])
        advance = bar("speed", len(timed) * len(plan.batches))
        await measure_speed(bench, timed, harmful, plan.batches, plan.least, speeds, advance)
        rows = {
            method.name: [answers.get(method.name, p.key, s) for p in [*harmful, *benign] for s in range(plan.seeds)]
            for method in methods
        }
        flat = [row for several in rows.values() for row in several if row is not None]
        texts = len({(row["prompt"], digest(row["text"])) for row in flat})
        await mark_all(flat, {p.key: p for p in found}, model, second, marks, bar("judging", texts))

    def marked(method: Method, kind: str) -> list[dict[str, Any]]:
        return [
            {**row, **(marks.get(row["prompt"], digest(row["text"])) or {})}
            for row in rows[method.name]
            if row is not None and row["kind"] == kind
        ]

    sources: dict[str, int] = {}
    for prompt in [*harmful, *benign]:
        sources[prompt.source] = sources.get(prompt.source, 0) + 1
    names = {(method.name, batch) for method in timed for batch in plan.batches}
    return Evaluation(
        plan, dict(engine.identity), {"second": second.about}, sources, methods, free, calibration,
        {method.name: marked(method, "harmful") for method in methods},
        {method.name: marked(method, "benign") for method in methods},
        [row for row in speeds.rows() if (row["method"], row["batch"]) in names],
    )  # fmt: skip


def _claim(out: Path, what: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    path, text = out / "plan.json", json.dumps(what, indent=1)
    if path.exists() and path.read_text() != text:
        raise ValueError(f"{out} holds an evaluation of another plan or engine: remove it, or name another with --out")
    path.write_text(text)


async def _calibrated(
    bench: Bench, plan: Plan, tuning: Sequence[Prompt], out: Path, bar: Any
) -> tuple[list[Method], dict[str, list[Answer]], dict[str, dict[str, Any]]]:
    """The methods with r_star and beta, the unguarded answers, and what calibration found."""
    frees = Book(out / "unguarded.jsonl", ("cut",))
    book = Book(out / "calibration.jsonl", ("method",))
    methods, free, calibration = [], {}, {}
    fitted = [method for method in plan.methods() if method.fitted]
    advance = bar("calibration", len(fitted))
    for method in plan.methods():
        if not method.fitted:
            methods.append(method)
            continue
        size = method.decoding["segment_tokens"] or plan.max_tokens
        cut = f"entropy of {method.decoding['entropy_threshold']}" if "CARDS" in method.name else f"B={size}"
        if cut not in free:
            row = frees.get(cut)
            if row is None:
                drawn = await unguarded(bench, method, tuning)
                row = {"cut": cut, "answers": [asdict(answer) for answer in drawn]}
                frees.add(row)
            free[cut] = [Answer(a["prompt_reward"], tuple(a["tokens"]), tuple(a["rewards"])) for a in row["answers"]]
        entry = book.get(method.name)
        if entry is None:
            entry = {"method": method.name, **await calibrate(bench, method, tuning, free[cut], plan.rounds)}
            book.add(entry)
        calibration[method.name] = entry
        methods.append(method.with_(r_star=entry["r_star"], beta=entry["beta"]))
        advance()
    return methods, free, calibration
