"""The threshold schedule and the acceptance rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stars_guard.core.vocabulary import Acceptance

__all__ = ["Step", "acceptance_probability", "learned", "linear"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The learned threshold of one position: base + carry * r(x, y), y being the answer before the segment.

    Attributes:
        tokens: the longest answer, segment included, that it is for.
        base: in units of the reward.
        carry: how much of the prefix's reward a segment is expected to keep.
    """

    tokens: int
    base: float
    carry: float


def learned(steps: Sequence[Step], *, tokens: int, prefix_reward: float | None, r_star: float) -> float:
    """tau(n) = min(r*, base + carry r(x, y)) of the first step that reaches n tokens, or else of the last.

    Args:
        tokens: n, response tokens with the candidate included.
        prefix_reward: r(x, y) of the answer before the candidate; None when it is not known, which gives r*.
    """
    if prefix_reward is None:
        return r_star
    step = next((step for step in steps if step.tokens >= tokens), steps[-1])
    return min(r_star, step.base + step.carry * prefix_reward)


def linear(*, tokens: int, max_tokens: int, prompt_reward: float | None, alpha: float, r_star: float) -> float:
    """tau(n), the reward that a response of n tokens should have, in the CARDS-style schedule.

    r0 = (1 - alpha) r(x, "") + alpha r*, tau(n) = min(r*, r0 + n (r* - r0) / T) (arXiv 2406.16306, section 4, as in
    its code).

    Args:
        tokens: n, response tokens with the candidate included.
        max_tokens: T.
        prompt_reward: r(x, ""); None when it is not known, which gives r*, the strictest.
    """
    if prompt_reward is None:
        return r_star
    r0 = (1.0 - alpha) * prompt_reward + alpha * r_star
    return min(r_star, r0 + tokens * (r_star - r0) / max_tokens)


def acceptance_probability(rule: Acceptance, *, reward: float, tau: float, beta: float) -> float:
    """The chance that an unvetoed candidate is accepted.

    ``gibbs``: min(1, exp((r - tau) / beta)) (arXiv 2511.03827, the acceptance step). ``hard``: 1 if r >= tau, else 0.
    """
    if reward >= tau:
        return 1.0
    if rule == "hard":
        return 0.0
    return math.exp((reward - tau) / beta)
