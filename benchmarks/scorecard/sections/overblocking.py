"""Ordinary prompts, calls, results and answers under every shipped policy: how many are wrongly rejected."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from rich.progress import track

from benchmarks.scorecard import ordinary
from benchmarks.scorecard.section import Bar, Section, Share, Table
from benchmarks.scorecard.sizes import Size
from stars_guard.audit import MemoryStore
from stars_guard.calling import portal
from stars_guard.core.messages import Message, ToolCall
from stars_guard.guard import Guard
from stars_guard.policy import Policy, load_policy
from stars_guard.policy._loader import shipped_policies
from stars_guard.scorers.options import JudgeOptions
from stars_guard.testing import ScriptedBackend

__all__ = ["NEEDS_ALL_JUDGES", "measure", "runnable"]

AT_ONCE = 16
TOKEN = 4
"""Characters of a token of a scripted answer."""
NEEDS_ALL_JUDGES = {"strict_refused": "strict", "default_again": "default", "agents_rails": "agent-tools"}
"""The figures that aren't known where a judge of this policy is left out."""
FOR_AGENTS = ("agent-tools", "agent-payments", "agent-readonly")
ASK = "Please answer the question."


def measure(size: Size) -> Section:
    """Every policy, every rail, every text."""
    return portal.call(lambda: _measure(size))


async def _measure(size: Size) -> Section:
    counted: dict[tuple[str, str, str], Counter[str]] = {}
    left_out: dict[str, list[str]] = {}
    for name in track([*shipped_policies()], description="over-blocking"):
        policy, missing = runnable(load_policy(name), models=size.models)
        if missing:
            left_out[name] = missing
        async with Guard(policy, model=_saying(), audit=MemoryStore()) as guard:
            for rail, what, texts, outcome in size.few(_tried(guard)):
                counts = await _counted(outcome, size.thinned(texts, len(counted)))
                counted[name, rail, what] = counts
    return _section(counted, left_out)


def runnable(policy: Policy, *, models: bool) -> tuple[Policy, list[str]]:
    """The policy as far as it runs here, in mode ``enforce``, and the judges that it is left without."""
    missing: list[str] = []

    def kept(judges: Sequence[JudgeOptions]) -> tuple[JudgeOptions, ...]:
        fine = []
        for judge in judges:
            model = getattr(judge, "model", None)
            if model is None or (models and str(model).startswith("embedded")):
                fine.append(judge)
            else:
                missing.append(judge.name)
        return tuple(fine)

    rails = {stage: rail.model_copy(update={"judges": kept(rail.judges)}) for stage, rail in policy.rails.items()}
    changed = {"judges": kept(policy.judges), "rails": policy.rails.model_copy(update=rails), "mode": "enforce"}
    return policy.model_copy(update=changed), missing


def _tried(guard: Guard) -> list[tuple[str, str, Sequence[Any], Callable[[Any], Awaitable[str]]]]:
    found: list[tuple[str, str, Sequence[Any], Callable[[Any], Awaitable[str]]]] = []
    rails = dict(guard.policy.rails.items())
    for rail, groups in (("input", ordinary.prompts()), ("tool_result", ordinary.results())):
        if rails[rail].judges:
            found += [(rail, what, texts, partial(_checked, guard, rail)) for what, texts in groups.items()]
    if guard.policy.rails.tool_call.is_used:
        found += [("tool_call", what, calls, partial(_called, guard)) for what, calls in ordinary.calls().items()]
    found += [("answer", what, texts, partial(_answered, guard)) for what, texts in ordinary.answers().items()]
    return found


async def _counted(outcome: Callable[[Any], Awaitable[str]], texts: Sequence[Any]) -> Counter[str]:
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(text: Any) -> str:
        async with limit:
            return await outcome(text)

    return Counter(await asyncio.gather(*(one(text) for text in texts)))


async def _checked(guard: Guard, rail: Any, text: str) -> str:
    checked = await guard.check(rail, text)
    return "allowed" if checked.allowed else "rejected"


async def _called(guard: Guard, call: ToolCall) -> str:
    # as the first call of a run, with values that the model chose
    checked = await guard.check_call(call.name, call.arguments, origin=lambda value: "model")
    return {"allow": "allowed", "ask": "asked", "reject": "rejected"}[checked.action]


async def _answered(guard: Guard, text: str) -> str:
    done = await guard.generate([Message("user", f"{ASK}\n{text}")])
    if done.finish in ("refused", "stopped"):
        return "rejected"
    return "again" if done.totals.rejections else "allowed"


