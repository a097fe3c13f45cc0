"""What a policy says of the stages of an app around the answer: what comes in, tools, and what goes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from stars_guard.core.nearest import did_you_mean
from stars_guard.core.vocabulary import RuleAction, Stage
from stars_guard.policy._approval import Approval
from stars_guard.policy._doubt import check_doubt
from stars_guard.policy._judges import JudgeSpec
from stars_guard.rules import Budget, Price, RuleSet, ToolRule
from stars_guard.scorers.options import Strict, no_twins

__all__ = ["Rail", "Rails", "ToolCallRail", "ToolResultRail"]


class Rail(Strict):
    """Judges of one stage. Each sees a text whole, and vetoes it or lets it pass."""

    judges: tuple[JudgeSpec, ...] = Field((), strict=False, description="they can only veto")

    @field_validator("judges")
    @classmethod
    def _only_veto(cls, judges: tuple[JudgeSpec, ...]) -> tuple[JudgeSpec, ...]:
        no_twins("judges", [judge.name for judge in judges])
        for judge in judges:
            if judge.own_answers_only:
                raise ValueError(
                    f"judge {judge.name!r}: a judge of type {judge.type} can't judge a text that the generator did not "
                    "write; it belongs to the policy's judges and not in a rail"
                )
            if judge.weight is not None or (judge.reject_above is None and judge.ask_above is None):
                raise ValueError(f"judge {judge.name!r}: judges of a rail only veto: give reject_above and no weight")
            if judge.every != 1:
                raise ValueError(f"judge {judge.name!r}: a rail judges each text once and whole: leave out every")
        check_doubt(judges)
        return judges


class ToolCallRail(Rail):
    """Judges and rules of what a tool is called with, before it runs.

    Every rule is looked at, and the strictest that applies decides: reject, then ask, then allow. Budgets count as
    rules. Where none applies, ``default`` decides. A judge's veto rejects whatever the rules say.
    """

    rules: tuple[ToolRule, ...] = Field((), strict=False, description="which calls run, are asked about or rejected")
    default: RuleAction = Field("allow", description="what happens to a call that no rule and no budget applies to")
    vars: Mapping[Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$")], JsonValue] = Field(
        {}, description="values that conditions read as vars.name"
    )
    trust: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = Field(
        (),
        strict=False,
        description="globs of tools whose results count as the user's own data: origin() of a value that they hold is "
        "`user`, unless an untrusted result or the model had it first",
    )
    approval: Approval = Field(Approval(), description="how a person is asked about the calls that a rule asks about")
    budgets: tuple[Budget, ...] = Field((), strict=False, description="what a run may use")
    cost: Mapping[str, Price] = Field(
        {},
        description="what a call of a tool costs, by globs; the highest that matches counts. A text is a number in CEL "
        "that reads the call's args, such as args.amount",
    )

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        no_twins("rules or budgets", [part.name for part in (*self.rules, *self.budgets)])
        return self

    @model_validator(mode="after")
    def _variables_exist(self) -> Self:
        problems: list[InitErrorDetails] = []
        for index, rule in enumerate(self.rules):
            for name in rule.variables - {*self.vars}:
                known = f"there are {', '.join(self.vars)}" if self.vars else "the policy has no vars"
                meant = did_you_mean(name, self.vars, known, form="`vars.{}`")
                text = PydanticCustomError(
                    "variable", "unknown name `vars.{name}`; {meant}", {"name": name, "meant": meant}
                )
                problems.append(InitErrorDetails(type=text, loc=("rules", index, "when"), input=None))
        if problems:
            raise ValidationError.from_exception_data("ToolCallRail", problems)
        return self

    def compiled(self) -> RuleSet:
        """The rules, ready to decide. Keep them: compiling takes longer than deciding."""
        return RuleSet(
            self.rules,
            budgets=self.budgets,
            default=self.default,
            variables=self.vars,
            cost=self.cost,
            trust=self.trust,
        )

    @property
    def is_used(self) -> bool:
        """Whether anything has a say about tool calls by themselves."""
        return bool(self.judges) or self.has_rules

    @property
    def has_rules(self) -> bool:
        """Whether rules have a say."""
        return bool(self.rules or self.budgets) or self.default != "allow"

    @property
    def needs_facts(self) -> bool:
        """Whether more than a call's text decides about it: the agent's tools, the run so far, a person."""
        return self.has_rules or self.may_ask

    @property
    def may_ask(self) -> bool:
        """Whether a person may be asked about a call."""
        actions = (self.default, *(rule.action for rule in self.rules), *(one.action for one in self.budgets))
        return "ask" in actions or any(judge.ask_above is not None for judge in self.judges)


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
    tool_call: ToolCallRail = Field(
        ToolCallRail(), description="a tool's name and arguments; vetoed or rejected, the tool does not run"
    )
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
