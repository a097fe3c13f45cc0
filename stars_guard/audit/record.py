"""The record of one call: what was drawn, what was judged, what was decided."""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Literal

import re2
from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Attempt", "CallRecord", "ContentMode", "ScoreEntry", "Segment", "Text", "Turn"]

ContentMode = Literal["full", "redacted", "hash", "none"]

_REDACTIONS = (
    ("[EMAIL]", r"[\w.+-]+@[\w-]+\.[\w.-]+"),
    ("[KEY]", r"\b(?:sk|pk|ghp|xox[bap]|AKIA)[-_A-Za-z0-9]{12,}"),
    ("[CARD]", r"\b(?:\d[ -]?){13,19}\b"),
    ("[IP]", r"\b(?:\d{1,3}\.){3}\d{1,3}\b"),
    ("[PHONE]", r"\+?\d[\d ()/-]{7,}\d"),
)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Text(_Entry):
    """Text as far as the policy's content mode lets it be kept. ``chars`` is its true length."""

    chars: int
    text: str | None = None
    sha256: str | None = None

    @classmethod
    def of(cls, text: str, mode: ContentMode) -> Text:
        """Keep ``text`` under a mode; ``hash`` is keyed when STARS_GUARD_AUDIT_KEY is set."""
        match mode:
            case "full":
                return cls(chars=len(text), text=text)
            case "redacted":
                kept = text
                for mark, regex in _REDACTIONS:
                    kept = re2.sub(regex, mark, kept)
                return cls(chars=len(text), text=kept)
            case "hash":
                key = os.environ.get("STARS_GUARD_AUDIT_KEY")
                data = text.encode()
                digest = hmac.new(key.encode(), data, "sha256") if key else hashlib.sha256(data)
                return cls(chars=len(text), sha256=digest.hexdigest())
            case "none":
                return cls(chars=len(text))


class Turn(_Entry):
    """One message of the prompt."""

    role: str
    content: Text


class ScoreEntry(_Entry):
    """One judge's word on one proposal."""

    judge: str
    value: float | None
    error: str | None = None
    detail: str | None = None
    seconds: float


class Attempt(_Entry):
    """One proposal and the decision on it."""

    attempt: int
    text: Text
    tokens: int
    overrun: int = 0
    finish: str | None
    scores: tuple[ScoreEntry, ...]
    reward: float | None
    veto: str | None
    threshold: float | None
    probability: float | None
    u: float | None
    verdict: str
    reason: str


class Segment(_Entry):
    """One segment: every proposal, and which was kept (``kept`` is its attempt, ``how`` why)."""

    index: int
    attempts: tuple[Attempt, ...]
    kept: int | None = None
    how: str | None = None
    ended: str | None = None


class CallRecord(_Entry):
    """The record of one call. ``error`` is the kind of failure, never its text."""

    schema_version: Literal[1] = 1
    call_id: str
    run_id: str | None = None
    started_at: str
    ended_at: str
    seconds: float
    policy: str
    policy_sha256: str
    mode: str
    backend: dict[str, str]
    scorers: dict[str, dict[str, str]]
    rules: tuple[dict[str, str | float | None], ...]
    decoding: dict[str, str | int | float | bool | None]
    sampling: dict[str, float]
    seed: int
    prompt: tuple[Turn, ...]
    prompt_reward: float | None
    segments: tuple[Segment, ...]
    answer: Text
    finish: str
    reason: str
    error: str | None = None
    totals: dict[str, int] = Field(default_factory=dict)
