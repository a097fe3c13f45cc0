"""Threshold schedules: how the reward that a candidate should reach changes along the answer.

To add a schedule, write its function and enter it in `SCHEDULES`. Policy, schema and record take the names from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["SCHEDULES", "Numbers", "Progress", "Schedule", "Threshold", "constant", "learned", "linear"]


class Threshold(BaseModel):
    """A step of the schedule ``learned``: base + carry * (reward of the answer before the segment)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    tokens: int = Field(ge=1, description="the longest answer, segment included, that this step is for")
    base: float = Field(description="in units of the reward")
    carry: float = Field(1.0, description="how much of the prefix's reward a segment is expected to keep")


class Numbers(Protocol):
    """What a schedule reads of `stars_guard.decoding.settings.Settings`."""

    @property
    def max_tokens(self) -> int:
        """T."""

    @property
    def alpha(self) -> float:
        """Where the threshold starts between r(x, "") and r*."""

    @property
    def r_star(self) -> float:
        """r*, the reward that an answer should reach."""

    @property
    def thresholds(self) -> Sequence[Threshold]:
        """By growing tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where the answer is when a candidate is decided on.

    Attributes:
        tokens: n, tokens of the answer with the candidate included.
        prompt_reward: r(x, ""); None when it is not known.
        prefix_reward: r(x, y) of the answer before the candidate, which is the prompt's at first; None when it is not
            known.
    """

    tokens: int
    prompt_reward: float | None
    prefix_reward: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One schedule.

    Attributes:
        threshold: gives tau(n).
        needs_prompt_reward: whether the threshold depends on r(x, ""), which is then asked for before the answer.
        problem: says what the settings lack for this schedule, or None.
    """

    threshold: Callable[[Numbers, Progress], float]
    needs_prompt_reward: bool = True
    problem: Callable[[Numbers], str | None] = lambda numbers: None


def linear(numbers: Numbers, at: Progress) -> float:
    """The CARDS-style schedule: r0 = (1 - alpha) r(x, "") + alpha r*, tau(n) = min(r*, r0 + n (r* - r0) / T)
    (arXiv 2406.16306, section 4, as in its code). Without r(x, "") it is r*, the strictest."""
    if at.prompt_reward is None:
        return numbers.r_star
    r0 = (1.0 - numbers.alpha) * at.prompt_reward + numbers.alpha * numbers.r_star
    return min(numbers.r_star, r0 + at.tokens * (numbers.r_star - r0) / numbers.max_tokens)


def constant(numbers: Numbers, at: Progress) -> float:
    """r* everywhere."""
    return numbers.r_star


def learned(numbers: Numbers, at: Progress) -> float:
    """tau(n) = min(r*, base + carry r(x, y)) of the first step that reaches n tokens, or else of the last. Without
    r(x, y) it is r*."""
    if at.prefix_reward is None:
        return numbers.r_star
    steps = numbers.thresholds
    step = next((step for step in steps if step.tokens >= at.tokens), steps[-1])
    return min(numbers.r_star, step.base + step.carry * at.prefix_reward)


def _thresholds_missing(numbers: Numbers) -> str | None:
    if numbers.thresholds:
        return None
    return "schedule learned needs thresholds: `stars-guard calibrate --schedule learned` finds them"


SCHEDULES: dict[str, Schedule] = {
    "linear": Schedule(threshold=linear),
    "constant": Schedule(threshold=constant, needs_prompt_reward=False),
    "learned": Schedule(threshold=learned, problem=_thresholds_missing),
}
