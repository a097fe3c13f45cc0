"""Policies at the terminal: check, show, compare, test, explain."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.syntax import Syntax

from stars_guard.calling import portal
from stars_guard.calling.judge_loading import load_judges
from stars_guard.cli._tables import Column, show_table
from stars_guard.core.judging import Judgement
from stars_guard.core.messages import Message, ToolCall
from stars_guard.core.segments import Passage
from stars_guard.errors import PolicyError
from stars_guard.policy import Policy, load_policy, resolve_policy, shipped_policies
from stars_guard.policy.cases import Case, failures, load_call, load_cases
from stars_guard.policy.layers import shown_changes
from stars_guard.policy.show import annotated, differences
from stars_guard.policy.tree import key_of
from stars_guard.prompting.call_rendering import read_call, render_call
from stars_guard.scorers.options import JudgeOptions

__all__ = ["check_policies", "diff_policies", "explain_call", "list_policies", "run_cases", "show_policy"]


def list_policies(console: Console) -> None:
    """The shipped policies by name, each with the first sentence of its file, which says what it is for."""
    rows = [(name, _purpose(path.read_text(encoding="utf-8"))) for name, path in shipped_policies().items()]
    show_table(console, (Column("name"), Column("what it is for", least=20, wraps=True)), rows)


def _purpose(text: str) -> str:
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    about = " ".join(line.lstrip("# ") for line in lines)
    return re.split(r"(?<=[.])\s|[:;]\s", about, maxsplit=1)[0].rstrip(".")


def check_policies(console: Console, names: list[str]) -> bool:
    """Whether all are valid. Each gets a line, or one for each of its problems with file, line and key."""
    fine = True
    for name in names:
        try:
            resolved = resolve_policy(name)
        except PolicyError as exc:
            fine = False
            console.print(str(exc), style="red", soft_wrap=True)
            continue
        console.print(f"{name}: valid ({resolved.policy.sha256[:12]})", style="green", soft_wrap=True)
        for note in resolved.loosened:
            console.print(f"  loosened: {note}", style="yellow", soft_wrap=True)
    return fine


def show_policy(console: Console, name: str) -> None:
    """The resolved policy, with where each value came from."""
    text = annotated(resolve_policy(name))
    if console.is_terminal:
        console.print(Syntax(text, "yaml", background_color="default", word_wrap=False))
    else:
        console.out(text, end="")


def diff_policies(console: Console, first: str, second: str) -> bool:
    """Whether two policies have the same effect. Prints what differs, and what the second lets through."""
    a, b = resolve_policy(first), resolve_policy(second)
    rows = differences(a.policy, b.policy, before=a.tree, after=b.tree)
    if not rows:
        console.print("The two are the same.", style="green")
        return True
    show_table(console, [Column(name, least=16, wraps=True) for name in ("key", first, second)], rows)
    for change, text in shown_changes(a.policy, a.tree, b.policy, b.tree):
        console.print(f"{second} is looser: {key_of(change.loc)}: {text}", style="yellow", soft_wrap=True)
    return False


def explain_call(console: Console, name: str, path: Path) -> None:
    """What each rule of a policy says about a call, and which one decides.

    Raises:
        PolicyError: the policy or the call can't be read.
    """
    rail, call = load_policy(name).rails.tool_call, load_call(path)
    rules = rail.compiled()
    decision = call.decision(rules, call)
    steps = call.steps(rules, call)
    rows = [(step.name, step.because, step.action, step.outcome, step.why) for step in steps]
    styles = ["bold" if step.name == decision.rule else "" if step.applies else "dim" for step in steps]
    show_table(console, _STEPS, rows, styles=styles)
    console.print(f"{decision.action}: {decision.reason}", style=_STYLES[decision.action], soft_wrap=True)
    if decision.message:
        console.print(f"  {decision.message}", soft_wrap=True)
    if rail.judges:
        console.print("The judges of rails.tool_call were not asked; a veto of one of them rejects the call.")


_STEPS = [*map(Column, ("rule", "kind", "action", "here")), Column("why", least=16, wraps=True)]
_STYLES = {"allow": "green", "ask": "yellow", "reject": "red"}


def run_cases(console: Console, name: str, path: Path, *, allow_python: bool) -> bool:
    """Whether the policy's judges say of each case what it expects.

    Raises:
        PolicyError: the policy or the cases can't be read, or a judge is Python code and ``allow_python`` is False.
    """
    policy, cases = load_policy(name), load_cases(path)
    if not allow_python and any(judge.not_allowed() for judge in policy.every_judge):
        raise PolicyError(f"policy {policy.name!r} runs Python code", hint="allow it with --allow-python")
    if left := [judge.name for judge in policy.judges if judge.own_answers_only]:
        console.print(
            f"not asked, because they judge only what the generator writes: {', '.join(left)}", style="yellow"
        )
    with Progress(*Progress.get_default_columns(), console=console, transient=True) as progress:
        bar = progress.add_task("judging", total=len(cases))
        judgements = portal.call(lambda: _judge_all(policy, cases, allow_python, lambda: progress.advance(bar)))
    return _report(console, policy, cases, judgements)


async def _judge_all(
    policy: Policy, cases: Sequence[Case], allow_python: bool, advance: Callable[[], None]
) -> list[Judgement]:
    """What all judges of each case's stage say of its text, in the order of the cases."""
    cascades = {stage: await load_judges(specs, allow_python=allow_python) for stage, specs in _specs(policy).items()}

    async def judge(index: int, case: Case) -> Judgement:
        passage = Passage(
            call_id=f"case-{index}",
            messages=(Message("user", case.prompt),) if case.prompt else (),
            accepted="",
            segment=render_call(case.call.name, case.call.args) if case.call else case.answer or "",
            last=case.stage != "answer",
            tool_calls=_calls_of(case),
            is_call=case.stage == "tool_call",
        )
        judgement = await cascades[case.stage].judge_fully(passage)
        advance()
        return judgement

    return list(await asyncio.gather(*(judge(index, case) for index, case in enumerate(cases))))


def _calls_of(case: Case) -> tuple[ToolCall, ...]:
    if case.stage != "tool_call":
        return ()
    return (case.call.tool_call if case.call else read_call(case.answer or ""),)


def _specs(policy: Policy) -> dict[str, tuple[JudgeOptions, ...]]:
    """The judges of each stage that can judge a text which is handed in. Each is asked, whoever is sure."""
    rails: dict[str, tuple[JudgeOptions, ...]] = {stage: rail.judges for stage, rail in policy.rails.items()}
    answer = tuple(judge for judge in policy.judges if not judge.own_answers_only)
    specs = {**rails, "answer": (*answer, *policy.rails.output.judges)}
    return {stage: tuple(one.always_asked() for one in judges) for stage, judges in specs.items()}


def _report(console: Console, policy: Policy, cases: Sequence[Case], judgements: Sequence[Judgement]) -> bool:
    rules = {stage: {judge.name: judge.rule for judge in specs} for stage, specs in _specs(policy).items()}
    ruled = policy.rails.tool_call.compiled()
    failed = 0
    for index, (case, judgement) in enumerate(zip(cases, judgements, strict=True)):
        wrong = list(failures(case, judgement, rules[case.stage], ruled))
        failed += bool(wrong)
        title = case.name or f"case {index + 1}"
        style = "red" if wrong else "green"
        console.print(f"{'FAILED' if wrong else 'passed'}  {title}", style=style, soft_wrap=True)
        for text in wrong:
            console.print(f"        {text}", soft_wrap=True)
    console.print(f"{len(cases) - failed} passed, {failed} failed")
    return not failed
