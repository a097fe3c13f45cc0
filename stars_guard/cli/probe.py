"""Train a probe on the user's own prompts, say what it is worth, and install it into a checkpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from stars_guard.audit import MemoryStore
from stars_guard.calibration.probe_fit import fit_probe
from stars_guard.calibration.probe_kept import KeptSamples
from stars_guard.calibration.probe_report import Report, report
from stars_guard.calibration.probe_samples import Sample, Watching, is_held_out
from stars_guard.calling import portal
from stars_guard.calling.judge_loading import load_cascade
from stars_guard.cli._concurrently import concurrently
from stars_guard.cli._counting import counting
from stars_guard.cli._tables import Column, show_table
from stars_guard.cli.run import Job, read_prompts
from stars_guard.core.directions import Directions
from stars_guard.core.vocabulary import NumberType, ProbeFit
from stars_guard.engines.checkpoints import directory_of, fingerprint
from stars_guard.engines.embedded_models import resolve_model
from stars_guard.engines.loading import load_config, loading
from stars_guard.engines.probe_install import install
from stars_guard.engines.probes import Card, load_probe, save_probe
from stars_guard.errors import BackendError, InputError, MissingExtra, PolicyError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import Policy, load_policy
from stars_guard.scorers import Judge
from stars_guard.scorers.options import JudgeOptions

__all__ = ["Plan", "install_into", "train_probe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to train on. The fields are the options of `stars-guard probe train`."""

    prompts: Path
    output: Path
    teacher: str | None = None
    model: str = "embedded"
    dtype: NumberType | None = None
    fit: ProbeFit = "ridge"
    inner: int = 0
    reject: float | None = None
    max_tokens: int = 64
    answers: int = 1
    samples: Path | None = None
    held_out: float = 0.3
    seed: int = 0
    concurrency: int = 16
    plot: Path | None = None
    allow_python: bool = False


