"""What a probe is worth, on prompts that it was not trained on."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stars_guard.calibration.probe_samples import Sample
from stars_guard.core.vocabulary import Side

__all__ = ["Forecast", "Position", "Report", "Saving", "auc", "report", "spearman"]

MISSES = (0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Texts of the same number of segments, or all of them where ``segments`` is None.

    Attributes:
        rejected: share of them that the teacher rejects.
        spearman: rank correlation of probe and teacher; None where there is no spread.
        auc: chance that the probe puts a text that the teacher rejects on the worse side of one that it doesn't; None
            where all are of one kind.
        bias: mean of the probe's forecast less what the teacher says: its score, or for a chance of rejection 1 or 0.
    """

    segments: int | None
    texts: int
    rejected: float
    spearman: float | None
    auc: float | None
    bias: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """The teacher doesn't need to be asked where the probe's score is on one ``side`` of ``limit``.

    Attributes:
        miss: share of what the teacher finds on the other side that is then decided wrongly, at most: of what it
            rejects where the probe passes, or of what it accepts where the probe rejects.
        saved: share of the texts that the teacher is not asked about.
    """

    miss: float
    saved: float
    side: Side
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """How well the beginning of an answer tells the teacher's score of the whole, as rank correlations."""

    segments: int
    answers: int
    probe: float | None
    teacher: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All of it.

    Attributes:
        savings: where the probe passes a text by itself.
        rejections: where it rejects one by itself.
        even: the limit at which the probe rejects as many texts as the teacher; None where that rejects none or all.
    """

    positions: tuple[Position, ...]
    savings: tuple[Saving, ...]
    rejections: tuple[Saving, ...]
    even: float | None
    forecasts: tuple[Forecast, ...]

    @property
    def as_numbers(self) -> dict[str, Any]:
        """For the model card."""
        return asdict(self)


def report(
    samples: Sequence[Sample],
    score: Callable[[Sequence[float]], float],
    bad: Callable[[float], bool],
    *,
    high_is_bad: bool,
    forecasts_chance: bool = False,
) -> Report:
    """Measure a probe.

    Args:
        samples: of prompts that were held out.
        score: the probe's, of a mean state.
        bad: whether the teacher rejects at a score.
        high_is_bad: whether the probe's score is high for what the teacher rejects.
        forecasts_chance: whether the probe forecasts the chance that the teacher rejects, and not its score.
    """
    sign = 1.0 if high_is_bad else -1.0
    rows = [(sample, score(sample.state)) for sample in samples]

    def position(segments: int | None) -> Position | None:
        here = [(one, said) for one, said in rows if segments is None or one.index == segments - 1]
        if not here:
            return None
        wrong = [bad(one.score) for one, _ in here]
        truth = [float(is_bad) if forecasts_chance else one.score for is_bad, (one, _) in zip(wrong, here, strict=True)]
        found = [said for _, said in here]
        return Position(
            segments=segments,
            texts=len(here),
            rejected=statistics.fmean(wrong),
            spearman=spearman(found, [one.score for one, _ in here]),
            auc=auc([sign * said for said in found], wrong),
            bias=statistics.fmean(found) - statistics.fmean(truth),
        )

    counts = sorted({one.index + 1 for one, _ in rows})
    positions = [position(count) for count in [*counts, None]]
    judged = [(sign * said, bad(one.score)) for one, said in rows]
    return Report(
        positions=tuple(one for one in positions if one is not None),
        savings=_savings(judged, sign),
        rejections=_savings([(-said, not is_bad) for said, is_bad in judged], -sign),
        even=_even(judged, sign),
        forecasts=_forecasts(rows),
    )


def _savings(rows: Sequence[tuple[float, bool]], sign: float) -> tuple[Saving, ...]:
    """Args: rows: how bad the probe finds each text, and whether the teacher rejects it."""
    worst = sorted(said for said, is_bad in rows if is_bad)
    found = []
    for miss in MISSES if worst else ():
        limit = worst[int(miss * len(worst))]
        saved = sum(said < limit for said, _ in rows) / len(rows)
        found.append(Saving(miss=miss, saved=saved, side="below" if sign > 0 else "above", limit=sign * limit))
    return tuple(found)


def _even(rows: Sequence[tuple[float, bool]], sign: float) -> float | None:
    """Args: rows: as for `_savings`."""
    order, rejected = sorted(said for said, _ in rows), sum(is_bad for _, is_bad in rows)
    if not 0 < rejected < len(rows):
        return None
    return sign * (order[-rejected] + order[-rejected - 1]) / 2


def _forecasts(rows: Sequence[tuple[Sample, float]]) -> tuple[Forecast, ...]:
    """Of unguarded answers, because a guard changes how they end."""
    free = [(one, said) for one, said in rows if not one.guarded]
    ends = {one.call: one for one, _ in free if one.last}
    found = []
    for index in sorted({one.index for one, _ in free}):
        here = [(one, said) for one, said in free if one.index == index and not one.last and one.call in ends]
        whole = [ends[one.call].score for one, _ in here]
        if len(here) >= 3:
            probe, teacher = (
                spearman([said for _, said in here], whole),
                spearman([one.score for one, _ in here], whole),
            )
            found.append(Forecast(segments=index + 1, answers=len(here), probe=probe, teacher=teacher))
    return tuple(found)


def _ranks(values: Sequence[float]) -> list[float]:
    """From 1; equal values share the mean of theirs."""
    order = sorted(range(len(values)), key=lambda at: values[at])
    ranks, start = [0.0] * len(values), 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for at in order[start:end]:
            ranks[at] = (start + 1 + end) / 2
        start = end
    return ranks


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Rank correlation; None for fewer than three values, or without spread."""
    if len(first) < 3 or len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return statistics.correlation(_ranks(first), _ranks(second))


def auc(values: Sequence[float], wanted: Sequence[bool]) -> float | None:
    """The chance that a wanted value is higher than an unwanted one, ties counted half; None if all are one kind."""
    high = sum(wanted)
    if not 0 < high < len(values):
        return None
    total = sum(rank for rank, is_wanted in zip(_ranks(values), wanted, strict=True) if is_wanted)
    return (total - high * (high + 1) / 2) / (high * (len(values) - high))
