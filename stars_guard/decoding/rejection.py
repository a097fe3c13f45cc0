"""Segment-level rejection sampling: STARS (arXiv 2511.03827) and, with entropy boundaries, CARDS (arXiv 2406.16306).

    repeat  s ~ model(. | x, y);  accept with probability 0 if vetoed, else min(1, exp((r(x, y + s) - tau) / beta))

Parallel candidates are decided on in the order of their attempts, each with its own u, so the output distribution is
that of generating one by one. All randomness comes from the call's seed and the attempt's number.
"""

from __future__ import annotations

from collections.abc import Sequence

from stars_guard.core.events import Decision, Ended, Kept
from stars_guard.core.vocabulary import KeptHow
from stars_guard.decoding.decoder import Decoder, Tried
from stars_guard.decoding.protocol import Judged, Outcome
from stars_guard.decoding.schedules import SCHEDULES
from stars_guard.decoding.settings import Settings
from stars_guard.decoding.verdict import decide
from stars_guard.decoding.width import AcceptanceRate, best_width

__all__ = ["Cards", "RejectionSampler"]


class RejectionSampler(Decoder, method="stars"):
    """STARS: a segment ends after B tokens."""

    decides = "each"

    def __init__(self, settings: Settings, seed: int, rate: AcceptanceRate | None = None) -> None:
        super().__init__(settings, seed, rate)
        self._prefix_reward: float | None = None
        self._best: Tried | None = None
        self._last_veto: str | None = None

    @property
    def needs_prompt_reward(self) -> bool:
        return SCHEDULES[self.settings.schedule].needs_prompt_reward

    def begin(self, prompt_reward: float | None) -> None:
        super().begin(prompt_reward)
        self._prefix_reward = prompt_reward

    @property
    def _keeps_best(self) -> bool:
        """Whether the best candidate is kept when attempts run out: there is one, and the policy says so."""
        return self._best is not None and self.settings.on_exhausted == "best"

    def _width(self, limit: int, row_cost: float) -> int:
        settings, most = self.settings, self.ledger.affordable(limit)
        if settings.monitor:
            return 1
        if settings.on_exhausted == "best":
            most = max(1, self.ledger.spare(limit))
        if settings.parallel == "auto":
            return best_width(self.rate.mean, most, row_cost)
        return min(settings.parallel, most)

    def decide(self, judged: Sequence[Judged]) -> Outcome:
        plan = self.ledger.claim(judged)
        decisions: list[Decision] = []
        accepted: Tried | None = None
        tries = [Tried(attempt, *pair) for attempt, pair in enumerate(judged, start=plan.attempt)]
        for tried in tries:
            if accepted is not None:
                self.ledger.pass_over(tried.candidate)
                decisions.append(self._decision(tried, "surplus", "an earlier proposal was accepted"))
                continue
            decision = self._decide_one(tried)
            decisions.append(decision)
            self.rate.observe(decision.verdict == "accepted")
            if decision.verdict == "accepted":
                accepted = tried
            else:
                self._reject(tried)
        end = self._end(accepted, tries[0], plan.limit)
        if end is not None:
            self._best = self._last_veto = None
        retain = {self._best.attempt} if self._best is not None and self._keeps_best else ()
        return Outcome(decisions=tuple(decisions), end=end, retain=frozenset(retain))

    def _decide_one(self, tried: Tried) -> Decision:
        ledger = self.ledger
        decided = decide(
            self.settings,
            seed=ledger.seed,
            segment=ledger.segment,
            attempt=tried.attempt,
            tokens=ledger.kept_tokens + len(tried.candidate),
            prompt_reward=self.prompt_reward,
            prefix_reward=self._prefix_reward,
            judgement=tried.judgement,
        )
        return self._decision(tried, decided.verdict, decided.reason, decided)

    def _reject(self, tried: Tried) -> None:
        """Count it, and keep in mind that it may yet be the best, or why it cannot be."""
        self.ledger.reject(tried.candidate)
        if tried.judgement.veto is not None:
            self._last_veto = tried.judgement.veto
        elif tried.judgement.reward is not None and (self._best is None or tried.worth > self._best.worth):
            self._best = tried

    def _end(self, accepted: Tried | None, first: Tried, limit: int) -> Kept | Ended | None:
        """The end of the segment, or None when another candidate can be had and paid for."""
        if accepted is not None:
            return self._keep(accepted, "accepted")
        if self.settings.monitor:
            return self._keep(first, "monitored")
        if self._best is not None and self._keeps_best:
            return None if self.ledger.spare(limit) >= 1 else self._keep(self._best, "best")
        return None if self.ledger.affordable(limit) >= 1 else self.ledger.exhaust(self._exhausted_reason())

    def _keep(self, tried: Tried, how: KeptHow) -> Kept:
        self._prefix_reward = tried.judgement.reward
        return self._kept(tried, how, was_rejected=how != "accepted")

    def _exhausted_reason(self) -> str:
        tries = f"no acceptable segment in {self.ledger.attempt} attempts"
        return f"{tries}; last veto: {self._last_veto}" if self._last_veto else tries


class Cards(RejectionSampler, method="cards"):
    """CARDS: a segment also ends where the model is uncertain."""

    needs_entropy = True
    whole = "stars"
