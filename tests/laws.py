"""Whether counts fit a distribution that is known in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from scipy.stats import chi2

__all__ = ["FALSE_ALARM", "chance"]

T = TypeVar("T")

FALSE_ALARM = 1e-7
"""How likely a test of random draws may fail although nothing is wrong. All such tests of a run together stay under one
in a million. Tests whose draws follow from fixed seeds don't need it, because they give the same in each run."""


def chance(law: Mapping[T, float], seen: Mapping[T, int]) -> float:
    """How likely counts lie at least this far from a distribution that they come from (Pearson's chi-squared test).

    What ``law`` doesn't name is one more outcome, with the probability that ``law`` leaves. Outcomes that are expected
    fewer than five times are counted as one.
    """
    n = sum(seen.values())
    cells = [(n * p, seen.get(outcome, 0)) for outcome, p in law.items()]
    cells.append((n * max(0.0, 1 - sum(law.values())), n - sum(count for _, count in cells)))
    rare = [cell for cell in cells if cell[0] < 5]
    cells = [cell for cell in cells if cell[0] >= 5]
    expected, counted = (sum(column) for column in zip(*rare, strict=True)) if rare else (0.0, 0)
    # too few even together: they would say more than they know
    if expected >= 1:
        cells.append((expected, counted))
    elif counted > 10:
        return 0.0
    return float(chi2.sf(sum((count - due) ** 2 / due for due, count in cells), df=len(cells) - 1))
