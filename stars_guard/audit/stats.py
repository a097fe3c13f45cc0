"""Counting records: how much was rejected, when, by whom, where in the answer, and what it cost.

Everything is a count, a sum or a mean over bins whose number is bounded, so that a database can do it too.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime

from stars_guard.audit._query import Filter, blamed, matches
from stars_guard.audit.record import CallRecord

__all__ = ["LAST_INDEX", "Cell", "Cost", "IndexCount", "JudgeCount", "Stats", "bin_width", "bucket_seconds", "count"]

LAST_INDEX = 39
"""Segments from this index on are counted together."""

_BUCKETS = (60, 300, 900, 3600, 4 * 3600, 86400, 7 * 86400, 28 * 86400, 364 * 86400)


@dataclass(frozen=True, slots=True)
class Cost:
    """Sums over calls.

    Attributes:
        name: of the policy, or the start of the stretch of time in UTC, ISO 8601.
        proposals: candidates; ``rejections`` of them were rejected.
        drawn: tokens that were generated; ``drawn == kept + rejected + surplus + overrun + rewound``.
        rejected: tokens of rejected candidates.
        seconds: of all calls together.
        slowest: seconds of the slowest call.
    """

    name: str
    _: KW_ONLY
    calls: int = 0
    proposals: int = 0
    rejections: int = 0
    drawn: int = 0
    kept: int = 0
    rejected: int = 0
    surplus: int = 0
    overrun: int = 0
    seconds: float = 0.0
    slowest: float = 0.0

    @property
    def rewound(self) -> int:
        """Tokens that were kept once and taken back."""
        return self.drawn - self.kept - self.rejected - self.surplus - self.overrun


@dataclass(frozen=True, slots=True)
class JudgeCount:
    """Candidates that were rejected because of a judge: by its veto, or by a low reward in which it has a weight."""

    judge: str
    _: KW_ONLY
    vetoes: int = 0
    low_reward: int = 0


@dataclass(frozen=True, slots=True)
class IndexCount:
    """Decisions on the segments with one index. Surplus candidates do not count: nothing was decided about them.

    Attributes:
        threshold: the mean; None where the method has none.
    """

    index: int
    _: KW_ONLY
    accepted: int = 0
    rejected: int = 0
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """Decisions whose segment has the index and whose reward lies in [low, low + width of the bins)."""

    index: int
    low: float
    _: KW_ONLY
    accepted: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What the wanted calls add up to.

    Attributes:
        total: over all calls.
        finishes: how many calls ended for which reason. The most frequent come first, also in ``judges`` and
            ``policies``.
        bucket: the length of a stretch of time, in seconds.
        times: one for each stretch of time that has calls, oldest first, aligned to the Unix epoch.
        by_index: by the index of the segment in its answer.
        cells: by index and reward.
        width: of a bin of rewards.
    """

    total: Cost
    finishes: tuple[tuple[str, int], ...]
    judges: tuple[JudgeCount, ...]
    policies: tuple[Cost, ...]
    bucket: int
    times: tuple[Cost, ...]
    by_index: tuple[IndexCount, ...]
    width: float
    cells: tuple[Cell, ...]


def bucket_seconds(first: datetime, last: datetime) -> int:
    """The stretch of time that divides a span into at most 60 and one; never finer than a minute."""
    span = (last - first).total_seconds()
    return next((width for width in _BUCKETS if span / width <= 60), _BUCKETS[-1])


def bin_width(low: float, high: float) -> float:
    """The width of a bin of rewards, 1, 2 or 5 times a power of ten: at most 25 and one bins from low to high."""
    span = max(high - low, 1e-6)
    power = 10.0 ** math.floor(math.log10(span / 25))
    return next(step * power for step in (1, 2, 5, 10) if span / (step * power) <= 25)


def count(records: Iterable[CallRecord], wanted: Filter | None = None) -> Stats:
    """Add up the wanted records."""
    chosen = [record for record in records if wanted is None or matches(record, wanted)]
    starts = [datetime.fromisoformat(record.started_at) for record in chosen]
    bucket = bucket_seconds(min(starts), max(starts)) if starts else _BUCKETS[0]
    by_policy: defaultdict[str, list[CallRecord]] = defaultdict(list)
    by_time: defaultdict[str, list[CallRecord]] = defaultdict(list)
    vetoes: Counter[str] = Counter()
    low: Counter[str] = Counter()
    for record, start in zip(chosen, starts, strict=True):
        by_policy[record.policy].append(record)
        by_time[_start(start, bucket)].append(record)
        for segment in record.segments:
            for attempt in segment.attempts:
                (low if attempt.veto is None else vetoes).update(blamed(attempt, record.rules))
    by_index, width, cells = _by_index(chosen)
    return Stats(
        total=_cost("", chosen),
        finishes=tuple(sorted(Counter(r.finish for r in chosen).items(), key=lambda item: (-item[1], item[0]))),
        judges=tuple(
            JudgeCount(judge, vetoes=vetoes[judge], low_reward=low[judge])
            for judge, _ in sorted((vetoes + low).items(), key=lambda item: (-item[1], item[0]))
        ),
        policies=tuple(
            _cost(name, calls) for name, calls in sorted(by_policy.items(), key=lambda item: (-len(item[1]), item[0]))
        ),
        bucket=bucket,
        times=tuple(_cost(name, calls) for name, calls in sorted(by_time.items())),
        by_index=by_index,
        width=width,
        cells=cells,
    )


def _start(when: datetime, bucket: int) -> str:
    return datetime.fromtimestamp(when.timestamp() // bucket * bucket, UTC).isoformat()


def _cost(name: str, records: Sequence[CallRecord]) -> Cost:
    sums: Counter[str] = Counter()
    for record in records:
        sums.update(record.totals)
    return Cost(
        name,
        calls=len(records),
        proposals=sums["proposals"],
        rejections=sums["rejections"],
        drawn=sums["drawn"],
        kept=sums["kept"],
        rejected=sums["rejected"],
        surplus=sums["surplus"],
        overrun=sums["overrun"],
        seconds=math.fsum(record.seconds for record in records),
        slowest=max((record.seconds for record in records), default=0.0),
    )


def _by_index(records: Iterable[CallRecord]) -> tuple[tuple[IndexCount, ...], float, tuple[Cell, ...]]:
    decided = [
        (min(segment.index, LAST_INDEX), attempt)
        for record in records
        for segment in record.segments
        for attempt in segment.attempts
        if attempt.verdict != "surplus"
    ]
    counts = Counter((index, attempt.verdict) for index, attempt in decided)
    thresholds: defaultdict[int, list[float]] = defaultdict(list)
    for index, attempt in decided:
        if attempt.threshold is not None:
            thresholds[index].append(attempt.threshold)
    by_index = tuple(
        IndexCount(
            index,
            accepted=counts[index, "accepted"],
            rejected=counts[index, "rejected"],
            threshold=math.fsum(thresholds[index]) / len(thresholds[index]) if thresholds[index] else None,
        )
        for index in sorted({index for index, _ in decided})
    )
    rewards = [attempt.reward for _, attempt in decided if attempt.reward is not None]
    if not rewards:
        return by_index, 0.0, ()
    width = bin_width(min(rewards), max(rewards))
    bins = Counter(
        (index, math.floor(attempt.reward / width), attempt.verdict)
        for index, attempt in decided
        if attempt.reward is not None
    )
    cells = tuple(
        Cell(index, low * width, accepted=bins[index, low, "accepted"], rejected=bins[index, low, "rejected"])
        for index, low in sorted({(index, low) for index, low, _ in bins})
    )
    return by_index, width, cells
