"""What a shadow policy would have decided about a call, as the call's record has it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stars_guard.audit._parts import Part, RuleEntry, Ruling, ScoreEntry
from stars_guard.core.vocabulary import Mode, OtherOutcome, OtherVerdict

__all__ = ["ShadowAttempt", "ShadowEntry"]


class ShadowAttempt(Part):
    """What a shadow decided about one candidate on record, after the text on record before it.

    Attributes:
        verdict: ``unknown`` where its judges have not said in time what they think.
        judged: whether ``scores`` are all that its judges say.
    """

    segment: int
    attempt: int
    verdict: OtherVerdict
    judged: bool = False
    scores: tuple[ScoreEntry, ...] = ()
    reward: float | None = None
    veto: str | None = None
    threshold: float | None = None
    probability: float | None = None


class ShadowEntry(Part):
    """What one shadow policy would have decided.

    Attributes:
        policy_sha256: of the shadow; ``scorers``, ``rules``, ``prompt_reward`` and ``ruling`` are its own too.
        candidates: all on record, in order.
        review: what its judges said of an answer that ended early; None where they were not asked.
        outcome: ``same`` where it gives the same answer. Otherwise ``segment`` is where the two part, ``kept`` the
            attempt that the shadow keeps there and ``seen`` how many candidates it looks at before.
        error: why something is not decided: the kind of a failure, ``not in time``, ``busy`` where too many calls were
            followed already, or ``hidden states`` where a judge reads what the live policy does not ask for.
        totals: what it would have cost with the candidates on record: ``rejections`` and the tokens ``rejected`` that
            would have been thrown away, ``scorer_passages`` that its judges score, and of these ``asked``, those that
            the live policy's judges had not scored already.
    """

    policy: str
    policy_sha256: str
    mode: Mode
    scorers: dict[str, dict[str, str]] = Field(default_factory=dict)
    rules: tuple[RuleEntry, ...] = ()
    prompt_reward: float | None = None
    ruling: Ruling | None = None
    candidates: tuple[ShadowAttempt, ...] = ()
    review: tuple[ScoreEntry, ...] | None = None
    outcome: Literal["same"] | OtherOutcome = "unknown"
    segment: int | None = None
    kept: int | None = None
    seen: int = 0
    error: str | None = None
    totals: dict[str, int] = Field(default_factory=dict)
