"""Find the numbers of a policy's thresholds from the user's own prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from stars_guard.audit import CallRecord, MemoryStore
from stars_guard.calibration.early_stop import Tries, attempts_by_position
from stars_guard.calibration.learned_schedule import propose
from stars_guard.calibration.thresholds import Answer, Prediction, SegmentRewards, predict, rewards_by_segment
from stars_guard.calling import portal
from stars_guard.calling.settings import settings_of
from stars_guard.cli._concurrently import concurrently
from stars_guard.cli._counting import counting
from stars_guard.cli._tables import Column, show_table
from stars_guard.cli.run import Job, read_prompts
from stars_guard.decoding import STEPWISE, Settings, name_of
from stars_guard.errors import InputError, MissingExtra, PolicyError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import Policy, load_policy
from stars_guard.policy.edit import as_yaml, write_decoding

__all__ = ["GuardOf", "Plan", "calibrate"]

BAR_LEAST, BAR_MOST = 16, 36
"""Characters of the picture of a segment's rewards; how many depends on the terminal."""

GuardOf = Callable[[Policy, MemoryStore], Guard]
"""Makes the guard that generates and judges the answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to generate and what to aim for.

    Attributes:
        samples: answers for each prompt.
        acceptance: the wanted mean acceptance rate.
        schedule: to find numbers for; None for the policy's.
        worth: the share of accepted candidates from which an attempt pays; None to leave the attempts as they are.
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
    worth: float | None = None
    plot: Path | None = None
    write: bool = False


@dataclass(frozen=True, slots=True)
class _Row:
    """One segment of the answers: what was seen, and what the policy would do there, now and as proposed."""

    seen: SegmentRewards
    now: Prediction
    proposed: Prediction


def calibrate(console: Console, policy: str, guard_of: GuardOf, plan: Plan) -> None:
    """Generate, measure, propose.

    Raises:
        InputError: the prompts can't be read, or the picture's kind isn't supported.
        PolicyError: the policy has no judge with a weight, or its file can't be written.
    """
    loaded = load_policy(policy)
    _check(loaded, policy, plan)
    settings = settings_of(loaded, plan.max_tokens or loaded.decoding.max_tokens)
    schedule = settings.schedule if plan.schedule in (None, name_of(settings.schedule)) else str(plan.schedule)

    def proposed(answers: Sequence[Answer]) -> tuple[Settings, dict[str, Any]]:
        try:
            return propose(answers, settings, plan.acceptance, schedule)
        except ValueError as exc:
            raise InputError(f"{plan.prompts}: {exc}") from exc

    records = _generate(console, loaded, guard_of, plan, UNGUARDED)
    answers = _known([_unguarded(record) for record in records], plan)
    found, values = proposed(answers)
    if schedule == "learned" or plan.worth is not None:
        # a guard keeps other prefixes: what is learned is learned at these
        records = _generate(console, loaded, guard_of, plan, {**GUARDED, **dict(_numbers(found))})
        if schedule == "learned":
            answers = _known([_guarded(record) for record in records], plan)
            found, values = proposed(answers)
        if plan.worth is not None:
            tries = [each for record in records for each in _tries(record)]
            steps = attempts_by_position(tries, settings, plan.worth)
            found, values["attempts"] = found.changed(attempts=steps), [step.model_dump() for step in steps]
    if schedule != settings.schedule:
        values["schedule"] = schedule
    columns = rewards_by_segment(answers), predict(answers, settings), predict(answers, found)
    rows = [_Row(*row) for row in zip(*columns, strict=True)]
    _show(console, loaded, rows, values)
    if plan.plot is not None:
        _picture(plan.plot, rows, loaded.name)
        console.print(f"picture: {plan.plot}")
    if plan.write:
        write_decoding(Path(policy), values)
        console.print(f"written to {policy}")


def _check(policy: Policy, source: str, plan: Plan) -> None:
    """What can be known to fail before anything is generated."""
    if not any(judge.weight is not None for judge in policy.judges):
        raise PolicyError(f"policy {policy.name!r} has no judge with a weight", hint="there is nothing to calibrate")
    if plan.write and not Path(source).is_file():
        raise PolicyError(f"{source!r} is not a file, so nothing can be written to it", hint="give the policy's path")
    if plan.plot is not None and plan.plot.suffix not in (".png", ".svg", ".html"):
        raise InputError(f"{plan.plot}: this kind of picture isn't supported", hint="use .png, .svg or .html")


def _show(console: Console, policy: Policy, rows: Sequence[_Row], values: dict[str, Any]) -> None:
    """Print what was seen, the values that are proposed, and what they would cost."""
    _show_rows(console, rows)
    for name, value in values.items():
        has = getattr(policy.decoding, name)
        beside = "" if isinstance(has, tuple) else f"  (the policy has {as_yaml(has)})"
        console.print(f"{name}: {as_yaml(value)}{beside}")
    weights = [row.seen.count for row in rows]
    for title, column in (("the policy as it is", "now"), ("as proposed", "proposed")):
        candidates = [getattr(row, column).candidates for row in rows]
        mean = sum(number * weight for number, weight in zip(candidates, weights, strict=True)) / sum(weights)
        console.print(f"{title}: {mean:.2f} candidates a segment, so about as many tokens are generated for one kept")


UNGUARDED: Mapping[str, Any] = {"method": "stars", "parallel": 1, "budget_tokens": None, "schedule": "linear"}
"""Changes of a policy's decoding for answers as the model gives them, judged segment by segment and all let through."""

