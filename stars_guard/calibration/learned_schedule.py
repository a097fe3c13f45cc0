"""Thresholds learned from judged answers, by segment: generate again for as long as it is expected to pay.

Given the reward r(x, y) of the answer so far, the reward after the k-th segment is taken to be normal around
a_k + b_k r(x, y) with deviation s_k, and the whole answer's reward to grow by c_k for each unit of it; all four come
from regressions over the answers. Generating a segment of m tokens until its reward passes tau is then a search with
recall and a price (Weitzman, Optimal Search for the Best Alternative, Econometrica 47, 1979). For a price of lambda a
token, the best threshold is the one where what one more candidate is expected to add is worth what it costs,

    tau_k = a_k + b_k r(x, y) + z_k s_k,    c_k s_k h(z_k) = lambda m_k,    h(z) = phi(z) - z (1 - Phi(z)).

So tokens go where a segment's reward varies and where it predicts the whole answer's. No prompt is too hard to meet its
threshold, or too easy to have one.

A guard keeps other prefixes than the model alone has, and what is learned from the ones may be off at the others. So
the numbers that unguarded answers give are for a first round, and the answers of that round give those that are used.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

from stars_guard.calibration.thresholds import SHARPNESS, Answer, fit, mean_acceptance, solve
from stars_guard.decoding import PartOptions, Settings, Threshold

__all__ = ["learn", "propose"]

FEWEST = 8
"""Answers that regressions of a segment need. A segment with fewer takes the numbers of the one before."""

FARTHEST = 6.0
"""|z| is no larger."""

NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class _SegmentFit:
    """What the regressions say of the k-th segment.

    Attributes:
        tokens: the longest answer, this segment included.
        m: the segment's mean length in tokens.
        a, b, s, c: as the module's docstring has them.
    """

    tokens: int
    m: float
    a: float
    b: float
    s: float
    c: float

    def step(self, price: float) -> Threshold:
        gain = self.c * self.s
        z = _reserve(price * self.m / gain) if gain > 0 else -FARTHEST
        return Threshold(tokens=self.tokens, base=self.a + z * self.s, carry=self.b)


def learn(answers: Sequence[Answer], settings: Settings, acceptance: float) -> Settings:
    """The settings with the schedule ``learned`` and thresholds for a wanted mean acceptance rate over all segments.

    r_star stays, because it is a reward that is good enough, and no threshold is higher. beta is `SHARPNESS` times the
    pooled s_k. Rates are those at the prefixes of these answers.

    Raises:
        ValueError: there are too few answers, their prompts' rewards are missing, the rate is not between 0 and 1, or
            r_star is so low that more is always accepted.
    """
    if len(answers) < FEWEST or not 0 < acceptance < 1:
        raise ValueError(f"needs {FEWEST} answers, and a rate between 0 and 1")
    found = _fits(answers, settings)
    weights = [sum(len(answer.rewards) > k for answer in answers) for k in range(len(found))]
    pooled = (sum(w * p.s**2 for w, p in zip(weights, found, strict=True)) / sum(weights)) ** 0.5
    beta = max(SHARPNESS * pooled, 1e-3)

    def at(cheapness: float) -> Settings:
        thresholds = tuple(p.step(10.0**-cheapness) for p in found)
        return settings.changed(schedule="learned", beta=beta, thresholds=thresholds)

    most_expensive, cheapest = -6.0, 12.0
    if mean_acceptance(answers, at(cheapest)) > acceptance:
        raise ValueError(f"r_star {settings.r_star:g} is reached more often than {acceptance:g}: raise it")
    return at(solve(lambda cheapness: mean_acceptance(answers, at(cheapness)), acceptance, most_expensive, cheapest))


def propose(
    answers: Sequence[Answer], settings: Settings, acceptance: float, schedule: str | PartOptions
) -> tuple[Settings, dict[str, Any]]:
    """The settings that `learn` finds for the schedule ``learned``, and `fit` for the others.

    Returns:
        The settings, and the same as keys of a policy's ``decoding``.

    Raises:
        ValueError: as they do.
    """
    if schedule != "learned":
        found = fit(answers, settings.changed(schedule=schedule), acceptance)
        return found, {"beta": found.beta, "r_star": found.r_star}
    found = learn(answers, settings, acceptance)
    return found, {"beta": found.beta, "thresholds": [step.model_dump() for step in found.thresholds]}


def _fits(answers: Sequence[Answer], settings: Settings) -> list[_SegmentFit]:
    found: list[_SegmentFit] = []
    for k in range(max(len(answer.rewards) for answer in answers)):
        tokens = min((k + 1) * settings.segment_tokens, settings.max_tokens)
        here = [answer for answer in answers if len(answer.rewards) > k]
        if len(here) < FEWEST and found:
            found.append(replace(found[-1], tokens=tokens))
            continue
        before = [answer.before(k) for answer in here]
        known = [reward for reward in before if reward is not None]
        if len(known) < len(here):
            raise ValueError("the rewards of the prompts are not known")
        after, last = [answer.rewards[k] for answer in here], [answer.whole for answer in here]
        b, a = _line(known, after, otherwise=1.0)
        s = statistics.pstdev(y - a - b * x for x, y in zip(known, after, strict=True))
        c, _ = _line(after, last, otherwise=1.0)
        lengths = [answer.tokens[k] - (answer.tokens[k - 1] if k else 0) for answer in here]
        found.append(_SegmentFit(tokens, statistics.fmean(lengths), a, b, s, max(c, 0.0)))
    return found


def _line(x: Sequence[float], y: Sequence[float], *, otherwise: float) -> tuple[float, float]:
    """Slope and intercept by least squares; the slope is ``otherwise`` where x does not vary."""
    try:
        slope, intercept = statistics.linear_regression(x, y)
    except statistics.StatisticsError:
        return otherwise, statistics.fmean(y) - otherwise * statistics.fmean(x)
    return slope, intercept


def _reserve(price: float) -> float:
    """z with h(z) = ``price``; h falls."""
    return solve(lambda z: NORMAL.pdf(z) - z * (1 - NORMAL.cdf(z)), price, -FARTHEST, FARTHEST)
