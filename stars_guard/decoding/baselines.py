"""What STARS is compared with, behind the same protocol."""

from __future__ import annotations

from collections.abc import Sequence

from stars_guard.core.events import Decision, Ended, Kept, Totals
from stars_guard.core.judging import Judgement
from stars_guard.core.segments import Candidate
from stars_guard.decoding.ledger import Ledger
from stars_guard.decoding.protocol import Done, Draw, Judged, Outcome, Settings
from stars_guard.decoding.randomness import derive_seed
from stars_guard.decoding.width import ALONE

__all__ = ["BestOfK", "Vanilla"]


class Vanilla:
    """Plain sampling, in pieces of B tokens so that it can be streamed. Nothing is judged."""

    needs_judgement = False
    needs_prompt_reward = False
    needs_entropy = False

    def __init__(self, settings: Settings, seed: int) -> None:
        self._ledger = Ledger(settings, seed)

    @property
    def totals(self) -> Totals:
        return self._ledger.totals

    def begin(self, prompt_reward: float | None) -> None:
        pass

    def charge(self, tokens: int) -> None:
        self._ledger.charge(tokens)

    def plan(self, row_cost: float = ALONE) -> Draw | Done:
        ledger = self._ledger
        if ledger.done is not None:
            return ledger.done
        limit = min(ledger.settings.segment_tokens, ledger.settings.max_tokens - ledger.kept_tokens)
        if ledger.affordable(limit) < 1:
            return ledger.out_of_budget()
        seeds = (derive_seed(ledger.seed, ledger.segment, 0),)
        ledger.outstanding = Draw(
            segment=ledger.segment, attempt=0, seeds=seeds, limit=limit, stretch=ledger.stretch(limit, 1)
        )
        return ledger.outstanding

    def decide(self, judged: Sequence[Judged]) -> Outcome:
        draw = self._ledger.claim(judged)
        candidate, _ = judged[0]
        decision = Decision(
            segment=draw.segment,
            attempt=0,
            candidate=candidate,
            judgement=Judgement(),
            verdict="accepted",
            reason="nothing is judged",
        )
        return Outcome(
            decisions=(decision,),
            end=self._ledger.keep(candidate, Kept(segment=draw.segment, attempt=0, how="unjudged")),
        )


class BestOfK:
    """Draw k proposals, keep the one of the highest reward that is not vetoed.

    With ``settings.segment_tokens >= settings.max_tokens`` this is best-of-n over whole answers.
    """

    needs_judgement = True
    needs_prompt_reward = False
    needs_entropy = False

    def __init__(self, settings: Settings, seed: int) -> None:
        self._ledger = Ledger(settings, seed)
        self._best: tuple[int, Candidate, Judgement] | None = None

    @property
    def totals(self) -> Totals:
        return self._ledger.totals

    def begin(self, prompt_reward: float | None) -> None:
        pass

    def charge(self, tokens: int) -> None:
        self._ledger.charge(tokens)

    def plan(self, row_cost: float = ALONE) -> Draw | Done:
        ledger, settings = self._ledger, self._ledger.settings
        if ledger.done is not None:
            return ledger.done
        if ledger.outstanding is not None:
            return ledger.outstanding
        limit = min(settings.segment_tokens, settings.max_tokens - ledger.kept_tokens)
        if ledger.affordable(limit) < 1:
            return ledger.out_of_budget()
        width = min(max(1, ledger.spare(limit)), 16 if settings.parallel == "auto" else settings.parallel)
        seeds = tuple(derive_seed(ledger.seed, ledger.segment, ledger.attempt + i) for i in range(width))
        stretch = ledger.stretch(limit, width)
        ledger.outstanding = Draw(
            segment=ledger.segment, attempt=ledger.attempt, seeds=seeds, limit=limit, stretch=stretch
        )
        return ledger.outstanding

    def decide(self, judged: Sequence[Judged]) -> Outcome:
        ledger = self._ledger
        draw = ledger.claim(judged)
        decisions = []
        for attempt, (candidate, judgement) in enumerate(judged, start=draw.attempt):
            challenger = (attempt, candidate, judgement)
            if judgement.veto is not None:
                decisions.append(self._lose(draw, challenger, f"vetoed by {judgement.veto}"))
            elif self._best is None:
                self._best = challenger
            else:
                loser = self._best
                if _reward(judgement) > _reward(self._best[2]):
                    self._best = challenger
                else:
                    loser = challenger
                decisions.append(self._lose(draw, loser, "another proposal has a higher reward"))
        if (ledger.spare if self._best else ledger.affordable)(draw.limit) >= 1:
            return Outcome(
                decisions=tuple(decisions), end=None, retain=frozenset({self._best[0]} if self._best else ())
            )
        end: Kept | Ended
        if self._best is None:
            end = ledger.exhaust(f"all {ledger.attempt} proposals were vetoed")
        else:
            attempt, candidate, judgement = self._best
            reason = f"the highest reward of {ledger.attempt} proposals"
            decisions.append(
                Decision(
                    segment=draw.segment,
                    attempt=attempt,
                    candidate=candidate,
                    judgement=judgement,
                    verdict="accepted",
                    reason=reason,
                )
            )
            end = ledger.keep(candidate, Kept(segment=draw.segment, attempt=attempt, how="best"))
            self._best = None
        return Outcome(decisions=tuple(sorted(decisions, key=lambda decision: decision.attempt)), end=end)

    def _lose(self, draw: Draw, loser: tuple[int, Candidate, Judgement], reason: str) -> Decision:
        attempt, candidate, judgement = loser
        self._ledger.reject(candidate)
        return Decision(
            segment=draw.segment,
            attempt=attempt,
            candidate=candidate,
            judgement=judgement,
            verdict="rejected",
            reason=reason,
        )


def _reward(judgement: Judgement) -> float:
    return float("-inf") if judgement.reward is None else judgement.reward
