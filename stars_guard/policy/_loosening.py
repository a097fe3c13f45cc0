"""What a child policy lets through that its parent does not, field by field.

Every field of the policy has a rule here. A field without a rule counts as loosened by any change, so that what is
added to the policy later is closed until somebody thinks about it; a test lists the fields that have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from pydantic import BaseModel

from stars_guard.decoding import Decoding, PartOptions, UpTo, decoder_of, name_of
from stars_guard.policy._approval import Approval
from stars_guard.policy._model import Audit, AuditContent, Policy, Refusal, SamplingSpec
from stars_guard.policy._rails import Rail, ToolCallRail, ToolResultRail
from stars_guard.policy._rule_loosening import looser_budget, looser_rule, lowers_cost, replaces_variable
from stars_guard.scorers.options import JudgeOptions, Loosening

__all__ = ["JUDGE_RULES", "NAMED", "RULES", "Change", "changes", "judge_key"]

NAMED = ("judges", "rules", "budgets")
"""The lists of a policy and its rails whose items are merged and compared by their ``name``."""

Loc = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that a child lets through.

    Attributes:
        judge: the `judge_key` of the judge, rule or budget that it belongs to; None for the top level.
        loc: its path in the child.
        was: its path in the parent.
        text: in a few words. It may hold values of both.
    """

    judge: str | None
    loc: Loc
    was: Loc
    text: str

    @property
    def kind(self) -> str:
        """What it belongs to: a judge, a rule or a budget."""
        lists = [part for part in self.was if part in NAMED]
        return str(lists[0]).removesuffix("s") if lists else "policy"


@dataclass(frozen=True, slots=True)
class _Sides:
    """Both policies, or both judges, as a rule sees them: many values matter only next to another."""

    before: Policy
    after: Policy

    @property
    def rewards(self) -> bool:
        """Whether the parent has a reward, which a child could make void."""
        return any(judge.weight is not None for judge in self.before.judges)

    @property
    def takes_the_best(self) -> bool:
        """Whether a child's answer may hold what no threshold accepted."""
        return self.after.decoding.on_exhausted == "best"


Rule = Callable[[Any, Any, _Sides], bool]
"""Whether a changed value lets more through: the parent's, the child's, and both policies."""


def _free(old: Any, new: Any, sides: _Sides) -> bool:
    return False


def _fixed(old: Any, new: Any, sides: _Sides) -> bool:
    return True


def _ordered(*words: object) -> Rule:
    """Words from the loosest to the strictest."""
    return lambda old, new, sides: words.index(new) < words.index(old)


def _reward(rule: Callable[[Any, Any, Decoding], bool]) -> Rule:
    """A number that counts only where the parent has a reward; the rule also sees the child's other numbers."""
    return lambda old, new, sides: sides.rewards and rule(old, new, sides.after.decoding)


OWN = frozenset({"linear", "constant", "learned", "gibbs", "hard"})
"""The schedules and acceptance rules of which we know what a number makes of them. Those of other packages may ask for
less where ours ask for more."""


def _is_own(decoding: Decoding) -> bool:
    return {name_of(decoding.schedule), name_of(decoding.acceptance)} <= OWN


def _is_single(attempts: int | Sequence[UpTo]) -> bool:
    """Whether a segment may have one candidate alone."""
    return attempts == 1 if isinstance(attempts, int) else any(step.attempts == 1 for step in attempts)


def _segment_tokens(old: int, new: int, sides: _Sides) -> bool:
    """Longer segments are more text between two that a judge is asked about; shorter ones may be all that it sees."""
    return any((judge.every > 1 if new > old else judge.scope == "segment") for judge in sides.before.judges)


