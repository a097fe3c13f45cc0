"""The numbers of decoding: what a policy says, and what one call adds to it.

Rewards, thresholds and beta are in the reward model's own unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stars_guard.core.vocabulary import OnExhausted
from stars_guard.decoding.acceptance import ACCEPTANCE
from stars_guard.decoding.methods import METHODS, method_of
from stars_guard.decoding.parts import Named, PartOptions, Parts, name_of
from stars_guard.decoding.schedules import SCHEDULES, Threshold, schedule_of

__all__ = ["PARTS", "STEPWISE", "Decoding", "Recovery", "Settings", "UpTo"]

ATTEMPTS = 1024

STEPWISE: Mapping[str, Any] = {"rewinds": 0, "recovery": None, "best_at_least": None}
"""What only methods that decide candidate by candidate have, and the values without it."""


PARTS: Mapping[str, Parts[Any]] = {"method": METHODS, "schedule": SCHEDULES, "acceptance": ACCEPTANCE}
"""The parts that `Decoding` names, by its field."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True, hide_input_in_errors=True)


_Attempts = Annotated[int, Field(ge=1, le=ATTEMPTS)]


class UpTo(_Part):
    """A step of a schedule of attempts."""

    tokens: int = Field(ge=1, description="for segments that begin before this token of the answer")
    attempts: _Attempts = Field(description="candidates that such a segment may have")


class Recovery(_Part):
    """Where the candidates of segments that fail come from: the same model and answer so far, with an instruction."""

    after: int = Field(4, ge=1, le=ATTEMPTS, description="failed attempts of a segment before it is used")
    instruction: str = Field(min_length=1, repr=False, description="added to the conversation's system message")
    attempts: int | None = Field(
        None,
        ge=1,
        le=ATTEMPTS,
        description="the most candidates of a segment that come from it; default: all that are left",
    )


