"""The decoder"s settings under a policy."""

from __future__ import annotations

from dataclasses import replace

from stars_guard.audit import Content
from stars_guard.backends.supplied import MOST_TOKENS
from stars_guard.core.vocabulary import Method
from stars_guard.decoding import Settings, Step
from stars_guard.policy import Policy

__all__ = ["as_one_segment", "content_of", "settings_of", "supplied_settings"]


def content_of(policy: Policy) -> Content:
    """How much text its records hold.

    Raises:
        AuditError: texts are to be encrypted and there is no key.
    """
    return Content(**policy.audit.contents.model_dump(), encrypt=policy.audit.encrypt)


def settings_of(policy: Policy, max_tokens: int) -> Settings:
    """The decoder's settings under the policy's mode, for answers of at most ``max_tokens``."""
    values = policy.decoding.model_dump()
    values["max_tokens"] = max_tokens
    values["thresholds"] = tuple(Step(**step) for step in values["thresholds"])
    if policy.mode == "off":
        values["method"] = "vanilla"
    return Settings(**values, monitor=policy.mode == "monitor")


def as_one_segment(settings: Settings) -> Settings:
    """The settings for an answer that is drawn and judged as a whole; it is no longer than the call may pay for."""
    most = min(settings.max_tokens, settings.budget_tokens or settings.max_tokens)
    return replace(
        settings, segment_tokens=most, max_tokens=most, entropy_threshold=None, optimistic=False, stretch=False
    )


def supplied_settings(policy: Policy, attempts: int | None) -> Settings:
    """The same for texts that are handed in: no schedule, as nothing is known of their length, and one at a time.

    Args:
        attempts: fewer than the policy's.
    """
    settings = settings_of(policy, MOST_TOKENS)
    methods: dict[str, Method] = {"cards": "stars", "blockwise_best_of_k": "best_of_n"}
    return replace(
        settings,
        method=methods.get(settings.method, settings.method),
        segment_tokens=MOST_TOKENS,
        schedule="constant",
        parallel=1,
        optimistic=False,
        budget_tokens=None,
        attempts=min(settings.attempts, attempts or settings.attempts),
    )
