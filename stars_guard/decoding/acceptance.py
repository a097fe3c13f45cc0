"""The threshold schedule and the acceptance rule."""

from __future__ import annotations

import math
from typing import Literal

__all__ = ["Acceptance", "Schedule", "acceptance_probability", "threshold"]

Schedule = Literal["linear", "constant"]
Acceptance = Literal["gibbs", "hard"]


def threshold(
    schedule: Schedule, *, tokens: int, max_tokens: int, prompt_reward: float | None, alpha: float, r_star: float
) -> float:
    """tau(n), the reward that a response of n tokens should have.

    ``linear`` is the CARDS-style schedule (arXiv 2406.16306, section 4, as in its code):
    r0 = (1 - alpha) r(x, "") + alpha r*, tau(n) = min(r*, r0 + n (r* - r0) / T). ``constant`` is r*.

    Args:
        tokens: n, response tokens with the candidate included.
        max_tokens: T.
        prompt_reward: r(x, ""); None when it is not known, which gives r*, the strictest.
    """
    if schedule == "constant" or prompt_reward is None:
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
