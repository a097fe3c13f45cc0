"""Whether counts fit a distribution that is known in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from scipy.stats import binom

__all__ = ["FALSE_ALARM", "chance"]

T = TypeVar("T")

FALSE_ALARM = 1e-7
"""How likely a test of random numbers may fail although nothing is wrong. There are fewer than ten such tests, so a run
stays under one in a million. Tests with fixed seeds don't need it, because they give the same in each run."""


def chance(law: Mapping[T, float], seen: Mapping[T, int]) -> float:
    """How likely some outcome is seen at least this much too often or too seldom, if ``law`` is right.

    What ``law`` doesn't name is one more outcome, with the probability that ``law`` leaves. Each count is compared with
    its binomial distribution and the smallest chance is multiplied by how many there are. So the result is an upper
    bound for counts of any size, where a chi-squared test would be wrong about rare outcomes.
    """
    n = sum(seen.values())
    left = max(0.0, 1 - sum(law.values()))
    cells = [*((p, seen.get(outcome, 0)) for outcome, p in law.items())]
    cells.append((left if left > 1e-9 else 0.0, n - sum(count for _, count in cells)))
    tails = (min(binom.cdf(count, n, p), binom.sf(count - 1, n, p)) for p, count in cells)
    return float(min(1.0, 2 * len(cells) * min(tails)))
