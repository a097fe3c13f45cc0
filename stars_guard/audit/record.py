"""The record of one call: what was drawn, what was judged, what was decided."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer

from stars_guard.audit._content import Text
from stars_guard.core.vocabulary import (
    Action,
    AnswerFinish,
    CheckFinish,
    FailureFinish,
    KeptHow,
    Mode,
    OnError,
    Stage,
    Verdict,
)

__all__ = ["Attempt", "CallRecord", "End", "RuleEntry", "ScoreEntry", "Segment", "Turn"]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Turn(_Entry):
    """One message of the prompt."""

    role: str
    content: Text


class RuleEntry(_Entry):
    """What the policy made of one judge's scores."""

    judge: str
    weight: float | None = None
    reject_above: float | None = None
    on_error: OnError = "reject"


class ScoreEntry(_Entry):
    """One judge's word on one proposal; the fields are those of `stars_guard.core.judging.Score`."""

    judge: str
    value: float | None
    error: str | None = None
    detail: str | None = None
    seconds: float = 0.0
    batch: int = 1
    cached: int | None = None


class Attempt(_Entry):
    """One proposal and the decision on it; the fields are those of `stars_guard.core.events.Decision`.

    ``overrun`` counts tokens drawn past the boundary and thrown away.
    """

    attempt: int
    text: Text
    tokens: int
    overrun: int = 0
    finish: str | None = None
    scores: tuple[ScoreEntry, ...] = ()
    reward: float | None = None
    veto: str | None = None
    threshold: float | None = None
    probability: float | None = None
    u: float | None = None
    verdict: Verdict
    reason: str


class End(_Entry):
    """The answer ended before this segment: what was done, and why."""

    action: Action
    reason: str


class Segment(_Entry):
    """One segment: every proposal, which was kept (``kept`` is its attempt, ``how`` why), or how the answer ended."""

    index: int
    attempts: tuple[Attempt, ...]
    kept: int | None = None
    how: KeptHow | None = None
    ended: End | None = None


class CallRecord(_Entry):
    """The record of one call.

    Attributes:
        stage: what was judged: an answer while it was drawn, or one text at a stage around it, which is then the
            ``answer`` of the record, and ``prompt`` what came before it.
        run_id: the caller's id, such as that of a LangChain run.
        started_at: UTC, ISO 8601; so is ``ended_at``.
        seconds: the call's duration by a clock that does not jump.
        tools: names of the tools that the model was offered.
        grammar_sha256: of the grammar that the answer was drawn under, as its engine got it.
        finish: also ``failed`` and ``cancelled``; at other stages than ``answer`` ``passed``, ``redacted`` and
            ``refused``.
        error: the kind of failure when the call failed, never its text.
        scorers: each judge's identity, and what it gets to see and when, where that is not everything.
        stop: the call's stop strings.
        schema_version: 1 had the seed as a number, which JSON readers round.
    """

    schema_version: Literal[1, 2] = 2
    call_id: str
    stage: Literal["answer"] | Stage = "answer"
    run_id: str | None = None
    started_at: str
    ended_at: str
    seconds: float
    policy: str
    policy_sha256: str
    mode: Mode
    backend: dict[str, str] = Field(default_factory=dict)
    scorers: dict[str, dict[str, str]] = Field(default_factory=dict)
    rules: tuple[RuleEntry, ...] = ()
    decoding: dict[str, str | int | float | bool | list[dict[str, float]] | None] = Field(default_factory=dict)
    sampling: dict[str, int | float] = Field(default_factory=dict)
    stop: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    grammar_sha256: str | None = None
    seed: int
    prompt: tuple[Turn, ...]
    prompt_reward: float | None = None
    segments: tuple[Segment, ...] = ()
    answer: Text
    finish: AnswerFinish | CheckFinish | FailureFinish
    reason: str = ""
    error: str | None = None
    totals: dict[str, int] = Field(default_factory=dict)

    @field_serializer("seed", when_used="json")
    def _whole(self, seed: int) -> str:
        return str(seed)

    @property
    def method(self) -> str:
        """The decoding method."""
        return str(self.decoding.get("method", ""))

    @property
    def max_tokens(self) -> int:
        """T of the decoder's settings; 1 where nothing was drawn."""
        return int(str(self.decoding.get("max_tokens") or 1))