GUARDED: Mapping[str, Any] = {
    "method": "stars",
    "parallel": 1,
    "budget_tokens": None,
    "on_exhausted": "best",
    **STEPWISE,
}
"""The same for answers of which a guard chose each segment."""


def _numbers(settings: Settings) -> Iterator[tuple[str, Any]]:
    """What was found, as keys of a policy's decoding."""
    return ((name, getattr(settings, name)) for name in ("schedule", "beta", "r_star", "thresholds"))


def _generate(
    console: Console, policy: Policy, guard_of: GuardOf, plan: Plan, changes: Mapping[str, Any]
) -> list[CallRecord]:
    """The records of answers to all prompts."""
    jobs = read_prompts(plan.prompts)
    is_guarded = "on_exhausted" in changes
    decoding = policy.decoding.model_copy(update=dict(changes))
    mode = "enforce" if is_guarded else "monitor"
    store = MemoryStore()
    guard = guard_of(policy.model_copy(update={"mode": mode, "decoding": decoding}), store)
    title = "generating under a guard" if is_guarded else "generating"
    with counting(console, title, len(jobs) * plan.samples) as advance:
        portal.call(lambda: _generate_all(guard, jobs, plan, advance))
    return list(store.read())


def _known(answers: Sequence[Answer], plan: Plan) -> list[Answer]:
    """Those that have rewards."""
    found = [answer for answer in answers if answer.rewards]
    if not found:
        raise InputError(f"{plan.prompts}: no answer has a reward", hint="see `stars-guard doctor` for the judges")
    return found