class Decoding(BaseModel):
    """How answers are generated."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True, hide_input_in_errors=True)

    method: Annotated[str | PartOptions, Named(METHODS)] = Field("stars", description="how the answer is generated")
    segment_tokens: int = Field(16, ge=1, le=4096, description="B: tokens in a segment; in CARDS in the longest one")
    max_tokens: int = Field(512, ge=1, description="T: the longest answer in tokens")
    attempts: _Attempts | Annotated[tuple[UpTo, ...], Field(strict=False, min_length=1)] = Field(
        8,
        description="N: candidates for each segment; k of best-of methods. A list gives numbers by position: those "
        "of the first step whose tokens are more than the answer has before the segment, or else of the last",
    )
    alpha: float = Field(0.5, ge=0, le=1, description="where the threshold starts between r(x, '') and r_star")
    beta: float = Field(0.3, gt=0, description="width of the acceptance rule, in units of the reward")
    r_star: float = Field(1.0, description="the reward that an answer should reach")
    schedule: Annotated[str | PartOptions, Named(SCHEDULES)] = Field(
        "linear", description="how the threshold depends on the length of the answer"
    )
    thresholds: tuple[Threshold, ...] = Field(
        (), strict=False, description="of the schedule learned; `stars-guard calibrate --schedule learned` writes them"
    )
    acceptance: Annotated[str | PartOptions, Named(ACCEPTANCE)] = Field(
        "gibbs", description="gibbs: by chance below the threshold, as beta says; hard: only at or above it"
    )
    parallel: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = Field(
        "auto", description="candidates that are generated at once"
    )
    on_exhausted: OnExhausted = Field(
        "best", description="when all attempts of a segment failed: keep the best, refuse, stop before it, or raise"
    )
    best_at_least: float | None = Field(
        None,
        description="the least reward of a candidate that on_exhausted: best keeps; if none has it, the answer is "
        "refused; of stars and cards",
    )
    budget_tokens: int | None = Field(None, ge=1, description="the most tokens that one call may generate, all counted")
    optimistic: bool = Field(
        True,
        description="let a candidate run on past its boundary while it is judged, where the engine can; "
        "without effect under budget_tokens",
    )
    hold_tokens: int = Field(
        0,
        ge=0,
        le=4096,
        description="the last tokens of the answer wait until more are accepted: for judges that cannot say "
        "where something begins that they would veto",
    )
    rewinds: int = Field(
        0,
        ge=0,
        le=1024,
        description="how often an answer may go back over text that is accepted but held: to where the match of a "
        "judge begins, or over the segment before one whose attempts ran out; of stars and cards",
    )
    recovery: Recovery | None = Field(
        None, description="after failed attempts, generate under one more instruction; of stars and cards"
    )
    entropy_threshold: float = Field(
        3.0,
        ge=0,
        description="CARDS: the segment ends before a token whose entropy in nats is at least this, from the fifth on; "
        "of the model's own distribution, before temperature and truncation",
    )

    @model_validator(mode="after")
    def _parts_are_there(self) -> Self:
        for key, parts in PARTS.items():
            parts.made(getattr(self, key))
        return self

    @model_validator(mode="after")
    def _thresholds_fit(self) -> Self:
        if problem := schedule_of(self.schedule).problem(self):
            raise ValueError(problem)
        _in_order("thresholds", self.thresholds)
        if not isinstance(self.attempts, int):
            _in_order("attempts", self.attempts)
        return self

    @model_validator(mode="after")
    def _method_fits(self) -> Self:
        if method_of(self.method).decides == "each":
            steps = [self.attempts] if isinstance(self.attempts, int) else [step.attempts for step in self.attempts]
            if self.recovery is not None and self.recovery.after >= max(steps):
                raise ValueError(f"recovery.after must be less than attempts, which are {max(steps)}")
            return self
        for name, unused in STEPWISE.items():
            if getattr(self, name) != unused:
                raise ValueError(f"{name} isn't supported by the method {name_of(self.method)}: use stars or cards")
        return self

    def attempts_at(self, kept: int) -> int:
        """N of a segment before which the answer has ``kept`` tokens."""
        if isinstance(self.attempts, int):
            return self.attempts
        return next((step for step in self.attempts if step.tokens > kept), self.attempts[-1]).attempts

    def may_be_best(self, reward: float | None) -> bool:
        """Whether a candidate of that reward, which was not accepted, may be kept as the best one."""
        return reward is not None and (self.best_at_least is None or reward >= self.best_at_least)

    def is_recovery(self, attempt: int) -> bool:
        """Whether a segment's candidate of that number, from 0, comes from the recovery instruction."""
        recovery = self.recovery
        if recovery is None or attempt < recovery.after:
            return False
        return recovery.attempts is None or attempt < recovery.after + recovery.attempts


class Settings(Decoding):
    """What the decoder of one call goes by."""

    # an answer that is judged as a whole is one segment, longer than a policy's may be
    segment_tokens: int = Field(Decoding.model_fields["segment_tokens"].default, ge=1)
    monitor: bool = Field(False, description="decide as always, and let everything through")
    stretch: bool = Field(False, description="let a segment run past B tokens where it would be cut in a tool call")

    @property
    def weighs_width(self) -> bool:
        """Whether the number of candidates generated at once depends on what they cost."""
        is_free = self.parallel == "auto" and not self.monitor and self.budget_tokens is None
        return is_free and method_of(self.method).decides == "each"

    def changed(self, **changes: Any) -> Self:
        """The same with other values.

        Raises:
            ValidationError: there is no such field, or the value is out of its limits.
        """
        return type(self)(**{**dict(self), **changes})


def _in_order(name: str, steps: Sequence[Threshold] | Sequence[UpTo]) -> None:
    ends = [step.tokens for step in steps]
    if ends != sorted(set(ends)):
        raise ValueError(f"{name} must be in the order of their tokens, each number once")
