"""Threshold schedules: how the reward that a candidate should reach changes along the answer.

To add a schedule, derive a class from `Schedule` and name it in the entry points ``stars_guard.schedules`` of its
package. Ours are named in the same way. Policy, schema and record take the names from there.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

from pydantic import BaseModel, ConfigDict, Field

from stars_guard.decoding.parts import PartOptions, Parts, is_abstract

__all__ = [
    "SCHEDULES",
    "Constant",
    "Learned",
    "Linear",
    "Numbers",
    "Progress",
    "Schedule",
    "Threshold",
    "schedule_of",
]


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


class Schedule(PartOptions):
    """A schedule with its options, which are its fields.

    Attributes:
        needs_prompt_reward: whether the threshold depends on r(x, ""), which is then asked for before the answer.
    """

    needs_prompt_reward: ClassVar[bool] = True

    @abstractmethod
    def threshold(self, numbers: Numbers, at: Progress) -> float:
        """tau(n), a finite number in the reward model's own unit. The same arguments must always give the same
        threshold, because the audit redoes it. A reward in ``at`` that is None wants the strictest threshold."""

    def problem(self, numbers: Numbers) -> str | None:
        """What the policy's other numbers lack for this schedule, or None."""
        return None


class Linear(Schedule):
    """The CARDS-style schedule: r0 = (1 - alpha) r(x, "") + alpha r*, tau(n) = min(r*, r0 + n (r* - r0) / T)
    (arXiv 2406.16306, section 4, as in its code). Without r(x, "") it is r*, the strictest."""

    def threshold(self, numbers: Numbers, at: Progress) -> float:
        if at.prompt_reward is None:
            return numbers.r_star
        r0 = (1.0 - numbers.alpha) * at.prompt_reward + numbers.alpha * numbers.r_star
        return min(numbers.r_star, r0 + at.tokens * (numbers.r_star - r0) / numbers.max_tokens)


class Constant(Schedule):
    """r* everywhere."""

    needs_prompt_reward: ClassVar[bool] = False

    def threshold(self, numbers: Numbers, at: Progress) -> float:
        return numbers.r_star


class Learned(Schedule):
    """tau(n) = min(r*, base + carry r(x, y)) of the first step that reaches n tokens, or else of the last. Without
    r(x, y) it is r*."""

    def threshold(self, numbers: Numbers, at: Progress) -> float:
        if at.prefix_reward is None:
            return numbers.r_star
        steps = numbers.thresholds
        step = next((step for step in steps if step.tokens >= at.tokens), steps[-1])
        return min(numbers.r_star, step.base + step.carry * at.prefix_reward)

    def problem(self, numbers: Numbers) -> str | None:
        if numbers.thresholds:
            return None
        return "schedule learned needs thresholds: `stars-guard calibrate --schedule learned` finds them"


def _problem(part: Any) -> str | None:
    if not (isinstance(part, type) and issubclass(part, Schedule)):
        return "it is not a subclass of stars_guard.decoding.Schedule"
    return "it has no method threshold" if is_abstract(part) else None


SCHEDULES: Parts[type[Schedule]] = Parts("schedule", _problem)
"""Every schedule that is installed."""


def schedule_of(said: str | PartOptions) -> Schedule:
    """The schedule that a policy names. Raises what `Parts.get` does."""
    return cast("Schedule", SCHEDULES.made(said))
