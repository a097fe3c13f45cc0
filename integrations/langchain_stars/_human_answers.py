"""What a person says about calls that wait for approval, in the form of LangChain's human-in-the-loop middleware.

The answer comes from outside: from a page, a chat or another program. It is read strictly, and whatever isn't
understood counts as a rejection.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from stars_guard.core.vocabulary import HumanDecision

__all__ = ["Said", "said_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What was said about one call.

    Attributes:
        decision: None where the answer isn't understood. ``problem`` then says why, without its text.
        action: the name and the arguments of an edited call.
        message: why a call is rejected, or what stands for its tool's result.
        by: who decided, as the app says.
    """

    decision: HumanDecision | None
    action: tuple[str, dict[str, Any]] | None = field(default=None, repr=False)
    message: str = field(default="", repr=False)
    by: str | None = field(default=None, repr=False)
    problem: str = ""


def said_of(answer: Any, *, count: int, allowed: Collection[HumanDecision]) -> list[Said]:
    """What the value that a run is resumed with says about each call.

    ``{"decisions": [...]}`` has one decision for each call, in their order. ``decided_by`` beside the list, or in a
    decision, names who decided.

    Args:
        count: how many calls were asked about.
        allowed: the decisions that the policy allows.
    """
    try:
        read = _ANSWER.validate_python(answer)
    except ValidationError:
        return [_not_understood("the answer is not a list of decisions")] * count
    if len(read.decisions) != count:
        return [
            _not_understood(f"there are {len(read.decisions)} decisions for {count} calls", read.decided_by)
        ] * count
    return [_one(decision, allowed, read.decided_by) for decision in read.decisions]


def _one(decision: Any, allowed: Collection[HumanDecision], by: str | None) -> Said:
    try:
        read = _DECISION.validate_python(decision)
    except ValidationError:
        return _not_understood("the decision is not understood", by)
    by = read.decided_by or by
    if read.type not in allowed:
        return _not_understood(f"the policy does not allow the decision {read.type}", by)
    match read:
        case _Edit():
            action = (read.edited_action.name, read.edited_action.args)
            return Said(decision="edit", action=action, by=by)
        case _Approve():
            return Said(decision="approve", by=by)
        case _:
            return Said(decision=read.type, message=read.message or "", by=by)


def _not_understood(problem: str, by: str | None = None) -> Said:
    return Said(decision=None, problem=problem, by=by)


def _json(args: dict[str, Any]) -> dict[str, Any]:
    """The arguments as JSON holds them: other objects could change after they have been judged."""
    try:
        copied = json.loads(json.dumps(args, allow_nan=False))
    except (TypeError, RecursionError) as exc:
        raise ValueError("the arguments are not JSON") from exc
    if copied != args:  # JSON writes every key as a text
        raise ValueError("the arguments are not JSON")
    return dict(copied)


def _name(name: str) -> str:
    if not name.isprintable():
        raise ValueError("a name holds a character that is not printed")
    return name


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


_By = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_name)] | None


class _Action(_Strict):
    name: str
    args: Annotated[dict[str, Any], AfterValidator(_json)]


class _Decided(_Strict):
    decided_by: _By = None


class _Approve(_Decided):
    type: Literal["approve"]


class _Edit(_Decided):
    type: Literal["edit"]
    edited_action: _Action


class _Reject(_Decided):
    type: Literal["reject"]
    message: str | None = None


class _Respond(_Decided):
    type: Literal["respond"]
    message: str


class _Answer(_Decided):
    # a decision that isn't understood rejects its own call alone, so each is read for itself
    decisions: list[Any]


_ANSWER: TypeAdapter[_Answer] = TypeAdapter(_Answer)
_DECISION: TypeAdapter[_Approve | _Edit | _Reject | _Respond] = TypeAdapter(
    Annotated[_Approve | _Edit | _Reject | _Respond, Field(discriminator="type")]
)
