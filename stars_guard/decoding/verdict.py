"""The decision on one proposal of rejection sampling: pure, so that an auditor can do it again from the record."""

from __future__ import annotations

from dataclasses import dataclass

from stars_guard.core.judging import Judgement
from stars_guard.core.vocabulary import Verdict
from stars_guard.decoding.acceptance import acceptance_probability, learned, linear
from stars_guard.decoding.protocol import Settings
from stars_guard.decoding.randomness import uniform

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
    """tau(n) by the settings' schedule; of ``constant`` it is r*. The arguments are those of `decide`."""
    match settings.schedule:
        case "linear":
            return linear(
                tokens=tokens,
                max_tokens=settings.max_tokens,
                prompt_reward=prompt_reward,
                alpha=settings.alpha,
                r_star=settings.r_star,
            )
        case "learned":
            return learned(settings.thresholds, tokens=tokens, prefix_reward=prefix_reward, r_star=settings.r_star)
        case "constant":
            return settings.r_star


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
    """Accept or reject a proposal.

    Args:
        seed: of the call.
        tokens: of the answer with the proposal.
        prompt_reward: r(x, ""); None when it is not known.
        prefix_reward: r(x, y) of the answer before the proposal, which is the prompt's at first; None when it is not
            known.
    """
    tau = threshold(settings, tokens=tokens, prompt_reward=prompt_reward, prefix_reward=prefix_reward)
    u = uniform(seed, segment, attempt)
    if judgement.veto is not None:
        probability, reason = 0.0, f"vetoed by {judgement.veto}"
    elif judgement.reward is None:
        probability, reason = 1.0, "no judge gives a reward"
    else:
        probability = acceptance_probability(settings.acceptance, reward=judgement.reward, tau=tau, beta=settings.beta)
        reason = "reward reaches the threshold" if probability == 1.0 else "reward is below the threshold"
    verdict: Verdict = "accepted" if u < probability else "rejected"
    if verdict == "accepted" and probability < 1.0:
        reason = "reward is below the threshold, accepted by chance"
    return Decided(threshold=tau, probability=probability, u=u, verdict=verdict, reason=reason)
