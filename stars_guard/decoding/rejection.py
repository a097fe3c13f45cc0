"""Segment-level rejection sampling: STARS (arXiv 2511.03827) and, with entropy boundaries, CARDS (arXiv 2406.16306).

    repeat  s ~ model(. | x, y);  accept with probability 0 if vetoed, else min(1, exp((r(x, y + s) - tau) / beta))

Parallel proposals are decided in index order, each with its own u, so the law of the output is that of drawing one by
one. All randomness comes from the call's seed and the attempt's index.
"""

from __future__ import annotations

from collections.abc import Sequence

from stars_guard.core.events import Decision, Ended, Kept, Totals
from stars_guard.core.judging import Judgement
from stars_guard.core.segments import Candidate
from stars_guard.decoding.ledger import Ledger
from stars_guard.decoding.protocol import Done, Draw, Judged, Outcome, Settings
from stars_guard.decoding.randomness import derive_seed
from stars_guard.decoding.verdict import decide
from stars_guard.decoding.width import ALONE, AcceptanceRate, best_width
from stars_guard.errors import ProtocolError

__all__ = ["RejectionSampler"]


class RejectionSampler:
    """STARS; CARDS when ``settings.entropy_threshold`` is set."""

    needs_judgement = True

    def __init__(self, settings: Settings, seed: int, rate: AcceptanceRate | None = None) -> None:
        self._settings = settings
        self._ledger = Ledger(settings, seed)
        self._rate = rate or AcceptanceRate()
        self._prompt_reward: float | None = None
        self._prefix_reward: float | None = None
        self._begun = False
        self._best: tuple[int, float, Candidate] | None = None
        self._last_veto: str | None = None

    @property
    def needs_prompt_reward(self) -> bool:
        return self._settings.schedule != "constant"

    @property
    def needs_entropy(self) -> bool:
        return self._settings.entropy_threshold is not None

    @property
    def totals(self) -> Totals:
        return self._ledger.totals

    def begin(self, prompt_reward: float | None) -> None:
        if self._begun:
            raise ProtocolError("the decoder has begun already")
        self._begun = True
        self._prompt_reward = self._prefix_reward = prompt_reward

    def charge(self, tokens: int) -> None:
        self._ledger.charge(tokens)

    def plan(self, row_cost: float = ALONE) -> Draw | Done:
        ledger = self._ledger
        if not self._begun:
            raise ProtocolError("begin() comes before plan()")
        if ledger.done is not None:
            return ledger.done
        if ledger.outstanding is not None:
            return ledger.outstanding
        limit = min(self._settings.segment_tokens, self._settings.max_tokens - ledger.kept_tokens)
        most = ledger.affordable(limit)
        if most < 1:
            return ledger.out_of_budget()
        if self._settings.on_exhausted == "best":
            most = max(1, ledger.spare(limit))
        width = self._width(most, row_cost)
        seeds = tuple(derive_seed(ledger.seed, ledger.segment, ledger.attempt + i) for i in range(width))
        ledger.outstanding = Draw(
            segment=ledger.segment,
            attempt=ledger.attempt,
            seeds=seeds,
            limit=limit,
            cut_entropy=self._settings.entropy_threshold,
            stretch=ledger.stretch(limit, width),
        )
        return ledger.outstanding

    def _width(self, most: int, row_cost: float) -> int:
        if self._settings.monitor:
            return 1
        if self._settings.parallel == "auto":
            return best_width(self._rate.mean, most, row_cost)
        return min(self._settings.parallel, most)

    def decide(self, judged: Sequence[Judged]) -> Outcome:
        ledger = self._ledger
        draw = ledger.claim(judged)
        decisions: list[Decision] = []
        accepted: tuple[int, Candidate] | None = None
        for attempt, (candidate, judgement) in enumerate(judged, start=draw.attempt):
            if accepted is not None:
                ledger.pass_over(candidate)
                reason = "an earlier proposal was accepted"
                decisions.append(
                    Decision(
                        segment=draw.segment,
                        attempt=attempt,
                        candidate=candidate,
                        judgement=judgement,
                        verdict="surplus",
                        reason=reason,
                    )
                )
                continue
            decision = self._decide_one(draw.segment, attempt, candidate, judgement)
            decisions.append(decision)
            self._rate.observe(decision.verdict == "accepted")
            if decision.verdict == "accepted":
                accepted = (attempt, candidate)
            else:
                ledger.reject(candidate)
                self._remember(attempt, candidate, judgement)
        end, retain = self._end(draw, judged, accepted)
        return Outcome(decisions=tuple(decisions), end=end, retain=retain)

    def _decide_one(self, segment: int, attempt: int, candidate: Candidate, judgement: Judgement) -> Decision:
        decided = decide(
            self._settings,
            seed=self._ledger.seed,
            segment=segment,
            attempt=attempt,
            tokens=self._ledger.kept_tokens + len(candidate),
            prompt_reward=self._prompt_reward,
            prefix_reward=self._prefix_reward,
            judgement=judgement,
        )
        return Decision(
            segment=segment,
            attempt=attempt,
            candidate=candidate,
            judgement=judgement,
            verdict=decided.verdict,
            reason=decided.reason,
            threshold=decided.threshold,
            probability=decided.probability,
            u=decided.u,
        )

    def _remember(self, attempt: int, candidate: Candidate, judgement: Judgement) -> None:
        if judgement.veto is not None:
            self._last_veto = judgement.veto
        elif judgement.reward is not None and (self._best is None or judgement.reward > self._best[1]):
            self._best = (attempt, judgement.reward, candidate)

    def _end(
        self, draw: Draw, judged: Sequence[Judged], accepted: tuple[int, Candidate] | None
    ) -> tuple[Kept | Ended | None, frozenset[int]]:
        ledger, best = self._ledger, self._best
        keep_best = best is not None and self._settings.on_exhausted == "best"
        end: Kept | Ended | None = None
        if accepted is not None:
            end = ledger.keep(accepted[1], Kept(segment=draw.segment, attempt=accepted[0], how="accepted"))
            self._prefix_reward = judged[accepted[0] - draw.attempt][1].reward
        elif self._settings.monitor:
            end = ledger.keep(
                judged[0][0], Kept(segment=draw.segment, attempt=draw.attempt, how="monitored"), was_rejected=True
            )
            self._prefix_reward = judged[0][1].reward
        elif (ledger.spare if keep_best else ledger.affordable)(draw.limit) < 1:
            if best is not None and keep_best:
                end = ledger.keep(best[2], Kept(segment=draw.segment, attempt=best[0], how="best"), was_rejected=True)
                self._prefix_reward = best[1]
            else:
                end = ledger.exhaust(self._exhausted_reason())
        if end is not None:
            self._best = self._last_veto = None
            return end, frozenset()
        return None, frozenset({best[0]}) if best is not None and keep_best else frozenset()

    def _exhausted_reason(self) -> str:
        tries = f"no acceptable segment in {self._ledger.attempt} attempts"
        return f"{tries}; last veto: {self._last_veto}" if self._last_veto else tries
