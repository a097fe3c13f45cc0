"""What a policy says of the stages of an app around the answer: what comes in, tools, and what goes out."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from stars_guard.core.vocabulary import Stage
from stars_guard.policy._judges import JudgeSpec
from stars_guard.scorers.options import Strict, no_twins

__all__ = ["Rail", "Rails", "ToolResultRail"]


class Rail(Strict):
    """Judges of one stage. Each sees a text whole, and vetoes it or lets it pass."""

    judges: tuple[JudgeSpec, ...] = Field((), strict=False)

    @field_validator("judges")
    @classmethod
    def _only_veto(cls, judges: tuple[JudgeSpec, ...]) -> tuple[JudgeSpec, ...]:
        no_twins("judges", [judge.name for judge in judges])
        for judge in judges:
            if judge.weight is not None or (judge.reject_above is None and judge.ask_above is None):
                raise ValueError(f"judge {judge.name!r}: judges of a rail only veto: give reject_above and no weight")
            if judge.every != 1:
                raise ValueError(f"judge {judge.name!r}: a rail judges each text once and whole: leave out every")
        return judges


class ToolResultRail(Rail):
    """Judges of what a tool gave back, before the model reads it."""

    action: Literal["replace", "redact"] = Field(
        "replace",
        description="replace: a note stands for the whole result; redact: marks stand for what was found, where the "
        "judge can say where it is",
    )


class Rails(Strict):
    """Judges of the stages around the answer. A stage without judges is not looked at."""

    input: Rail = Field(Rail(), description="what the user says; vetoed, the answer is the refusal")
    tool_call: Rail = Field(Rail(), description="a tool's name and arguments; vetoed, the tool does not run")
    tool_result: ToolResultRail = Field(ToolResultRail(), description="what a tool gave back")
    output: Rail = Field(Rail(), description="every answer, besides the policy's judges, whoever wrote it")

    @model_validator(mode="after")
    def _only_calls_are_asked_about(self) -> Self:
        for stage, rail in self.items():
            if stage != "tool_call" and any(judge.ask_above is not None for judge in rail.judges):
                raise ValueError("ask_above: a person can be asked about tool calls alone, so give it in tool_call")
        return self

    def items(self) -> list[tuple[Stage, Rail]]:
        """Each stage and its rail."""
        return [(stage, getattr(self, stage)) for stage in get_args(Stage)]
