"""Segment-level rejection sampling: STARS (arXiv 2511.03827) and, with entropy boundaries, CARDS (arXiv 2406.16306).

    repeat  s ~ model(. | x, y);  accept with probability 0 if vetoed, else min(1, exp((r(x, y + s) - tau) / beta))

Parallel candidates are decided on in the order of their attempts, each with its own u, so the output distribution is
that of generating one by one. All randomness comes from the call's seed and the numbers of segment and attempt.

With `rewinds` the answer may go back over text that is held (see `stars_guard.decoding.rewinding`). Each time it goes
on with a segment of the next number, so without a rewind nothing is different.
"""

from __future__ import annotations

from collections.abc import Sequence

from stars_guard.core.events import Decision, Ended, Kept, Rewound
from stars_guard.core.step_costs import WidthCost
from stars_guard.core.vocabulary import KeptHow, RewindWhy
from stars_guard.decoding.decoder import Decoder, Tried
from stars_guard.decoding.ledger import may_go_back
from stars_guard.decoding.protocol import Judged, Outcome
from stars_guard.decoding.rewinding import Back, reason_to_go_back
from stars_guard.decoding.schedules import schedule_of
from stars_guard.decoding.settings import Settings
from stars_guard.decoding.verdict import decide
from stars_guard.decoding.width import AcceptanceRate, best_width

__all__ = ["Cards", "RejectionSampler"]


class RejectionSampler(Decoder):
    """STARS: a segment ends after B tokens."""

    decides = "each"

    def __init__(self, settings: Settings, seed: int, rate: AcceptanceRate | None = None) -> None:
        super().__init__(settings, seed, rate)
        self._prefix_reward: float | None = None
        self._best: Tried | None = None
        self._last_veto: str | None = None

    @property
    def needs_prompt_reward(self) -> bool:
        return schedule_of(self.settings.schedule).needs_prompt_reward

    def begin(self, prompt_reward: float | None) -> None:
        super().begin(prompt_reward)
        self._prefix_reward = prompt_reward

    @property
    def _keeps_best(self) -> bool:
        """Whether the best candidate is kept when attempts run out: there is one, and the policy says so."""
        return self._best is not None and self.settings.on_exhausted == "best"

    def _width(self, limit: int, cost: WidthCost) -> int:
        settings, most = self.settings, self.ledger.affordable(limit)
        if settings.monitor:
            return 1
        if settings.on_exhausted == "best":
            most = max(1, self.ledger.spare(limit))
        if settings.parallel == "auto":
            return best_width(self.rate.mean, most, cost)
        return min(settings.parallel, most)

    def decide(self, judged: Sequence[Judged]) -> Outcome:
        plan = self.ledger.claim(judged)
        decisions: list[Decision] = []
        accepted: Tried | None = None
        back: Back | None = None
        tries = [Tried(attempt, *pair) for attempt, pair in enumerate(judged, start=plan.attempt)]
        for tried in tries:
            if accepted is not None or back is not None:
                self.ledger.pass_over(tried.candidate)
                why = "an earlier candidate was accepted" if accepted is not None else "the answer went back before it"
                decisions.append(self._decision(tried, "surplus", why))
                continue
            decision = self._decide_one(tried)
            decisions.append(decision)
            self.rate.observe(decision.verdict == "accepted")
            if decision.verdict == "accepted":
                accepted = tried
            else:
                self._reject(tried)
                back = self._fault(tried)
        end = self._go_back(back, "match") if back else self._end(accepted, tries[0], plan.limit)
        if end is not None:
            self._best = self._last_veto = None
        retain = {self._best.attempt} if self._best is not None and self._keeps_best else ()
        return Outcome(decisions=tuple(decisions), end=end, retain=frozenset(retain))

    def _fault(self, rejected: Tried) -> Back | None:
        """How far to go back because the match for which a candidate was vetoed begins before it; None for not."""
        before = rejected.judgement.match_before
        back = self.ledger.standing.before(before) if 0 < before <= self.ledger.held else None
        return back if back is not None and self._may(back) else None

    def _dead_end(self) -> Back | None:
        """How to go back over the segment before one whose attempts ran out; None where it is not held any more."""
        ledger = self.ledger
        if ledger.attempt < self.settings.attempts_at(ledger.kept_tokens):
            return None
        back = ledger.standing.last()
        is_held = back is not None and ledger.standing.characters - back.place <= ledger.held
        return back if back is not None and is_held and self._may(back) else None

    def _may(self, back: Back) -> bool:
        totals = self.ledger.totals
        left = totals.kept - back.tokens
        limit = self.limit(self.settings, left)
        return may_go_back(self.settings, rewinds=totals.rewinds, limit=limit, generated=totals.drawn, left=left)

    def _go_back(self, back: Back, why: RewindWhy) -> Rewound:
        reason = reason_to_go_back(why, attempts=self.ledger.attempt, veto=self._last_veto)
        rewound, self._prefix_reward = self.ledger.go_back(back, why, reason)
        return rewound

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
        elif self.settings.may_be_best(tried.judgement.reward) and (
            self._best is None or tried.worth > self._best.worth
        ):
            self._best = tried

    def _end(self, accepted: Tried | None, first: Tried, limit: int) -> Kept | Ended | Rewound | None:
        """The end of the segment, or None when another candidate may follow and can be paid for."""
        if accepted is not None:
            return self._keep(accepted, "accepted")
        if self.settings.monitor:
            return self._keep(first, "monitored")
        if (back := self._dead_end()) is not None:
            return self._go_back(back, "exhausted")
        if self._best is not None and self._keeps_best:
            return None if self.ledger.spare(limit) >= 1 else self._keep(self._best, "best")
        return None if self.ledger.affordable(limit) >= 1 else self.ledger.exhaust(self._exhausted_reason())

    def _keep(self, tried: Tried, how: KeptHow) -> Kept:
        before, self._prefix_reward = self._prefix_reward, tried.judgement.reward
        return self._kept(tried, how, was_rejected=how != "accepted", reward_before=before)

    def _exhausted_reason(self) -> str:
        return reason_to_go_back("exhausted", attempts=self.ledger.attempt, veto=self._last_veto)


class Cards(RejectionSampler):
    """CARDS: a segment also ends where the model is uncertain."""

    needs_entropy = True
    whole = "stars"
