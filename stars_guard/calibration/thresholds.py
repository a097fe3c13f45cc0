"""From judged answers to a policy's numbers: which r_star and beta give a wanted acceptance rate."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from stars_guard.decoding import Settings
from stars_guard.decoding.verdict import chance, threshold

__all__ = ["Answer", "Prediction", "SegmentRewards", "fit", "mean_acceptance", "predict", "rewards_by_segment", "solve"]

SHARPNESS = 0.5
"""beta as a share of the rewards' spread after one segment: half of it tells good from bad and is no hard limit."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, as the model gives it at each prefix.

    An answer without a guard is its own prefix: what is given at one segment is there at the next. In an answer under
    a guard, the first candidate of a segment is what the model gives after the segments that were kept before it.

    Attributes:
        prompt_reward: r(x, ""), or None where the schedule doesn't ask for it.
        tokens: tokens of the answer after each segment.
        rewards: r(x, y) after each segment.
        prefixes: r(x, y) before each segment, where a guard chose what stayed; None without a guard.
        last: r(x, y) of the whole answer, where a guard chose what stayed.
    """

    prompt_reward: float | None
    tokens: tuple[int, ...]
    rewards: tuple[float, ...]
    prefixes: tuple[float | None, ...] | None = None
    last: float | None = None

    def before(self, k: int) -> float | None:
        """r(x, y) before the k-th segment, from 0; None where it is not known."""
        if self.prefixes is not None:
            return self.prefixes[k]
        return self.rewards[k - 1] if k else self.prompt_reward

    @property
    def whole(self) -> float:
        """r(x, y) of the whole answer."""
        return self.rewards[-1] if self.last is None else self.last


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRewards:
    """The rewards of all answers after the k-th segment.

    Attributes:
        index: k, from 0.
        count: answers that have such a segment.
        quantiles: of the rewards, at 5, 25, 50, 75 and 95 percent.
        correlation: Pearson's, between this reward and that of the whole answer, over answers that go on after this
            segment; None where there are fewer than three of them or no spread.
    """

    index: int
    count: int
    quantiles: tuple[float, float, float, float, float]
    correlation: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the policy would do at the k-th segment of such answers.

    Attributes:
        tau: the mean threshold.
        acceptance: Z, the chance that a candidate is accepted.
        candidates: how many are expected, (1 - (1 - Z)^N) / Z (DESIGN.md, "The algorithm").
    """

    index: int
    tau: float
    acceptance: float
    candidates: float


def rewards_by_segment(answers: Sequence[Answer]) -> list[SegmentRewards]:
    """How rewards are distributed after each segment, and how well a prefix's reward tells the whole answer's."""
    found = []
    for index in range(max((len(answer.rewards) for answer in answers), default=0)):
        here = sorted(answer.rewards[index] for answer in answers if len(answer.rewards) > index)
        on = [(answer.rewards[index], answer.whole) for answer in answers if len(answer.rewards) > index + 1]
        q5, q25, q50, q75, q95 = (_quantile(here, share) for share in (0.05, 0.25, 0.5, 0.75, 0.95))
        found.append(
            SegmentRewards(
                index=index, count=len(here), quantiles=(q5, q25, q50, q75, q95), correlation=_correlation(on)
            )
        )
    return found


def _quantile(values: Sequence[float], share: float) -> float:
    at = share * (len(values) - 1)
    low = int(at)
    high = min(low + 1, len(values) - 1)
    return values[low] + (at - low) * (values[high] - values[low])


def _correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    if len(pairs) < 3:
        return None
    first, second = zip(*pairs, strict=True)
    try:
        return statistics.correlation(first, second)
    except statistics.StatisticsError:
        return None


def fit(answers: Sequence[Answer], settings: Settings, acceptance: float) -> Settings:
    """The settings with r_star and beta for a wanted mean acceptance rate over all segments of the answers.

    beta is `SHARPNESS` times the spread after a segment (standard deviation, pooled). r_star is then found by
    bisection, because the rate falls as r_star grows. The answers are unguarded, so later segments are judged on
    prefixes that a guard would have rejected. In use, the rate is higher there.

    Raises:
        ValueError: there are no rewards, or the rate is not between 0 and 1.
    """
    rewards = [reward for answer in answers for reward in answer.rewards]
    if not rewards or not 0 < acceptance < 1:
        raise ValueError("needs rewards, and a rate between 0 and 1")
    beta = max(SHARPNESS * _spread(answers), 1e-3)
    width = max(rewards) - min(rewards) + 20 * beta
    r_star = solve(
        lambda r_star: mean_acceptance(answers, settings.changed(r_star=r_star, beta=beta)),
        acceptance,
        min(rewards) - width,
        max(rewards) + width,
    )
    return settings.changed(r_star=r_star, beta=beta)


def solve(falling: Callable[[float], float], aim: float, low: float, high: float) -> float:
    """Where a falling function has the value ``aim``, between ``low`` and ``high``, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > aim else (low, middle)
    return (low + high) / 2


def mean_acceptance(answers: Sequence[Answer], settings: Settings) -> float:
    """The chance that a segment of such answers is accepted."""
    return statistics.fmean(p for _, _, p in _each(answers, settings))


def _spread(answers: Sequence[Answer]) -> float:
    columns: dict[int, list[float]] = {}
    for answer in answers:
        for index, reward in enumerate(answer.rewards):
            columns.setdefault(index, []).append(reward)
    parts = [(statistics.pvariance(column), len(column)) for column in columns.values()]
    return float((sum(v * n for v, n in parts) / sum(n for _, n in parts)) ** 0.5)


def predict(answers: Sequence[Answer], settings: Settings) -> list[Prediction]:
    """Acceptance and candidates by segment, for the prefixes of these answers."""
    columns: dict[int, list[tuple[float, float]]] = {}
    for index, tau, p in _each(answers, settings):
        columns.setdefault(index, []).append((tau, p))
    found = []
    for index, column in sorted(columns.items()):
        rate = statistics.fmean(p for _, p in column)
        attempts = settings.attempts_at(index * settings.segment_tokens)
        candidates = (1 - (1 - rate) ** attempts) / rate if rate > 0 else float(attempts)
        found.append(
            Prediction(
                index=index, tau=statistics.fmean(tau for tau, _ in column), acceptance=rate, candidates=candidates
            )
        )
    return found


def _each(answers: Sequence[Answer], settings: Settings) -> Iterator[tuple[int, float, float]]:
    """Index, threshold and chance of acceptance of every segment."""
    for answer in answers:
        for index, (tokens, reward) in enumerate(zip(answer.tokens, answer.rewards, strict=True)):
            at = {"prompt_reward": answer.prompt_reward, "prefix_reward": answer.before(index)}
            tau = threshold(settings, tokens=tokens, **at)
            yield index, tau, chance(settings, reward=reward, tau=tau)
