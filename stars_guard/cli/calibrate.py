"""Find the numbers of a policy's thresholds from the user's own prompts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from stars_guard.audit import MemoryStore
from stars_guard.calibration.learned import propose
from stars_guard.calibration.thresholds import Answer, Position, Prediction, positions, predict
from stars_guard.calling import portal
from stars_guard.calling.settings import settings_of
from stars_guard.cli.run import read_jobs
from stars_guard.decoding import Settings
from stars_guard.errors import InputError, MissingExtra, PolicyError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import Policy, load_policy
from stars_guard.policy.edit import as_yaml, write_decoding

__all__ = ["Plan", "calibrate"]

BAR = 36


@dataclass(frozen=True, slots=True)
class Plan:
    """What to draw and what to aim for.

    Attributes:
        samples: answers a prompt.
        acceptance: the wanted mean acceptance rate.
        schedule: to find numbers for; None for the policy's.
        plot: where to write the picture: .png, .svg or .html.
        write: whether the policy's file gets the values.
    """

    prompts: Path
    samples: int = 4
    acceptance: float = 0.5
    max_tokens: int | None = None
    seed: int = 0
    concurrency: int = 8
    schedule: str | None = None
    plot: Path | None = None
    write: bool = False


def calibrate(console: Console, policy: str, model: str, backend: str, options: dict[str, Any], plan: Plan) -> None:
    """Draw, measure, propose.

    Raises:
        InputError: prompts that cannot be read, or a picture of an unknown kind.
        PolicyError: the policy has no judge with a weight, or its file cannot be written.
    """
    loaded = load_policy(policy)
    if not any(judge.weight is not None for judge in loaded.judges):
        raise PolicyError(f"policy {loaded.name!r} has no judge with a weight", hint="there is nothing to calibrate")
    target = Path(policy)
    if plan.write and not target.is_file():
        raise PolicyError(f"{policy!r} is no file, so nothing can be written to it", hint="give the policy's path")
    if plan.plot is not None and plan.plot.suffix not in (".png", ".svg", ".html"):
        raise InputError(f"{plan.plot}: unknown kind of picture", hint="use .png, .svg or .html")
    settings = settings_of(loaded, plan.max_tokens or loaded.decoding.max_tokens)
    schedule = plan.schedule or settings.schedule
    answers = _draw(console, loaded, model, backend, options, plan)
    try:
        found, values = propose(answers, settings, plan.acceptance, schedule)
    except ValueError as exc:
        raise InputError(f"{plan.prompts}: {exc}") from exc
    seen, now, then = positions(answers), predict(answers, settings), predict(answers, found)
    console.print(_table(seen, now, then, settings))
    if schedule != settings.schedule:
        values["schedule"] = schedule
    for name, value in values.items():
        was = getattr(loaded.decoding, name)
        beside = "" if name == "thresholds" else f"  (the policy has {as_yaml(was)})"
        console.print(f"{name}: {as_yaml(value)}{beside}", highlight=False, markup=False)
    for title, rows in (("the policy as it is", now), ("as proposed", then)):
        weights = [position.count for position in seen]
        mean = sum(row.proposals * n for row, n in zip(rows, weights, strict=True)) / sum(weights)
        console.print(
            f"{title}: {mean:.2f} proposals a segment, so about as many tokens drawn for one kept", highlight=False
        )
    if plan.plot is not None:
        _picture(plan.plot, seen, then, loaded.name)
        console.print(f"picture: {plan.plot}", markup=False, highlight=False)
    if plan.write:
        write_decoding(target, values)
        console.print(f"written to {target}", markup=False, highlight=False)


def _draw(
    console: Console, policy: Policy, model: str, backend: str, options: dict[str, Any], plan: Plan
) -> list[Answer]:
    """Answers as the model gives them: drawn and judged segment by segment, and all let through."""
    jobs = read_jobs(plan.prompts)
    free: dict[str, Any] = {"parallel": 1, "method": "stars", "budget_tokens": None, "schedule": "linear"}
    decoding = policy.decoding.model_copy(update=free)
    watching = policy.model_copy(update={"mode": "monitor", "decoding": decoding})
    store = MemoryStore()
    guard = Guard(watching, model=model, backend=backend, options=options, audit=store)
    columns = (TextColumn("drawing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    total = len(jobs) * plan.samples
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("drawing", total=total)

        async def everything() -> None:
            slots = asyncio.Semaphore(plan.concurrency)

            async def one(number: int) -> None:
                async with slots:
                    call = CallOptions(max_tokens=plan.max_tokens, seed=plan.seed + number)
                    await guard.generate(jobs[number // plan.samples].messages, call)
                    progress.advance(bar)

            async with asyncio.TaskGroup() as group:
                for number in range(total):
                    group.create_task(one(number))

        portal.call(everything)
    answers = []
    for record in store.read():
        tokens, rewards, length = [], [], 0
        for segment in record.segments:
            attempt = segment.attempts[-1]
            length += attempt.tokens
            if attempt.reward is None:
                break
            tokens.append(length)
            rewards.append(attempt.reward)
        if rewards:
            answers.append(Answer(record.prompt_reward, tuple(tokens), tuple(rewards)))
    if not answers:
        raise InputError(f"{plan.prompts}: no answer has a reward", hint="see `stars-guard doctor` for the judges")
    return answers


def _table(
    seen: Sequence[Position], now: Sequence[Prediction], then: Sequence[Prediction], settings: Settings
) -> Table:
    low, high = min(p.quantiles[0] for p in seen), max(p.quantiles[4] for p in seen)
    table = Table(
        "segment",
        "answers",
        f"reward, {low:.2f} to {high:.2f}: 5 ─ 25 ━ 50 ┃ 75 ─ 95 %",
        "median",
        "tau",
        "accepted\nnow",
        "accepted\nproposed",
        "proposals",
        "correlation\nwith the end",
    )
    for position, before, after in zip(seen, now, then, strict=True):
        table.add_row(
            str(position.index),
            str(position.count),
            _box(position.quantiles, low, high),
            f"{position.quantiles[2]:.2f}",
            f"{after.tau:.2f}",
            f"{before.acceptance:.2f}",
            f"{after.acceptance:.2f}",
            f"{after.proposals:.2f}",
            "-" if position.correlation is None else f"{position.correlation:.2f}",
        )
    return table


def _box(quantiles: Sequence[float], low: float, high: float) -> str:
    scale = (BAR - 1) / (high - low) if high > low else 0.0
    q5, q25, q50, q75, q95 = (round((value - low) * scale) for value in quantiles)
    cells = [" "] * BAR
    cells[q5 : q95 + 1] = "─" * (q95 + 1 - q5)
    cells[q25 : q75 + 1] = "━" * (q75 + 1 - q25)
    cells[q50] = "┃"
    return "".join(cells)


def _picture(path: Path, seen: Sequence[Position], then: Sequence[Prediction], name: str) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise MissingExtra("calibrate --plot", "plot") from exc
    figure = Figure(figsize=(8, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    at = [position.index for position in seen]
    for (low, high), shade in (((0, 4), 0.15), ((1, 3), 0.3)):
        ends = [[p.quantiles[k] for p in seen] for k in (low, high)]
        top.fill_between(at, ends[0], ends[1], alpha=shade, color="C0", linewidth=0)
    top.plot(at, [p.quantiles[2] for p in seen], "C0o-", label="median reward; 50% and 90% of answers")
    top.plot(at, [p.tau for p in then], "C3--", label="proposed threshold")
    top.set(ylabel="reward", title=f"policy {name}: rewards of unguarded answers")
    top.legend()
    bottom.plot(at, [p.acceptance for p in then], "C2o-", label="acceptance as proposed")
    known = [(p.index, p.correlation) for p in seen if p.correlation is not None]
    bottom.plot(
        [k for k, _ in known], [c for _, c in known], "C1s-", label="correlation with the whole answer's reward"
    )
    bottom.set(xlabel="segment", ylim=(-1.05 if any(c < 0 for _, c in known) else -0.05, 1.05))
    bottom.legend()
    if path.suffix == ".html":
        from io import StringIO

        drawing = StringIO()
        figure.savefig(drawing, format="svg")
        svg = drawing.getvalue()
        path.write_text(f"<!doctype html><meta charset=utf-8><title>calibration</title>{svg[svg.index('<svg') :]}")
    else:
        figure.savefig(path, dpi=120)
