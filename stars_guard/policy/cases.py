"""Unit tests of a policy: texts and tool calls, and what its judges and rules should say of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from stars_guard.core.judging import Judgement, Rule, Score
from stars_guard.core.messages import ToolCall
from stars_guard.core.tool_call_events import Ruled
from stars_guard.core.tools import Tool
from stars_guard.core.vocabulary import Rail, RuleAction
from stars_guard.errors import PolicyError
from stars_guard.policy._problems import plain_problems
from stars_guard.policy.tree import plain, read_tree
from stars_guard.rules import OriginName, OriginOf, PastCall, RuleDecision, RuleSet, RunState, Step
from stars_guard.rules.origin import Origins

__all__ = ["Case", "CaseCall", "Situation", "failures", "load_call", "load_cases"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Range(_Strict):
    """Bounds of a score, both exclusive."""

    above: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.above is None and self.below is None:
            raise ValueError("give above, below, or both")
        return self

    def problem(self, value: float) -> str | None:
        """Why the value is outside, or None."""
        if self.above is not None and value <= self.above:
            return f"{value:.3g} is not above {self.above}"
        if self.below is not None and value >= self.below:
            return f"{value:.3g} is not below {self.below}"
        return None


class Call(_Strict):
    """A tool call."""

    name: str = Field(min_length=1)
    args: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def tool_call(self) -> ToolCall:
        """The call as rules and judges see it."""
        return ToolCall(id="", name=self.name, arguments=self.args)


class _Past(_Strict):
    tool: str
    args: dict[str, JsonValue] = Field(default_factory=dict)
    result: str | None = None
    rejected: bool = False


class _Run(_Strict):
    """A run so far. The fields are those of `stars_guard.rules.RunState`."""

    calls: tuple[_Past, ...] = ()
    tokens: int = Field(0, ge=0)
    seconds: float = Field(0, ge=0)
    user: tuple[str, ...] = ()
    system: tuple[str, ...] = ()


class Situation(_Strict):
    """What rules see besides the call.

    Attributes:
        context: what the app would say about the run.
        origins: where the values of arguments came from, by the argument's name; others are looked for in ``run``.
        parameters: the JSON schema of the tool's arguments.
    """

    run: _Run = _Run()
    context: dict[str, JsonValue] = Field(default_factory=dict)
    origins: dict[str, OriginName] = Field(default_factory=dict)
    parameters: dict[str, JsonValue] | None = None

    def steps(self, rules: RuleSet, call: Call) -> list[Step]:
        """What each rule and budget says about a call."""
        return rules.explain(call.tool_call, **self._seen(rules, call))

    def decision(self, rules: RuleSet, call: Call) -> RuleDecision:
        """What happens to a call, as far as the rules are concerned."""
        return rules.decide(call.tool_call, **self._seen(rules, call))

    def _seen(self, rules: RuleSet, call: Call) -> dict[str, Any]:
        known = self.parameters
        tool = Tool(name=call.name, description="", parameters=known) if known is not None else None
        run = self._state
        origin = self._origin_of(rules.origins(run, call.tool_call, tool), call)
        return {"run": run, "origin": origin, "context": self.context, "tool": tool}

    @property
    def _state(self) -> RunState:
        run = self.run
        calls = tuple(PastCall(**dict(call)) for call in run.calls)
        return RunState(calls=calls, tokens=run.tokens, seconds=run.seconds, user=run.user, system=run.system)

    def _origin_of(self, origins: Origins, call: Call) -> OriginOf:
        """As the case says, and for what it doesn't name, as a guard finds out."""
        known = [(call.args[name], origin) for name, origin in self.origins.items() if name in call.args]

        def origin(value: object) -> str:
            said = next((found for given, found in known if given == value), None)
            return said if said is not None else origins.of(value).word

        return origin


class CaseCall(Call, Situation):
    """A call with its run so far, in a file of its own."""


Expected = Literal["vetoes", "asks", "allows"] | Range


