"""Unit tests of a policy: texts, and what its judges should say of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from stars_guard.core.judging import Judgement, Rule, Score
from stars_guard.core.vocabulary import Stage
from stars_guard.errors import PolicyError
from stars_guard.policy._problems import plain_problems
from stars_guard.policy.tree import plain, read_tree

__all__ = ["Case", "failures", "load_cases"]


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


Expected = Literal["vetoes", "asks", "allows"] | Range


class Case(_Strict):
    """One text and what should be said of it.

    Attributes:
        stage: whose judges are asked: those of answers, or those of a rail.
        call: a tool's name and arguments, instead of ``answer`` at the stage ``tool_call``.
        expect: whether any judge of the policy should veto the answer, or ask for a person's word about it.
        reward: bounds of the policy's reward.
        judges: by name: ``vetoes``, ``asks``, ``allows`` or bounds of the score.
    """

    name: str = ""
    stage: Literal["answer"] | Stage = "answer"
    prompt: str = ""
    answer: str | None = None
    call: Call | None = None
    expect: Literal["vetoed", "asked", "allowed"] | None = None
    reward: Range | None = None
    judges: dict[str, Expected] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_one_text(self) -> Self:
        if (self.answer is None) == (self.call is None) or (self.call is not None and self.stage != "tool_call"):
            raise ValueError("give answer; or call, with stage: tool_call")
        if self.stage == "answer" and not self.prompt:
            raise ValueError("an answer needs a prompt")
        return self

    @model_validator(mode="after")
    def _expects_something(self) -> Self:
        if self.expect is None and self.reward is None and not self.judges:
            raise ValueError("give expect, reward or judges: a case that expects nothing cannot fail")
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


def failures(case: Case, judgement: Judgement, rules: Mapping[str, Rule]) -> Iterator[str]:
    """What is not as the case expects.

    Args:
        judgement: of all judges, each asked.
        rules: of the policy's judges by name.
    """
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


def _said(expected: Expected, score: Score, rule: Rule) -> str | None:
    if score.value is None:
        return f"the judge failed: {score.error}"
    if isinstance(expected, Range):
        return expected.problem(score.value)
    said = "allows"
    if rule.reject_above is not None and score.value > rule.reject_above:
        said = "vetoes"
    elif rule.ask_above is not None and score.value > rule.ask_above:
        said = "asks"
    return None if said == expected else f"{said} at {score.value:.3g}"