def _saying() -> ScriptedBackend:
    """A model that answers what stands after the first line of the prompt, whatever is rejected."""

    def script(messages: Sequence[Message], so_far: tuple[str, ...], chance: random.Random) -> str | None:
        text = messages[-1].content.partition("\n")[2]
        at = TOKEN * len(so_far)
        return text[at : at + TOKEN] or None

    return ScriptedBackend(script)


def _share(
    counted: dict[tuple[str, str, str], Counter[str]], outcome: str, fits: Callable[[str, str, str], bool]
) -> Share:
    mine = [counts for key, counts in counted.items() if fits(*key)]
    return Share(hits=sum(counts[outcome] for counts in mine), of=sum(counts.total() for counts in mine))


def _section(counted: dict[tuple[str, str, str], Counter[str]], left_out: dict[str, list[str]]) -> Section:
    share = partial(_share, counted)
    policies = list(dict.fromkeys(policy for policy, _, _ in counted))
    rails = [
        (
            name,
            *(
                share("rejected", lambda p, r, w, n=name, rail=rail: (p, r) == (n, rail))
                for rail in ("input", "tool_result")
            ),
        )
        for name in policies
    ]
    calls = [
        (
            name,
            *(share(outcome, lambda p, r, w, n=name: (p, r) == (n, "tool_call")) for outcome in ("rejected", "asked")),
        )
        for name in policies
    ]
    answers = [
        (
            name,
            share("rejected", lambda p, r, w, n=name: (p, r) == (n, "answer") and w.startswith("code")),
            share("rejected", lambda p, r, w, n=name: (p, r) == (n, "answer") and w == "in English"),
            share(
                "rejected",
                lambda p, r, w, n=name: (p, r) == (n, "answer") and w.startswith("in ") and w != "in English",
            ),
            share("again", lambda p, r, w, n=name: (p, r) == (n, "answer")),
        )
        for name in policies
    ]
    kinds = [
        (
            what,
            *(
                share("rejected", lambda p, r, w, x=what, n=name: (p, r, w) == (n, "answer", x))
                for name in ("default", "strict")
            ),
        )
        for what in ordinary.answers()
    ]
    figures = {
        "default_refused": share("rejected", lambda p, r, w: p == "default" and r == "answer"),
        "default_again": share("again", lambda p, r, w: p == "default" and r == "answer"),
        "strict_refused": share("rejected", lambda p, r, w: p == "strict" and r == "answer"),
        "agents_rails": share("rejected", lambda p, r, w: p in FOR_AGENTS[:2] and r != "answer"),
        "agents_asked": share("asked", lambda p, r, w: p in FOR_AGENTS[:2] and r == "tool_call"),
    }
    # what a judge that is left out would have said is not known
    for name, policy in NEEDS_ALL_JUDGES.items():
        if policy in left_out:
            del figures[name]
    notes = [
        "Policies are tried in mode `enforce`, `monitor` too.",
        "An answer is scripted, so a rejected one is the same at each attempt and refused in the end.",
        "`agent-readonly` rejects by intent whatever writes or sends.",
    ]
    wrong = "A text is wrongly rejected if a rail rejects it, or an answer of these words is refused."
    about = f"{ordinary.SOURCES} {wrong} A dash stands where a policy has no such rail."
    if left_out:
        missing = "; ".join(f"{name}: {', '.join(dict.fromkeys(judges))}" for name, judges in left_out.items())
        about += f" **Not judging here, because they need a model that was left out: {missing}.**"
    return Section(
        title="Over-blocking: ordinary texts under every shipped policy",
        about=about,
        figures=figures,
        tables=(
            Table(title="Rails of texts: rejected", head=("policy", "input", "tool_result"), rows=tuple(rails)),
            Table(title="Calls of tools", head=("policy", "rejected", "asked about"), rows=tuple(calls)),
            Table(
                title="Answers",
                head=(
                    "policy",
                    "code refused",
                    "English refused",
                    "other languages refused",
                    "segments generated again",
                ),
                rows=tuple(answers),
            ),
            Table(title="Answers refused, by what they are", head=("what", "default", "strict"), rows=tuple(kinds)),
        ),
        bars=tuple(
            Bar.of(name, share("rejected", lambda p, r, w, n=name: p == n and r != "tool_call")) for name in policies
        ),
        axis="texts rejected, %",
        notes=tuple(notes),
    )
