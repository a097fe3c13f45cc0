"""The decision on one candidate of rejection sampling: pure, so that an auditor can do it again from the record."""

from __future__ import annotations

from dataclasses import dataclass

from stars_guard.core.judging import Judgement
from stars_guard.core.vocabulary import Verdict
from stars_guard.decoding.acceptance import ACCEPTANCE
from stars_guard.decoding.randomness import uniform
from stars_guard.decoding.schedules import SCHEDULES, Progress
from stars_guard.decoding.settings import Settings

__all__ = ["Decided", "decide", "threshold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """The fields are those of `stars_guard.core.events.Decision`."""

    threshold: float
    probability: float
    u: float
    verdict: Verdict
    reason: str


def threshold(settings: Settings, *, tokens: int, prompt_reward: float | None, prefix_reward: float | None) -> float:
    """tau(n) by the settings' schedule. The arguments are those of `decide`."""
    at = Progress(tokens=tokens, prompt_reward=prompt_reward, prefix_reward=prefix_reward)
    return SCHEDULES[settings.schedule].threshold(settings, at)


def decide(
    settings: Settings,
    *,
    seed: int,
    segment: int,
    attempt: int,
    tokens: int,
    prompt_reward: float | None,
    prefix_reward: float | None,
    judgement: Judgement,
) -> Decided:
    """Accept or reject a candidate.

    Args:
        seed: of the call.
        tokens: of the answer with the candidate.
        prompt_reward: r(x, ""); None when it is not known.
        prefix_reward: r(x, y) of the answer before the candidate, which is the prompt's at first; None when it is not
            known.
    """
    tau = threshold(settings, tokens=tokens, prompt_reward=prompt_reward, prefix_reward=prefix_reward)
    u = uniform(seed, segment, attempt)
    if judgement.veto is not None:
        probability, reason = 0.0, f"vetoed by {judgement.veto}"
    elif judgement.reward is None:
        probability, reason = 1.0, "no judge gives a reward"
    else:
        accept = ACCEPTANCE[settings.acceptance]
        probability = accept(reward=judgement.reward, tau=tau, beta=settings.beta)
        reason = "reward reaches the threshold" if probability == 1.0 else "reward is below the threshold"
    verdict: Verdict = "accepted" if u < probability else "rejected"
    if verdict == "accepted" and probability < 1.0:
        reason = "reward is below the threshold, accepted by chance"
    return Decided(threshold=tau, probability=probability, u=u, verdict=verdict, reason=reason)
