"""The numbers of decoding: what a policy says, and what one call adds to it.

Rewards, thresholds and beta are in the reward model's own unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from stars_guard.core.vocabulary import OnExhausted
from stars_guard.decoding.acceptance import ACCEPTANCE
from stars_guard.decoding.methods import METHODS
from stars_guard.decoding.schedules import SCHEDULES, Threshold

__all__ = ["Decoding", "Settings"]


@dataclass(frozen=True, slots=True)
class _NameIn:
    """The name of a part that a table holds, when it is validated. What is wrong reads as pydantic's `Literal`."""

    table: Mapping[str, object]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "enum": sorted(self.table)}

    def _known(self, value: object) -> object:
        if isinstance(value, str) and value in self.table:
            return value
        *names, last = (repr(name) for name in sorted(self.table))
        raise PydanticKnownError("literal_error", {"expected": f"{', '.join(names)} or {last}"})


class Decoding(BaseModel):
    """How answers are generated."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True, hide_input_in_errors=True)

    method: Annotated[str, _NameIn(METHODS)] = "stars"
    segment_tokens: int = Field(16, ge=1, le=4096, description="B: tokens in a segment; in CARDS in the longest one")
    max_tokens: int = Field(512, ge=1, description="T: the longest answer in tokens")
    attempts: int = Field(8, ge=1, le=1024, description="N: candidates for each segment; k of best-of methods")
    alpha: float = Field(0.5, ge=0, le=1, description="where the threshold starts between r(x, '') and r_star")
    beta: float = Field(0.3, gt=0, description="width of the acceptance rule, in units of the reward")
    r_star: float = Field(1.0, description="the reward that an answer should reach")
    schedule: Annotated[str, _NameIn(SCHEDULES)] = "linear"
    thresholds: tuple[Threshold, ...] = Field(
        (), strict=False, description="of the schedule learned; `stars-guard calibrate --schedule learned` writes them"
    )
    acceptance: Annotated[str, _NameIn(ACCEPTANCE)] = "gibbs"
    parallel: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = Field(
        "auto", description="candidates that are generated at once"
    )
    on_exhausted: OnExhausted = "best"
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
    entropy_threshold: float = Field(
        3.0,
        ge=0,
        description="CARDS: the segment ends before a token whose entropy in nats is at least this, from the fifth on; "
        "of the model's own distribution, before temperature and truncation",
    )

    @model_validator(mode="after")
    def _thresholds_fit(self) -> Self:
        if problem := SCHEDULES[self.schedule].problem(self):
            raise ValueError(problem)
        ends = [step.tokens for step in self.thresholds]
        if ends != sorted(set(ends)):
            raise ValueError("thresholds must be in the order of their tokens, each number once")
        return self


class Settings(Decoding):
    """What the decoder of one call goes by."""

    # an answer that is judged as a whole is one segment, longer than a policy's may be
    segment_tokens: int = Field(Decoding.model_fields["segment_tokens"].default, ge=1)
    monitor: bool = Field(False, description="decide as always, and let everything through")
    stretch: bool = Field(False, description="let a segment run past B tokens where it would be cut in a tool call")

    def changed(self, **changes: Any) -> Self:
        """The same with other values.

        Raises:
            ValidationError: there is no such field, or the value is out of its limits.
        """
        return type(self)(**{**dict(self), **changes})