@dataclass(frozen=True, slots=True)
class _Teacher:
    """The judge that a probe learns from, and at which scores it rejects."""

    judge: JudgeOptions
    limit: float

    @property
    def high_is_bad(self) -> bool:
        """Whether high scores are bad: those of a judge that vetoes and gives no reward."""
        return self.judge.weight is None

    def rejects(self, score: float) -> bool:
        """Whether it rejects."""
        return score > self.limit if self.high_is_bad else score < self.limit


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer to generate: the ``turn``-th to one of ``jobs`` prompts."""

    job: Job
    turn: int
    jobs: int
    guarded: bool

    @property
    def number(self) -> int:
        """Of its seed."""
        return 2 * (self.turn * self.jobs + self.job.index) + self.guarded

    @property
    def name(self) -> str:
        """The same in another run on the same prompts."""
        return f"{self.job.digest}-{self.number}"


def train_probe(console: Console, policy: str, plan: Plan) -> None:
    """Generate, fit, measure, write.

    Raises:
        InputError: the prompts can't be read, or are too few.
        PolicyError: the policy has no such judge.
        BackendError: the model can't be loaded.
    """
    loaded = load_policy(policy)
    teacher = _teacher(loaded, plan)
    if plan.plot is not None and plan.plot.suffix not in (".png", ".svg"):
        raise InputError(f"{plan.plot}: this kind of picture isn't supported", hint="use .png or .svg")
    jobs = read_prompts(plan.prompts)
    directory = directory_of(resolve_model(plan.model))
    with loading(f"the configuration of {plan.model!r}", BackendError):
        width = int(load_config(str(directory)).get_text_config().hidden_size)
    sha256 = fingerprint(directory)
    try:
        samples, identity = _samples(console, loaded, teacher.judge, (sha256, width), jobs, plan)
    except Timeout as exc:
        raise InputError(f"{plan.samples}: another run writes to it", hint="wait for it, or choose another") from exc
    learn = [sample for sample in samples if not is_held_out(sample.prompt, plan.held_out)]
    measure = [sample for sample in samples if is_held_out(sample.prompt, plan.held_out)]
    if not measure:
        raise InputError(f"{plan.prompts}: no prompt is held out", hint="give more prompts")
    try:
        tensors = fit_probe(learn, teacher.rejects, plan.fit, inner=plan.inner)
    except ValueError as exc:
        raise InputError(f"{plan.prompts}: {exc}", hint="give more prompts, or others") from exc
    card = Card(
        model=plan.model,
        model_sha256=sha256,
        width=width,
        link="logistic" if plan.fit == "logistic" else "identity",
        teacher={"judge": teacher.judge.name, "rejects_at": str(teacher.limit), **identity},
        notes={
            "prompts": len({sample.prompt for sample in learn}),
            "texts": len(learn),
            "held_out_prompts": len({sample.prompt for sample in measure}),
            "segment_tokens": loaded.decoding.segment_tokens,
            "max_tokens": plan.max_tokens,
            "fit": plan.fit,
            "inner": len(tensors["inner.bias"]) if "inner.bias" in tensors else 0,
        },
    )
    plan.output.parent.mkdir(parents=True, exist_ok=True)
    save_probe(plan.output, card, tensors)
    found = _measured(measure, teacher, plan)
    save_probe(plan.output, card.model_copy(update={"measured": found.as_numbers}), tensors)
    _show(console, found, card, loaded.decoding.segment_tokens)
    if plan.plot is not None:
        _picture(plan.plot, found, loaded.decoding.segment_tokens)
        console.print(f"picture: {plan.plot}", soft_wrap=True)
    console.print(f"written to {plan.output}", soft_wrap=True)


def _measured(samples: Sequence[Sample], teacher: _Teacher, plan: Plan) -> Report:
    probe = load_probe(plan.output)

    def score(state: Sequence[float]) -> float:
        return probe.score(probe.directions.values(state))

    chance = plan.fit == "logistic"
    high_is_bad = teacher.high_is_bad or chance
    return report(samples, score, teacher.rejects, high_is_bad=high_is_bad, forecasts_chance=chance)


def _teacher(policy: Policy, plan: Plan) -> _Teacher:
    judges = {judge.name: judge for judge in policy.judges if not judge.own_answers_only}
    rewarding = [judge for judge in judges.values() if judge.weight is not None]
    if plan.teacher is not None:
        if plan.teacher not in judges:
            raise PolicyError(f"the policy has no judge {plan.teacher!r}", hint=f"it has {', '.join(judges) or 'none'}")
        judge = judges[plan.teacher]
    elif len(rewarding) == 1:
        (judge,) = rewarding
    else:
        raise PolicyError(f"{len(rewarding)} judges of the policy have a weight", hint="name one with --teacher")
    limit = plan.reject
    if limit is None:
        limit = policy.decoding.r_star if judge.weight is not None else judge.reject_above
    if limit is None:
        raise PolicyError(f"judge {judge.name!r} has no reject_above", hint="say where it rejects with --reject")
    return _Teacher(judge, limit)


def _samples(
    console: Console, policy: Policy, teacher: JudgeOptions, model: tuple[str, int], jobs: Sequence[Job], plan: Plan
) -> tuple[list[Sample], dict[str, str]]:
    """What the teacher says of answers and their beginnings, unguarded and under the policy, and what it is.

    Args:
        model: its fingerprint and the width of its states.
    """
    if plan.samples is None:
        return portal.call(lambda: _watch(console, policy, teacher, model, jobs, plan))
    plan.samples.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{plan.samples}.lock", timeout=0):
        return portal.call(lambda: _watch(console, policy, teacher, model, jobs, plan))


async def _watch(
    console: Console, policy: Policy, teacher: JudgeOptions, model: tuple[str, int], jobs: Sequence[Job], plan: Plan
) -> tuple[list[Sample], dict[str, str]]:
    # asked at each segment, whatever the policy says: each is something to learn from
    always = {"every": 1, "final": None}
    asked = [one.always_asked().model_copy(update=always if one is teacher else {}) for one in policy.judges]
    # a probe that the policy has already can't be asked for more than it knows, and doesn't matter here
    asked = [one for one in asked if not one.own_answers_only]
    cascade = await load_cascade(policy.model_copy(update={"judges": tuple(asked)}), allow_python=plan.allow_python)
    try:
        number = [one.rule.judge for one in cascade.judges].index(teacher.name)
        identity = dict(cascade.judges[number].identity)
        about: dict[str, Any] = {"model": model[0], "policy": policy.sha256, "teacher": teacher.name, "judge": identity}
        about |= {"max_tokens": plan.max_tokens, "seed": plan.seed, "dtype": plan.dtype}
        kept = await asyncio.to_thread(KeptSamples, plan.samples, about)
        # both kinds of answers at once, so that no places stand idle between them
        answers = [
            _Answer(job, turn, len(jobs), guarded)
            for turn in range(plan.answers)
            for job in jobs
            for guarded in (False, True)
        ]
        todo = [one for one in answers if one.name not in kept.samples]
        if todo:
            states = Directions(digest="states", model_sha256="", width=model[1], rows=())
            free, led = (
                _Watched.of(policy, cascade.judges, number, states, plan, guarded) for guarded in (False, True)
            )
            try:
                with counting(console, "generating", len(answers), done=len(answers) - len(todo)) as advance:
                    await _answer_all({False: free, True: led}, todo, kept, plan, advance)
            finally:
                await asyncio.to_thread(kept.write)
        return [sample for one in answers for sample in kept.samples[one.name]], identity
    finally:
        await cascade.aclose()


@dataclass(frozen=True, slots=True)
class _Watched:
    """A guard, and the teacher in it, which keeps what it says."""

    guard: Guard
    watching: Watching

    @classmethod
    def of(
        cls, policy: Policy, judges: Sequence[Judge], number: int, states: Directions, plan: Plan, guarded: bool
    ) -> _Watched:
        """Under the policy, or unguarded, where the judges only watch.

        Args:
            number: of the teacher among the judges.
        """
        changes = {"method": "stars"} | ({} if guarded else {"parallel": 1, "budget_tokens": None})
        decoding = policy.decoding.model_copy(update=changes)
        made = policy.model_copy(update={"mode": "enforce" if guarded else "monitor", "decoding": decoding})
        watching = Watching(judges[number].scorer, states, guarded=guarded)
        asked = [*judges[:number], replace(judges[number], scorer=watching), *judges[number + 1 :]]
        engine: dict[str, Any] = {"model": plan.model, "backend": "transformers", "options": {"dtype": plan.dtype}}
        return cls(Guard(made, **engine, judges=asked, audit=MemoryStore()), watching)


async def _answer_all(
    watched: Mapping[bool, _Watched],
    answers: Sequence[_Answer],
    kept: KeptSamples,
    plan: Plan,
    advance: Callable[[], None],
) -> None:
    writing = asyncio.Lock()

    async def one(answer: _Answer) -> None:
        options = CallOptions(max_tokens=plan.max_tokens, seed=plan.seed + answer.number)
        here = watched[answer.guarded]
        finished = await here.guard.generate(answer.job.messages, options)
        async with writing:
            await asyncio.to_thread(kept.add, answer.name, here.watching.take(finished.call_id))
        advance()

    async with watched[False].guard, watched[True].guard:
        await watched[False].guard.load()
        await concurrently(one, answers, plan.concurrency)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _show(console: Console, found: Report, card: Card, segment: int) -> None:
    """Print what the probe is worth."""
    notes = card.notes
    console.print(
        f"{notes['prompts']} prompts and {notes['texts']} texts learnt from, {notes['held_out_prompts']} prompts held "
        f"out; the teacher {card.teacher['judge']} rejects at {card.teacher['rejects_at']}"
    )
    rows = []
    for one in found.positions:
        name = "all" if one.segments is None else f"up to {one.segments * segment}" if one.segments else "prompt"
        numbers = (f"{one.rejected:.0%}", _number(one.spearman), _number(one.auc), f"{one.bias:+.2f}")
        rows.append([name, str(one.texts), *numbers])
    names = ("tokens", "texts", "rejected", "Spearman", "AUC", "bias")
    show_table(console, _columns(*names), rows, title="The probe against its teacher")
    kinds = {"missed": (found.savings, "passes", "passed"), "lost": (found.rejections, "rejects", "rejected")}
    for name, (savings, verb, done) in kinds.items():
        if savings:
            rows = [[f"{one.miss:.0%}", f"{one.saved:.0%}", f"{one.side} {one.limit:.3f}"] for one in savings]
            title = f"The teacher's work saved where the probe's word is enough: {done}"
            show_table(console, _columns(name, "saved", verb), rows, title=title)
    if found.even is not None:
        console.print(f"it rejects as many texts as its teacher with the limit {found.even:.3f}")
    if found.forecasts:
        rows = []
        for one_of in found.forecasts:
            name = f"up to {one_of.segments * segment}" if one_of.segments else "prompt"
            rows.append([name, str(one_of.answers), _number(one_of.probe), _number(one_of.teacher)])
        title = "Forecast of the whole answer, Spearman"
        show_table(console, _columns("tokens", "answers", "probe", "teacher"), rows, title=title)


def _columns(name: str, *others: str) -> tuple[Column, ...]:
    return (Column(name), *(Column(other, right=True) for other in others))


def _picture(path: Path, found: Report, segment: int) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise MissingExtra("probe train --plot", "plot") from exc
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for name, mark in (("auc", "C0o-"), ("spearman", "C1s--")):
        known = [(one.segments, getattr(one, name)) for one in found.positions if one.segments is not None]
        points = [(count * segment, value) for count, value in known if value is not None]
        axes.plot([at for at, _ in points], [value for _, value in points], mark, label=name)
    axes.set(xlabel="tokens of the answer", ylim=(-0.05, 1.05), title="probe against its teacher, held-out prompts")
    axes.legend()
    figure.savefig(path, dpi=120)


def install_into(console: Console, model: str, probe: Path, output: Path) -> None:
    """Make the copy of a checkpoint. Raises what `stars_guard.engines.probe_install.install` does."""
    made = install(directory_of(resolve_model(model)), load_probe(probe), output)
    console.print(
        f"written to {output}: the probe is in the output rows {', '.join(map(str, made.ids[:-1]))}, and row "
        f"{made.zero} is zero. Serve it with: vllm serve {output}",
        soft_wrap=True,
    )
