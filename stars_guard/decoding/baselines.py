"""What STARS is compared with, behind the same protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from stars_guard.core.events import Decision, Ended, Kept
from stars_guard.core.judging import Judgement
from stars_guard.core.step_costs import WidthCost
from stars_guard.decoding.decoder import Decoder, Tried
from stars_guard.decoding.protocol import Judged, Outcome
from stars_guard.decoding.settings import Settings
from stars_guard.decoding.width import WIDEST, AcceptanceRate

__all__ = ["BestOfK", "BestOfN", "Vanilla"]


class Vanilla(Decoder):
    """Plain sampling, in pieces of B tokens so that it can be streamed. Nothing is judged."""

    decides = "none"

    def _width(self, limit: int, cost: WidthCost) -> int:
        return 1

    def decide(self, judged: Sequence[Judged]) -> Outcome:
        plan = self.ledger.claim(judged)
        tried = Tried(plan.attempt, judged[0][0], Judgement())
        decision = self._decision(tried, "accepted", "nothing is judged")
        return Outcome(decisions=(decision,), end=self._kept(tried, "unjudged"))


class BestOfK(Decoder):
    """Generate k candidates for each segment, and keep the one of the highest reward that is not vetoed."""

    decides = "best"
    whole: ClassVar[str | None] = "best_of_n"

    def __init__(self, settings: Settings, seed: int, rate: AcceptanceRate | None = None) -> None:
        super().__init__(settings, seed, rate)
        self._best: Tried | None = None
        self._best_vetoed: Tried | None = None

    def _width(self, limit: int, cost: WidthCost) -> int:
        parallel = self.settings.parallel
        return min(max(1, self.ledger.spare(limit)), WIDEST if parallel == "auto" else parallel)

    def decide(self, judged: Sequence[Judged]) -> Outcome:
        plan = self.ledger.claim(judged)
        decisions: list[Decision] = []
        for attempt, pair in enumerate(judged, start=plan.attempt):
            tried = Tried(attempt, *pair)
            if tried.judgement.veto is not None:
                decisions.append(self._lose(tried, f"vetoed by {tried.judgement.veto}"))
                self._best_vetoed = _better(self._best_vetoed, tried)
                continue
            before, self._best = self._best, _better(self._best, tried)
            if before is not None:
                loser = tried if self._best is before else before
                decisions.append(self._lose(loser, "another candidate has a higher reward"))
        chosen = self._chosen
        if (self.ledger.spare if chosen else self.ledger.affordable)(plan.limit) >= 1:
            retain = frozenset({chosen.attempt} if chosen else ())
            return Outcome(decisions=tuple(decisions), retain=retain)
        if self._best is not None:
            reason = f"the highest reward of {self.ledger.attempt} candidates"
            decisions.append(self._decision(self._best, "accepted", reason))
        end = self._end(chosen)
        self._best = self._best_vetoed = None
        return Outcome(decisions=tuple(sorted(decisions, key=lambda decision: decision.attempt)), end=end)

    @property
    def _chosen(self) -> Tried | None:
        """What is kept if no better candidate comes. Mode ``monitor`` lets a vetoed one through when all are."""
        return self._best or (self._best_vetoed if self.settings.monitor else None)

    def _end(self, chosen: Tried | None) -> Kept | Ended:
        if chosen is None:
            return self.ledger.exhaust(f"all {self.ledger.attempt} candidates were vetoed")
        if chosen is self._best:
            return self._kept(chosen, "best")
        return self._kept(chosen, "monitored", was_rejected=True)

    def _lose(self, loser: Tried, reason: str) -> Decision:
        self.ledger.reject(loser.candidate)
        return self._decision(loser, "rejected", reason)


class BestOfN(BestOfK):
    """The same over whole answers."""

    whole = None

    @classmethod
    def limit(cls, settings: Settings, kept: int) -> int:
        return settings.max_tokens - kept


def _better(champion: Tried | None, challenger: Tried) -> Tried:
    """The one of the higher reward; the earlier of equals."""
    return challenger if champion is None or challenger.worth > champion.worth else champion