async def _generate_all(guard: Guard, jobs: Sequence[Job], plan: Plan, advance: Callable[[], None]) -> None:
    async def one(number: int) -> None:
        call = CallOptions(max_tokens=plan.max_tokens, seed=plan.seed + number)
        await guard.generate(jobs[number // plan.samples].messages, call)
        advance()

    await concurrently(one, range(len(jobs) * plan.samples), plan.concurrency)


def _unguarded(record: CallRecord) -> Answer:
    """The rewards on record, up to the first segment that has none."""
    tokens, rewards, length = [], [], 0
    for segment in record.segments:
        attempt = segment.attempts[-1]
        if attempt.reward is None:
            break
        length += attempt.tokens
        tokens.append(length)
        rewards.append(attempt.reward)
    return Answer(record.prompt_reward, tuple(tokens), tuple(rewards))


def _guarded(record: CallRecord) -> Answer:
    """What the model gave first at each prefix that a guard kept, up to the first segment without such a reward."""
    tokens, rewards, prefixes, length = [], [], [], 0
    before = record.prompt_reward
    for segment in record.segments:
        first, kept = segment.attempts[0], next((a for a in segment.attempts if a.attempt == segment.kept), None)
        if first.reward is None or kept is None or kept.reward is None:
            break
        tokens.append(length + first.tokens)
        rewards.append(first.reward)
        prefixes.append(before)
        length, before = length + kept.tokens, kept.reward
    return Answer(record.prompt_reward, tuple(tokens), tuple(rewards), tuple(prefixes), before)


def _tries(record: CallRecord) -> Iterator[Tries]:
    for index, segment in enumerate(record.segments):
        made = sum(attempt.verdict != "surplus" for attempt in segment.attempts)
        yield Tries(index, made, segment.how == "accepted")


def _show_rows(console: Console, rows: Sequence[_Row]) -> None:
    low, high = min(row.seen.quantiles[0] for row in rows), max(row.seen.quantiles[4] for row in rows)
    bar = min(BAR_MOST, max(BAR_LEAST, console.width - _BESIDE_BAR)) if console.is_terminal else BAR_MOST
    cells = [
        (
            str(row.seen.index),
            str(row.seen.count),
            _box(row.seen.quantiles, low, high, bar),
            f"{row.seen.quantiles[2]:.2f}",
            f"{row.proposed.tau:.2f}",
            f"{row.now.acceptance:.2f}",
            f"{row.proposed.acceptance:.2f}",
            f"{row.proposed.candidates:.2f}",
            "-" if row.seen.correlation is None else f"{row.seen.correlation:.2f}",
        )
        for row in rows
    ]
    show_table(console, _COLUMNS, cells)
    console.print(f"rewards, from {low:.2f} to {high:.2f}: 5 ─ 25 ━ 50 ┃ 75 ─ 95 % of the answers")
    console.print("now, then: the share of candidates that is accepted, by the policy as it is and as proposed")


_COLUMNS = (
    Column("segment", right=True),
    Column("answers", rank=2, right=True),
    Column("rewards"),
    Column("median", right=True),
    Column("tau", right=True),
    Column("now", right=True),
    Column("then", right=True),
    Column("candidates", rank=1, right=True),
    Column("correlation", rank=3, right=True),
)
_BESIDE_BAR = 62
"""Characters that the other columns take without the one that is left out first."""


def _box(quantiles: Sequence[float], low: float, high: float, width: int) -> str:
    scale = (width - 1) / (high - low) if high > low else 0.0
    q5, q25, q50, q75, q95 = (round((value - low) * scale) for value in quantiles)
    cells = [" "] * width
    cells[q5 : q95 + 1] = "─" * (q95 + 1 - q5)
    cells[q25 : q75 + 1] = "━" * (q75 + 1 - q25)
    cells[q50] = "┃"
    return "".join(cells)


def _picture(path: Path, rows: Sequence[_Row], name: str) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise MissingExtra("calibrate --plot", "plot") from exc
    figure = Figure(figsize=(8, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    seen, proposed = [row.seen for row in rows], [row.proposed for row in rows]
    at = [each.index for each in seen]
    for (low, high), shade in (((0, 4), 0.15), ((1, 3), 0.3)):
        ends = [[each.quantiles[k] for each in seen] for k in (low, high)]
        top.fill_between(at, ends[0], ends[1], alpha=shade, color="C0", linewidth=0)
    top.plot(at, [each.quantiles[2] for each in seen], "C0o-", label="median reward; 50% and 90% of answers")
    top.plot(at, [each.tau for each in proposed], "C3--", label="proposed threshold")
    top.set(ylabel="reward", title=f"policy {name}: rewards of unguarded answers")
    top.legend()
    bottom.plot(at, [each.acceptance for each in proposed], "C2o-", label="acceptance as proposed")
    known = [(each.index, each.correlation) for each in seen if each.correlation is not None]
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
