"""Parts of a record that what was decided and what a shadow decided have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from stars_guard.core.vocabulary import OnError, RuleAction, RuledBy

__all__ = ["Part", "RuleEntry", "Ruling", "ScoreEntry"]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RuleEntry(Part):
    """What the policy makes of one judge's scores. The fields are those of `stars_guard.core.judging.Rule`."""

    judge: str
    weight: float | None = None
    reject_above: float | None = None
    on_error: OnError = "reject"
    ask_above: float | None = None


class ScoreEntry(Part):
    """What one judge said of one candidate. The fields are those of `stars_guard.core.judging.Score`."""

    judge: str
    value: float | None
    error: str | None = None
    detail: str | None = None
    seconds: float = 0.0
    batch: int = 1
    cached: int | None = None


class Ruling(Part):
    """What the rules decided about a tool call. The fields are those of `stars_guard.core.tool_call_events.Ruled`."""

    action: RuleAction
    rule: str | None = None
    because: RuledBy
    failed: bool = False
    approved: bool = False