class Case(Situation):
    """One text or tool call, and what should be said of it.

    Attributes:
        stage: whose judges are asked: those of answers, or those of a rail.
        call: a tool's name and arguments, instead of ``answer`` at the stage ``tool_call``.
        expect: whether any judge of the policy should veto the answer, or ask for a person's word about it.
        reward: bounds of the policy's reward.
        judges: by name: ``vetoes``, ``asks``, ``allows`` or bounds of the score.
        action: what should happen to the call, by rules and judges together.
        rule: the rule or budget that should decide about the call.
    """

    name: str = ""
    stage: Rail = "answer"
    prompt: str = ""
    answer: str | None = None
    call: Call | None = None
    expect: Literal["vetoed", "asked", "allowed"] | None = None
    reward: Range | None = None
    judges: dict[str, Expected] = Field(default_factory=dict)
    action: RuleAction | None = None
    rule: str | None = None

    @model_validator(mode="after")
    def _has_one_text(self) -> Self:
        if (self.answer is None) == (self.call is None) or (self.call is not None and self.stage != "tool_call"):
            raise ValueError("give answer; or call, with stage: tool_call")
        if self.stage == "answer" and not self.prompt:
            raise ValueError("an answer needs a prompt")
        return self

    @model_validator(mode="after")
    def _has_a_call(self) -> Self:
        about = [
            name
            for name in ("run", "context", "origins", "parameters", "action", "rule")
            if name in self.model_fields_set
        ]
        if about and self.call is None:
            raise ValueError(f"{about[0]} is about a call: give call")
        return self

    @model_validator(mode="after")
    def _expects_something(self) -> Self:
        if not self.judges and all(each is None for each in (self.expect, self.reward, self.action, self.rule)):
            raise ValueError(
                "give expect, reward or judges, or action or rule: a case that expects nothing cannot fail"
            )
        return self


class _File(_Strict):
    cases: Annotated[tuple[Case, ...], Field(min_length=1)]


def load_cases(path: Path) -> tuple[Case, ...]:
    """Read ``cases:`` of a YAML file.

    Raises:
        PolicyError: it is not such a file; the message lists every problem.
    """
    tree = read_tree(path)
    try:
        return _File.model_validate(plain(tree)).cases
    except ValidationError as exc:
        raise PolicyError("\n".join(plain_problems(tree, exc))) from exc


def load_call(path: Path) -> CaseCall:
    """Read a call with its run so far, from YAML or JSON.

    Raises:
        PolicyError: it is not such a file; the message lists every problem.
    """
    tree = read_tree(path)
    try:
        return CaseCall.model_validate(plain(tree))
    except ValidationError as exc:
        raise PolicyError("\n".join(plain_problems(tree, exc))) from None


def failures(
    case: Case, judgement: Judgement, rules: Mapping[str, Rule], ruled: RuleSet | None = None
) -> Iterator[str]:
    """What is not as the case expects.

    Args:
        judgement: of all judges, each asked.
        rules: of the policy's judges by name.
        ruled: the policy's rules about tool calls.
    """
    if case.call is not None and ruled is not None:
        yield from _ruled(case, case.decision(ruled, case.call), judgement)
    said = "vetoed" if judgement.veto else "asked" if judgement.ask else "allowed"
    if case.expect not in (None, said):
        yield f"expected {case.expect}, but {judgement.veto or judgement.ask or 'no judge vetoes'}"
    if case.reward is not None:
        problem = "no judge gives one" if judgement.reward is None else case.reward.problem(judgement.reward)
        if problem:
            yield f"reward: {problem}"
    scores = {score.judge: score for score in judgement.scores}
    for name, expected in case.judges.items():
        if name not in rules:
            yield f"{name}: the policy has no such judge; it has {', '.join(rules) or 'none'}"
        elif problem := _said(expected, scores[name], rules[name]):
            yield f"{name}: {problem}"


def _ruled(case: Case, decision: RuleDecision, judgement: Judgement) -> Iterator[str]:
    ruled = Ruled(action=decision.action, rule=decision.rule, because=decision.because, failed=decision.failed)
    action, why = Ruled.together(ruled, judgement), decision.reason
    if action != decision.action:
        why = f"vetoed by {judgement.veto}" if action == "reject" else f"{judgement.ask} asks"
    if case.action is not None and action != case.action:
        yield f"expected {case.action}, but {action}: {why}"
    if case.rule is not None and decision.rule != case.rule:
        yield f"expected rule {case.rule!r} to decide, but {decision.reason} does"


_SAID: Mapping[RuleAction, str] = {"reject": "vetoes", "ask": "asks", "allow": "allows"}


def _said(expected: Expected, score: Score, rule: Rule) -> str | None:
    if score.value is None:
        return f"the judge failed: {score.error}"
    if isinstance(expected, Range):
        return expected.problem(score.value)
    said = _SAID[rule.action(score.value)]
    return None if said == expected else f"{said} at {score.value:.3g}"
