"""The decision on one candidate of rejection sampling: pure, so that an auditor can do it again from the record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

from stars_guard.core.judging import Judgement
from stars_guard.core.vocabulary import Verdict
from stars_guard.decoding.acceptance import acceptance_rule
from stars_guard.decoding.randomness import uniform
from stars_guard.decoding.schedules import Progress, schedule_of
from stars_guard.decoding.settings import Settings
from stars_guard.errors import PolicyError

__all__ = ["Decided", "chance", "decide", "threshold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """The fields are those of `stars_guard.core.events.Decision`."""

    threshold: float
    probability: float
    u: float
    verdict: Verdict
    reason: str


def threshold(settings: Settings, *, tokens: int, prompt_reward: float | None, prefix_reward: float | None) -> float:
    """tau(n) by the settings' schedule. The arguments are those of `decide`.

    Raises:
        PolicyError: the schedule failed, or gave no finite number.
    """
    at = Progress(tokens=tokens, prompt_reward=prompt_reward, prefix_reward=prefix_reward)
    schedule = schedule_of(settings.schedule)
    tau = _asked(f"the schedule {schedule.type!r}", lambda: schedule.threshold(settings, at))
    if not isfinite(tau):
        raise PolicyError(f"the schedule {schedule.type!r} gave the threshold {tau}, which is no finite number")
    return tau


def chance(settings: Settings, *, reward: float, tau: float) -> float:
    """The chance that an unvetoed candidate is accepted, by the settings' acceptance rule.

    Raises:
        PolicyError: the rule failed, or gave no chance.
    """
    rule = acceptance_rule(settings.acceptance)
    found = _asked(
        f"the acceptance rule {rule.type!r}", lambda: rule.chance(reward=reward, tau=tau, beta=settings.beta)
    )
    if not 0.0 <= found <= 1.0:
        raise PolicyError(f"the acceptance rule {rule.type!r} gave the chance {found}, which is not from 0 to 1")
    return found


def _asked(part: str, ask: Callable[[], float]) -> float:
    """What a part gives, which may be of another package."""
    try:
        return float(ask())
    except Exception as exc:
        raise PolicyError(f"{part} failed: {type(exc).__name__}", hint="the error before this one says why") from exc


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

    Raises:
        PolicyError: the schedule or the acceptance rule failed.
    """
    tau = threshold(settings, tokens=tokens, prompt_reward=prompt_reward, prefix_reward=prefix_reward)
    u = uniform(seed, segment, attempt)
    if judgement.veto is not None:
        probability, reason = 0.0, f"vetoed by {judgement.veto}"
    elif judgement.reward is None:
        probability, reason = 1.0, "no judge gives a reward"
    else:
        probability = chance(settings, reward=judgement.reward, tau=tau)
        reason = "reward reaches the threshold" if probability == 1.0 else "reward is below the threshold"
    verdict: Verdict = "accepted" if u < probability else "rejected"
    if verdict == "accepted" and probability < 1.0:
        reason = "reward is below the threshold, accepted by chance"
    return Decided(threshold=tau, probability=probability, u=u, verdict=verdict, reason=reason)