RULES: Mapping[type[BaseModel], Mapping[str, Rule]] = {
    Policy: {
        "api_version": _free,
        "name": _free,
        "description": _free,
        "mode": _ordered("off", "monitor", "enforce"),
        # a shadow decides nothing
        "shadow": _free,
    },
    # what is generated is judged as before
    SamplingSpec: dict.fromkeys(SamplingSpec.model_fields, _free),
    # in which words an answer is refused
    Refusal: {"message": _free, "detect": _free},
    Decoding: {
        "method": lambda old, new, sides: decoder_of(old).decides != "none",
        "segment_tokens": _segment_tokens,
        # a longer answer stretches the linear threshold, and nothing else
        "max_tokens": _reward(lambda old, new, now: not _is_own(now) or (new > old and now.schedule == "linear")),
        # the best of one candidate is any candidate
        "attempts": lambda old, new, sides: sides.rewards and sides.takes_the_best and _is_single(new),
        "alpha": _reward(lambda old, new, now: not _is_own(now) or new < old),
        "beta": _reward(lambda old, new, now: not _is_own(now) or (new > old and now.acceptance != "hard")),
        "r_star": _reward(lambda old, new, now: not _is_own(now) or new < old),
        # of ours, no schedule asks for more than r_star, which is what the constant one asks for
        "schedule": _reward(lambda old, new, now: new != "constant" or name_of(old) not in OWN),
        "thresholds": _reward(lambda old, new, now: not _is_own(now) or now.schedule == "learned"),
        "acceptance": _reward(lambda old, new, now: new != "hard" or name_of(old) not in OWN),
        "parallel": _free,
        "optimistic": _free,
        "budget_tokens": lambda old, new, sides: sides.rewards and sides.takes_the_best and (new or inf) < (old or inf),
        # of all answers only the refusal has nothing of what was generated, and reaches the reader
        "on_exhausted": lambda old, new, sides: new != "refuse",
        "best_at_least": lambda old, new, sides: (
            old is not None and sides.takes_the_best and (new is None or new < old)
        ),
        "rewinds": _free,
        "recovery": _free,
        "hold_tokens": lambda old, new, sides: new < old,
        "entropy_threshold": lambda old, new, sides: decoder_of(sides.after.decoding.method).needs_entropy,
    },
    # of another package, which alone knows what its options let through
    PartOptions: {"type": _fixed},
    Audit: {
        # where the log is decides whether there is one
        "url": _fixed,
        "encrypt": _ordered(False, True),
        "durability": _ordered("batch", "every-call"),
        "on_error": _ordered("drop", "spool", "block"),
    },
    # less text is less to leak, and what was decided stays in the record
    AuditContent: dict.fromkeys(AuditContent.model_fields, _ordered("full", "redacted", "hash", "none")),
    Rail: {},
    ToolCallRail: {
        "default": _ordered("allow", "ask", "reject"),
        "vars": lambda old, new, sides: replaces_variable(old, new),
        "cost": lambda old, new, sides: lowers_cost(old, new),
        "trust": lambda old, new, sides: not {*new} <= {*old},
    },
    Approval: {
        "decisions": lambda old, new, sides: not {*new} <= {*old},
        "within": lambda old, new, sides: new > old,
    },
    ToolResultRail: {"action": _ordered("redact", "replace")},
}
"""By model and field. What holds other models, such as ``decoding`` and ``judges``, is gone into."""

JudgeRule = Callable[[JudgeOptions, JudgeOptions, _Sides], bool]


def _asked_less_often(old: JudgeOptions, new: JudgeOptions, sides: _Sides) -> bool:
    """The child's judge leaves a segment out at which the parent's is asked."""
    return new.every == 0 or (old.every != 0 and old.every % new.every != 0)


def _asked_at_the_end(old: JudgeOptions, new: JudgeOptions, sides: _Sides) -> bool:
    """The parent's judge sees the whole answer at its end, and the child's does not."""
    return old.asked_last and not new.asked_last and not (new.every == 1 and new.tail is None)


def _asked_in_less_doubt(old: JudgeOptions, new: JudgeOptions, sides: _Sides) -> bool:
    """The child's judge leaves a text out about which the parent's is asked, or another reward stands for its own."""
    before, after = old.in_doubt, new.in_doubt
    if before == after:
        return False
    if before is None or after is None or old.weight is not None:
        return after is not None or old.weight is not None
    low, high = ((-inf if ask.above is None else ask.above) for ask in (after, before))
    wider = low <= high
    low, high = ((inf if ask.below is None else ask.below) for ask in (before, after))
    return not (wider and low <= high and after.sample >= before.sample and after.when == before.when)


JUDGE_RULES: Mapping[str, JudgeRule] = {
    "type": lambda old, new, sides: True,
    "name": lambda old, new, sides: False,
    "weight": lambda old, new, sides: old.weight is not None or sides.rewards,
    "reject_above": lambda old, new, sides: (
        old.reject_above is not None and (new.reject_above is None or new.reject_above > old.reject_above)
    ),
    # a veto is no less than a question
    "ask_above": lambda old, new, sides: (
        old.ask_above is not None
        and (new.ask_above is None or new.ask_above > old.ask_above)
        and (new.reject_above is None or new.reject_above > old.ask_above)
    ),
    "on_error": lambda old, new, sides: new.on_error == "ignore",
    # a failure in the meantime counts for nothing
    "timeout": lambda old, new, sides: new.on_error == "ignore" and new.timeout < old.timeout,
    # no view of a text shows all that another does: an insult among many kind words is no insult to a classifier
    "scope": lambda old, new, sides: True,
    "every": _asked_less_often,
    "final": _asked_at_the_end,
    "ask": _asked_in_less_doubt,
}
"""The fields that every judge has. Those of its type are compared by the type itself (see `JudgeOptions`)."""

_TECHNICAL = frozenset({"batch_size", "cache_tokens", "retries", "connections"})
"""Fields that never change a score."""


