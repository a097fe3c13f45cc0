"""Counting what shadow policies would have decided, beside what was decided."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from stars_guard.audit.record import CallRecord, ShadowEntry

__all__ = ["Beside", "Differing", "compare_shadows"]

NEWEST = 10
"""How many of the newest calls are listed in which a shadow would have done something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Differing:
    """One call in which the shadow would have done something else.

    Attributes:
        outcome: what it would have done at the segment where the two part.
    """

    call: str
    stage: str
    finish: str
    outcome: str
    segment: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """A policy and one of its shadows, over the calls that the shadow followed.

    Costs are those of the candidates on record about which the shadow has decided, without surplus ones. Where its
    answer leaves the one on record, nobody knows what it would have generated next, and so what that would have cost.

    Attributes:
        policy: the live one, and ``digest`` the beginning of the shadow's.
        same: calls with the same answer; ``differing`` those with another one; the rest is not decided.
        outcomes: what the shadow does where the two part, the most frequent first.
        errors: why something was not decided, and in how many calls.
        only_live: candidates that the live policy alone rejects; ``only_shadow`` the shadow alone, ``both`` both.
        tokens: of the rejected candidates, which are thrown away: under the live policy.
        shadow_tokens: the same under the shadow.
        passages: texts that the live judges scored, and ``shadow_passages`` those that the shadow's would have.
        asked: texts that the shadow's judges have scored beside the live ones, which is what running it costs.
    """

    policy: str
    shadow: str
    digest: str
    calls: int = 0
    same: int = 0
    differing: int = 0
    candidates: int = 0
    both: int = 0
    only_live: int = 0
    only_shadow: int = 0
    tokens: int = 0
    shadow_tokens: int = 0
    passages: int = 0
    shadow_passages: int = 0
    asked: int = 0
    outcomes: tuple[tuple[str, int], ...] = ()
    errors: tuple[tuple[str, int], ...] = ()
    newest: tuple[Differing, ...] = ()

    @property
    def undecided(self) -> int:
        """Calls about which the shadow has not decided."""
        return self.calls - self.same - self.differing


class _Sum:
    def __init__(self) -> None:
        self.numbers: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.newest: list[Differing] = []

    def add(self, record: CallRecord, entry: ShadowEntry) -> None:
        count = self.numbers
        count["calls"] += 1
        if entry.error is not None:
            self.errors[entry.error] += 1
        if entry.outcome == "same":
            count["same"] += 1
        elif entry.outcome != "unknown":
            count["differing"] += 1
            self.outcomes[entry.outcome] += 1
            found = Differing(
                call=record.call_id,
                stage=record.stage,
                finish=record.finish,
                outcome=entry.outcome,
                segment=entry.segment or 0,
            )
            self.newest = [*self.newest, found][-NEWEST:]
        count["asked"] += entry.totals.get("asked", 0)
        live = {(s.index, a.attempt): a for s in record.segments for a in s.attempts}
        for row in entry.candidates:
            attempt = live.get((row.segment, row.attempt))
            if attempt is None or row.verdict == "unknown" or attempt.verdict == "surplus":
                continue
            was, would = attempt.verdict == "rejected", row.verdict == "rejected"
            count["candidates"] += 1
            count["both"] += was and would
            count["only_live"] += was and not would
            count["only_shadow"] += would and not was
            count["tokens"] += attempt.tokens * was
            count["shadow_tokens"] += attempt.tokens * would
            count["passages"] += len(attempt.scores)
            count["shadow_passages"] += len(row.scores)


def compare_shadows(records: Iterable[CallRecord]) -> list[Beside]:
    """Add up what the records say of each shadow, in the order in which they first appear.

    Args:
        records: in the order of writing.
    """
    sums: defaultdict[tuple[str, str, str], _Sum] = defaultdict(_Sum)
    for record in records:
        for entry in record.shadows:
            sums[record.policy, entry.policy, entry.policy_sha256[:12]].add(record, entry)
    return [
        Beside(
            policy=policy,
            shadow=shadow,
            digest=digest,
            outcomes=_frequent(found.outcomes),
            errors=_frequent(found.errors),
            newest=tuple(reversed(found.newest)),
            **found.numbers,
        )
        for (policy, shadow, digest), found in sums.items()
    ]


def _frequent(counted: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counted.items(), key=lambda item: (-item[1], item[0])))
