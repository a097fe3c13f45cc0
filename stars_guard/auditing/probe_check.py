"""What cheap judges have missed, by the random share of texts about which the expensive one was asked all the same.

A text is missed where the cheap judge is sure and lets it pass, and the expensive one would have rejected it. The texts
that were sampled are a fair sample of all about which the expensive judge was not asked, so their share of missed texts
stands for both.

Intervals are Wilson's (Wilson 1927). Shares of missed texts are compared by the interval of their difference that
Newcombe made of these (Newcombe 1998, method 10). Shares of texts in doubt are compared with calls as clusters, because
the texts of one call are like each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import sqrt
from statistics import NormalDist

from stars_guard.audit import CallRecord
from stars_guard.audit.record import Attempt, DoubtEntry, RuleEntry

__all__ = ["DoubtCheck", "Drift", "Missed", "Share", "check_doubt"]

EXAMPLES = 20
"""Missed texts that a check names."""
LEAST = 20
"""Calls, or sampled texts, that each half needs before the two are compared."""
SURE = 0.99
"""The level at which a difference counts as drift."""


@dataclass(frozen=True, slots=True)
class Share:
    """A number of texts out of others."""

    hits: int
    of: int

    @property
    def value(self) -> float | None:
        """The share; None of nothing."""
        return self.hits / self.of if self.of else None

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Wilson's interval: from 0 to 1 where nothing is known."""
        if not self.of:
            return 0.0, 1.0
        z, n, p = NormalDist().inv_cdf((1 + level) / 2), self.of, self.hits / self.of
        middle, reach = p + z * z / (2 * n), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        low, high = ((middle + sign * reach) / (1 + z * z / n) for sign in (-1, 1))
        return (0.0 if not self.hits else low), (1.0 if self.hits == n else high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """A text that the expensive judge would have rejected, and the cheap one let pass."""

    call_id: str
    segment: int
    attempt: int
    cheap: float
    score: float


@dataclass(frozen=True, slots=True)
class Drift:
    """A share that is another one in the second half of the log: of what, and in the two halves."""

    what: str
    before: float
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubtCheck:
    """One judge that is asked in doubt, over the calls of one policy and stage with one band.

    Attributes:
        doubt: texts in the band; ``sampled`` those outside that were asked about by chance.
        always: texts about which the judge was asked whatever the other one said: whole tool calls and structured
            answers, and where the other one has no score.
        skipped: texts about which it was not asked.
        missed: of the sampled texts, those that it would have rejected and the other judge let pass.
        found: texts in the band or always asked about that it rejected.
        failed: sampled texts about which the judge failed, which are left out of ``missed``.
        examples: the first missed texts.
        drifts: what is different in the second half of these calls.
    """

    policy: str
    stage: str
    judge: str
    when: str
    above: float | None
    below: float | None
    sample: float
    calls: int = 0
    doubt: int = 0
    sampled: int = 0
    always: int = 0
    skipped: int = 0
    missed: Share = Share(0, 0)
    found: int = 0
    failed: int = 0
    examples: tuple[Missed, ...] = ()
    drifts: tuple[Drift, ...] = ()

    @property
    def saved(self) -> Share:
        """Texts about which the judge was not asked, of all."""
        return Share(self.skipped, self.doubt + self.sampled + self.always + self.skipped)

    @property
    def passed(self) -> tuple[float, float]:
        """Between how many of the texts that were not asked about would have been rejected, at 95%."""
        low, high = self.missed.interval()
        return low * self.skipped, high * self.skipped


@dataclass(slots=True)
class _Call:
    """What one call adds."""

    doubt: int = 0
    sampled: int = 0
    always: int = 0
    skipped: int = 0
    judged: int = 0
    found: int = 0
    missed: list[Missed] = field(default_factory=list)


_Key = tuple[str, str, str, str, float | None, float | None, float]


def check_doubt(records: Iterable[CallRecord], judge: str | None = None) -> list[DoubtCheck]:
    """Check every judge that is asked in doubt.

    Args:
        records: in the order of the log. Calls of another policy, stage or band are counted apart.
        judge: this one alone.
    """
    calls: defaultdict[_Key, list[_Call]] = defaultdict(list)
    for record in records:
        for rule in record.rules:
            if rule.doubt is not None and judge in (None, rule.judge):
                band = rule.doubt
                key = (record.policy, record.stage, rule.judge, band.when, band.above, band.below, band.sample)
                calls[key].append(_of_call(record, rule, band))
    return [_checked(key, found) for key, found in calls.items()]


def _of_call(record: CallRecord, rule: RuleEntry, band: DoubtEntry) -> _Call:
    found = _Call()
    r_star = record.decoding.get("r_star")
    limit = float(r_star) if isinstance(r_star, int | float | str) else 0.0
    for segment in record.segments:
        for attempt in segment.attempts:
            _count(found, record.call_id, segment.index, attempt, rule, band, limit)
    return found


def _count(
    call: _Call, call_id: str, segment: int, attempt: Attempt, rule: RuleEntry, band: DoubtEntry, r_star: float
) -> None:
    call.skipped += any(one.judge == rule.judge for one in attempt.unasked)
    cheap = next((score.value for score in attempt.scores if score.judge == band.when), None)
    for score in attempt.scores:
        if score.judge != rule.judge or score.asked is None:
            continue
        bad = score.value is not None and _rejects(rule, score.value, r_star)
        match score.asked:
            case "doubt":
                call.doubt += 1
                call.found += bad
            case "sample":
                call.sampled += 1
                call.judged += score.value is not None
                # where the other judge rejects by a low reward too, nothing is missed
                passes = cheap is not None and not (_is_reward(rule) and _rejects(rule, cheap, r_star))
                if bad and passes and cheap is not None and score.value is not None:
                    text = Missed(
                        call_id=call_id, segment=segment, attempt=attempt.attempt, cheap=cheap, score=score.value
                    )
                    call.missed.append(text)
            case "whole" | "unknown":
                call.always += 1
                call.found += bad


def _is_reward(rule: RuleEntry) -> bool:
    """Whether a judge rejects by a low reward alone."""
    return rule.reject_above is None and rule.ask_above is None


def _rejects(rule: RuleEntry, score: float, r_star: float) -> bool:
    """Whether a judge rejects a text, or asks for a person's word; by its share of the reward if it does neither."""
    if _is_reward(rule):
        return (rule.weight or 0.0) * score < r_star
    return any(limit is not None and score > limit for limit in (rule.reject_above, rule.ask_above))


def _checked(key: _Key, calls: Sequence[_Call]) -> DoubtCheck:
    policy, stage, judge, when, above, below, sample = key
    half = len(calls) // 2
    return DoubtCheck(
        policy=policy,
        stage=stage,
        judge=judge,
        when=when,
        above=above,
        below=below,
        sample=sample,
        calls=len(calls),
        doubt=sum(call.doubt for call in calls),
        sampled=sum(call.sampled for call in calls),
        always=sum(call.always for call in calls),
        skipped=sum(call.skipped for call in calls),
        missed=_missed(calls),
        found=sum(call.found for call in calls),
        failed=sum(call.sampled - call.judged for call in calls),
        examples=tuple(missed for call in calls for missed in call.missed)[:EXAMPLES],
        drifts=tuple(_drifts(calls[:half], calls[half:])),
    )


def _missed(calls: Sequence[_Call]) -> Share:
    return Share(sum(len(call.missed) for call in calls), sum(call.judged for call in calls))


def _drifts(first: Sequence[_Call], second: Sequence[_Call]) -> Iterable[Drift]:
    before, after = _missed(first), _missed(second)
    if min(before.of, after.of) >= LEAST and _differ(before, after):
        yield Drift("missed", before.value or 0.0, after.value or 0.0)
    halves = [_in_doubt(half) for half in (first, second)]
    if all(calls >= LEAST for calls, _, _ in halves):
        (_, share, error), (_, later, later_error) = halves
        if abs(later - share) > NormalDist().inv_cdf((1 + SURE) / 2) * sqrt(error**2 + later_error**2):
            yield Drift("in doubt", share, later)


def _in_doubt(calls: Sequence[_Call]) -> tuple[int, float, float]:
    """How many calls have texts, the share of texts in doubt, and its standard error, with calls as clusters."""
    pairs = [(call.doubt, total) for call in calls if (total := call.doubt + call.sampled + call.skipped)]
    texts = sum(total for _, total in pairs)
    if len(pairs) < 2:
        return len(pairs), 0.0, 0.0
    share = sum(doubt for doubt, _ in pairs) / texts
    spread = sum((doubt - share * total) ** 2 for doubt, total in pairs)
    return len(pairs), share, sqrt(spread * len(pairs) / (len(pairs) - 1)) / texts


def _differ(first: Share, second: Share) -> bool:
    """Whether Newcombe's interval of the difference leaves out 0."""
    p, q = first.value or 0.0, second.value or 0.0
    (low_p, high_p), (low_q, high_q) = first.interval(SURE), second.interval(SURE)
    down = q - p - sqrt((q - low_q) ** 2 + (high_p - p) ** 2)
    up = q - p + sqrt((high_q - q) ** 2 + (p - low_p) ** 2)
    return down > 0 or up < 0