def judge_key(path: Sequence[object], name: str) -> str:
    """What a judge goes by in the whole policy: ``rails.input.judges.secrets``."""
    return ".".join(map(str, (*path, name)))


def changes(parent: Policy, child: Policy) -> Iterator[Change]:
    """What the child lets through that the parent does not."""
    sides = _Sides(parent, child)
    for loc, text in _of_model(parent, child, (), sides):
        yield Change(None, loc, loc, text)
    yield from _of_judges(("judges",), parent.judges, child.judges, sides)
    theirs = dict(child.rails.items())
    for stage, rail in parent.rails.items():
        yield from _of_judges(("rails", stage, "judges"), rail.judges, theirs[stage].judges, sides)
    yield from _of_rules(parent.rails.tool_call, child.rails.tool_call)


def _of_rules(before: ToolCallRail, after: ToolCallRail) -> Iterator[Change]:
    """Rules and budgets that are gone, what those that are left let through, and new rules that allow more."""
    effective = before.default != "allow"
    for key in ("rules", "budgets"):
        path: Loc = ("rails", "tool_call", key)
        at = {part.name: index for index, part in enumerate(getattr(after, key))}
        known = {part.name: number for number, part in enumerate(getattr(before, key))}
        for name, number in known.items():
            old = getattr(before, key)[number]
            own, was = judge_key(path, name), (*path, number)
            if name not in at:
                if key == "budgets" or old.action != "allow":
                    yield Change(own, path, was, f"{key.removesuffix('s')} {name!r} is not there")
                continue
            new = getattr(after, key)[at[name]]
            found = looser_rule(old, new, effective) if key == "rules" else looser_budget(old, new)
            for field, text in found:
                yield Change(own, (*path, at[name], field), (*was, field), text)
        for name, index in at.items():
            if name not in known and effective and getattr(after, key)[index].action == "allow":
                text = f"it allows what the parent's default {before.default} does not"
                yield Change(judge_key(path, name), (*path, index), path, text)


def _of_model(old: BaseModel, new: BaseModel, loc: Loc, sides: _Sides) -> Iterator[tuple[Loc, str]]:
    """What is looser in a model, and in the models that it holds."""
    rules = RULES.get(type(old), {})
    for field, described in type(old).model_fields.items():
        here = (*loc, described.alias or field)
        before, after = getattr(old, field), getattr(new, field)
        if field in NAMED:
            continue  # compared by name
        if isinstance(old, Audit) and isinstance(new, Audit) and field == "content":
            for (*_, kind), text in _of_model(old.contents, new.contents, (), sides):
                yield here, f"{kind}: {text}"
        elif isinstance(before, BaseModel) and type(before) is type(after):
            yield from _of_model(before, after, here, sides)
        elif before != after and rules.get(field, _fixed)(before, after, sides):
            yield here, f"{_word(before)} -> {_word(after)}"


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _of_judges(
    path: Loc, before: Sequence[JudgeOptions], after: Sequence[JudgeOptions], sides: _Sides
) -> Iterator[Change]:
    """Judges of one list that are gone, what those that are left let through, and new ones that change the reward."""
    at = {judge.name: index for index, judge in enumerate(after)}
    for number, old in enumerate(before):
        key, was = judge_key(path, old.name), (*path, number)
        if old.name not in at:
            yield Change(key, path, was, f"judge {old.name!r} is not there")
            continue
        index = at[old.name]
        for field, text in _of_judge(old, after[index], sides):
            yield Change(key, (*path, index, field), (*was, field), text)
    known = {judge.name for judge in before}
    for name, index in at.items():
        if name not in known and after[index].weight is not None and sides.rewards:
            yield Change(judge_key(path, name), (*path, index, "weight"), path, "another reward than the parent's")


def _of_judge(old: JudgeOptions, new: JudgeOptions, sides: _Sides) -> Iterator[Loosening]:
    """The rules that all judges have are compared here; each type compares its own fields (`JudgeOptions`)."""
    for field in JudgeOptions.model_fields:
        before, after = getattr(old, field), getattr(new, field)
        rule: JudgeRule = JUDGE_RULES.get(field, lambda old, new, sides: True)
        if (before != after or field in ("every", "final")) and rule(old, new, sides):
            yield field, f"{before} -> {after}"
    if type(old) is not type(new):
        return
    # a reward is compared with numbers that were calibrated to it
    free = old.free & _TECHNICAL if old.weight is not None else old.free
    if new.on_error == "ignore":
        free -= _TECHNICAL  # they can make a judge fail, which then counts for nothing
    for field in type(old).model_fields:
        own = field not in JudgeOptions.model_fields or old.redefines(field)
        if own and field not in free and getattr(old, field) != getattr(new, field):
            yield field, "another judge than the parent's"
    yield from old.loosenings(new)
