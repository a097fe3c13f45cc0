"""The decoder's settings under a policy."""

from __future__ import annotations

from stars_guard.audit import Content
from stars_guard.backends.supplied import MOST_TOKENS
from stars_guard.decoding import STEPWISE, Settings, decoder_of
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
    settings = Settings(**dict(policy.decoding)).changed(max_tokens=max_tokens, monitor=policy.mode == "monitor")
    return settings.changed(method="vanilla", **STEPWISE) if policy.mode == "off" else settings


def as_one_segment(settings: Settings) -> Settings:
    """The settings for an answer that is generated and judged as a whole. It is no longer than the call may pay for."""
    most = min(settings.max_tokens, settings.budget_tokens or settings.max_tokens)
    return settings.changed(
        method=decoder_of(settings.method).whole or settings.method,
        segment_tokens=most,
        max_tokens=most,
        optimistic=False,
        stretch=False,
    )


def supplied_settings(policy: Policy, attempts: int | None) -> Settings:
    """The same for texts that are handed in: no schedule, as nothing is known of their length, and one at a time.
    What was handed in cannot be generated again from its middle, so the answer never goes back.

    Args:
        attempts: fewer than the policy's.
    """
    settings = settings_of(policy, MOST_TOKENS).changed(budget_tokens=None)
    most = settings.attempts_at(0)
    return as_one_segment(settings).changed(
        schedule="constant", parallel=1, attempts=min(most, attempts or most), rewinds=0, recovery=None
    )
