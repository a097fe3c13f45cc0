"""From judges' scores to a verdict: pure, so that an auditor can do it again from the record.

A judge that has a ``weight`` contributes to the reward; one that has ``reject_above`` can veto, and one that has
``ask_above`` can ask for a person's word. The reward of a
passage is the weighted sum r(x, y) = sum_i w_i * s_i(x, y).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stars_guard.core.doubt import Doubt, Unasked
from stars_guard.core.vocabulary import AskedWhy, OnError, RuleAction
from stars_guard.errors import ScorerError

__all__ = ["Judgement", "Rule", "Score", "combine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What the policy makes of one judge's score.

    Attributes:
        judge: the judge's name in the policy.
        weight: its share in the reward; None for a judge that only vetoes.
        reject_above: a score above this vetoes the candidate; None for a judge that only rewards.
        ask_above: a score above this, which is no veto, asks for a person's word; None for a judge that never asks.
        on_error: what a failure means.
        doubt: the judge is asked only where another one is in doubt; None for a judge that is always asked.
    """

    judge: str
    weight: float | None = None
    reject_above: float | None = None
    on_error: OnError = "reject"
    ask_above: float | None = None
    doubt: Doubt | None = None

    def action(self, score: float) -> RuleAction:
        """What one score would do by itself: a veto is ``reject``, and comes before a question."""
        if self.reject_above is not None and score > self.reject_above:
            return "reject"
        return "ask" if self.ask_above is not None and score > self.ask_above else "allow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one judge said of one passage.

    Attributes:
        judge: the judge's name in the policy.
        value: the score, or None when the judge failed.
        error: the kind of failure, without user text.
        detail: what the judge can say of its reason (a label, a pattern's name), without user text.
        seconds: the time that the batch took in which it was judged.
        batch: passages in that batch, of all calls.
        cached: tokens that the judge had read before and did not read again; None where it cannot tell.
        asked: why a judge that is not always asked was asked; None for one that is.
    """

    judge: str
    value: float | None
    error: str | None = None
    detail: str | None = None
    seconds: float = 0.0
    batch: int = 1
    cached: int | None = None
    asked: AskedWhy | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.error is None):
            raise ScorerError(f"judge {self.judge!r}: a score has either a value or an error")
        if self.value is not None and not math.isfinite(self.value):
            raise ScorerError(f"judge {self.judge!r}: a score must be a finite number, not {self.value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """All that the judges said of one passage, combined.

    Attributes:
        scores: one a judge that was asked; judges after a veto are not asked.
        unasked: judges that were not asked because another one is sure.
        reward: the weighted sum; None when no judge gave a reward.
        veto: why the passage must not be released, or None.
        ask: why a person must be asked first, or None. Where there is a veto, nobody is asked.
        match_before: with how many characters, at the end of the answer before the segment, the match begins for which
            a judge vetoes it. It is 0 where the match begins in the segment, or in text that is out, and where no
            answer goes back.
    """

    scores: tuple[Score, ...] = ()
    reward: float | None = None
    veto: str | None = None
    ask: str | None = None
    match_before: int = 0
    unasked: tuple[Unasked, ...] = ()


def combine(scores: Sequence[Score], rules: Sequence[Rule], unasked: Sequence[Unasked] = ()) -> Judgement:
    """Combine scores under the policy's rules.

    In the reward, the score of the judge that is sure stands for that of a judge that was not asked.

    Args:
        scores: in any order; judges that were not asked are absent.
        rules: one a judge of the policy, in its order.
        unasked: judges that were not asked because another one is sure.

    Raises:
        ScorerError: a judge failed and its rule says ``raise``; there is no rule for a judge; or there is no score
            that stands for that of a judge that was not asked.
    """
    by_judge = {rule.judge: rule for rule in rules}
    reward: float | None = None
    veto: str | None = None
    ask: str | None = None
    for score in scores:
        rule = by_judge.get(score.judge)
        if rule is None:
            raise ScorerError(f"judge {score.judge!r} gave a score but the policy has no rule for it")
        if score.value is None:
            if rule.on_error == "raise":
                raise ScorerError(f"judge {score.judge!r} failed: {score.error}")
            if rule.on_error == "reject" and veto is None:
                veto = f"{score.judge} failed: {score.error}"
            continue
        action = rule.action(score.value)
        if action == "reject" and veto is None:
            veto = _blame(score)
        elif action == "ask" and ask is None:
            ask = _blame(score)
        if rule.weight is not None:
            reward = (reward or 0.0) + rule.weight * score.value
    for one in unasked:
        rule = by_judge.get(one.judge)
        if rule is None:
            raise ScorerError(f"judge {one.judge!r} was not asked, and the policy has no rule for it")
        value = _instead(one, scores)
        if rule.weight is not None:
            reward = (reward or 0.0) + rule.weight * value
    return Judgement(
        scores=tuple(scores), reward=reward, veto=veto, ask=ask if veto is None else None, unasked=tuple(unasked)
    )


def _instead(unasked: Unasked, scores: Sequence[Score]) -> float:
    """The score that stands for that of a judge that was not asked."""
    for score in scores:
        if score.judge == unasked.instead and score.value is not None:
            return score.value
    raise ScorerError(f"judge {unasked.judge!r} was not asked, and {unasked.instead!r} has no score")


def _blame(score: Score) -> str:
    return f"{score.judge}: {score.detail}" if score.detail else score.judge
