"""What a policy says about tool calls: rules, budgets, and what happens where neither says anything."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, field_validator, model_validator

from stars_guard.concealing.printable import PrintableModel
from stars_guard.core.vocabulary import RuleAction
from stars_guard.rules._condition import Amount, Condition

__all__ = ["Budget", "Price", "ToolRule"]


def _is_an_amount(text: str) -> str:
    Amount(text)  # raises a ValueError for what isn't one
    return text


Price = (
    Annotated[float, Field(ge=0)] | Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_is_an_amount)]
)
"""What a call costs: a number, or one in CEL that reads the call's arguments."""

Glob = Annotated[str, Field(min_length=1, max_length=256)]
Globs = Annotated[tuple[Glob, ...], Field(min_length=1, strict=False)]

_NAME = re.compile(r"[^\s\x00-\x1f]([^\x00-\x1f]*[^\s\x00-\x1f])?")


class _Part(PrintableModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True, hide_input_in_errors=True)

    name: str = Field(min_length=1, max_length=128, description="unique among rules and budgets; the record names it")

    @field_validator("name")
    @classmethod
    def _is_a_line(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("should be one line without spaces around it")
        return name


class ToolRule(_Part):
    """One rule. It fires where a glob matches the tool's name and the condition is true, or can't be evaluated.

    A condition that can't be evaluated counts as true for ``reject`` and ``ask``, and as false for ``allow``.
    """

    tools: Globs = Field(("*",), description="globs of names of tools: * stands for any characters, ? for one")
    when: str | None = Field(
        None, min_length=1, max_length=4096, description="a condition in CEL; without one the rule fires at every call"
    )
    action: RuleAction = Field(description="allow: the tool runs; ask: a person decides; reject: it doesn't run")
    message: str = Field("", max_length=1024, description="what the model and the person who decides read")
    optional: bool = Field(
        False, description="the globs may match no tool of the agent, as in a policy that many agents share"
    )

    @field_validator("when")
    @classmethod
    def _compiles(cls, when: str | None) -> str | None:
        if when is not None:
            Condition(when)  # raises a ValueError for what isn't one
        return when

    @property
    def variables(self) -> frozenset[str]:
        """Names of the policy's ``vars`` that the condition reads."""
        paths = Condition(self.when).paths if self.when is not None else ()
        return frozenset(str(path[1]) for path in paths if path[0] == "vars" and len(path) > 1)


class Budget(_Part):
    """A limit on what a run may use. A call that would go beyond it is rejected, or a person is asked."""

    tools: Globs = Field(("*",), description="the tools whose calls are counted and limited")
    calls: int | None = Field(None, ge=0, description="calls of these tools together")
    calls_each: int | None = Field(None, ge=0, description="calls of each of these tools")
    tokens: int | None = Field(None, ge=0, description="tokens of the run; beyond them these tools are limited")
    seconds: float | None = Field(None, ge=0, description="seconds of the run; beyond them these tools are limited")
    cost: float | None = Field(None, ge=0, description="cost of the calls of these tools, in the unit of `cost`")
    action: Literal["ask", "reject"] = Field("reject", description="what happens to a call beyond it")
    message: str = Field("", max_length=1024, description="what the model and the person who decides read")
    optional: bool = Field(False, description="the globs may match no tool of the agent")

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if all(value is None for value in (self.calls, self.calls_each, self.tokens, self.seconds, self.cost)):
            raise ValueError("give calls, calls_each, tokens, seconds or cost")
        return self
