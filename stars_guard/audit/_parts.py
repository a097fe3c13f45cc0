"""Parts of a record that what was decided and what a shadow decided have in common."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict

from stars_guard.core.doubt import Doubt
from stars_guard.core.flat import flat
from stars_guard.core.judging import Rule, Score
from stars_guard.core.vocabulary import AskedWhy, OnError, RuleAction, RuledBy, Side

__all__ = ["DoubtEntry", "Part", "RuleEntry", "Ruling", "ScoreEntry", "UnaskedEntry"]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DoubtEntry(Part):
    """In which scores of another judge a judge is asked. The fields are those of `stars_guard.core.doubt.Doubt`."""

    when: str
    above: float | None = None
    below: float | None = None
    sample: float


class RuleEntry(Part):
    """What the policy makes of one judge's scores. The fields are those of `stars_guard.core.judging.Rule`."""

    judge: str
    weight: float | None = None
    reject_above: float | None = None
    on_error: OnError = "reject"
    ask_above: float | None = None
    doubt: DoubtEntry | None = None

    @classmethod
    def of(cls, rule: Rule) -> Self:
        """As the record holds a rule."""
        doubt = None if rule.doubt is None else DoubtEntry(**flat(rule.doubt))
        return cls(**{**flat(rule), "doubt": doubt})

    @property
    def rule(self) -> Rule:
        """The rule that it stands for."""
        doubt = None if self.doubt is None else Doubt(**self.doubt.model_dump())
        return Rule(**self.model_dump(exclude={"doubt"}), doubt=doubt)


class ScoreEntry(Part):
    """What one judge said of one candidate. The fields are those of `stars_guard.core.judging.Score`."""

    judge: str
    value: float | None
    error: str | None = None
    detail: str | None = None
    seconds: float = 0.0
    batch: int = 1
    cached: int | None = None
    asked: AskedWhy | None = None

    @classmethod
    def of(cls, score: Score) -> Self:
        """As the record holds a score."""
        return cls(**flat(score))


class UnaskedEntry(Part):
    """A judge that was not asked, because another one is sure. The fields are those of
    `stars_guard.core.doubt.Unasked`."""

    judge: str
    instead: str
    side: Side


class Ruling(Part):
    """What the rules decided about a tool call. The fields are those of `stars_guard.core.tool_call_events.Ruled`."""

    action: RuleAction
    rule: str | None = None
    because: RuledBy
    failed: bool = False
    approved: bool = False
