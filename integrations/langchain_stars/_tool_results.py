"""What a tool gave back, with everything in it judged: messages, artifacts, and what else it puts into the state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolCall, ToolMessage
from langgraph.types import Command

from langchain_stars._conversation import withheld_result
from langchain_stars._reading import read
from langchain_stars._trust import remember
from langchain_stars._unjudged import check_reading
from langchain_stars._waiting import Waiting
from langchain_stars._withheld_marks import about_call_not_run
from stars_guard.calling.checks import Checked
from stars_guard.core.messages import Message
from stars_guard.core.vocabulary import ApprovalOutcome
from stars_guard.guard import Guard

__all__ = ["answered_by_person", "call_not_run", "judged_result"]

Judge = Callable[[Any], Awaitable[Checked]]


async def judged_result(
    waiting: Waiting,
    guard: Guard,
    call: ToolCall,
    result: Any,
    *,
    messages: Sequence[Message] = (),
    run_id: str | None = None,
) -> Any:
    """The same result without what the policy's rail for tool results rejects.

    A rejected message becomes a note or its redacted copy. A `Command` that puts anything else that is rejected into
    the state becomes a note as a whole. What passes is the same object in the result.

    Args:
        call: what the tool was called with.
        result: a message, a `Command` that updates the state, or a list of them.
        messages: the conversation before the result.
    """

    async def judge(value: Any) -> Checked:
        return await check_reading(waiting, guard, "tool_result", value, messages=messages, run_id=run_id)

    if isinstance(result, list | tuple):
        parts = [await judged_result(waiting, guard, call, part, messages=messages, run_id=run_id) for part in result]
        if all(new is old for new, old in zip(parts, result, strict=True)):
            return result
        return tuple(parts) if isinstance(result, tuple) else parts
    if not isinstance(result, BaseMessage) and not (checked := await judge(_without_messages(result))).allowed:
        return _note(guard, call, None, checked)
    return await _Messages(guard, call, judge).judged(result)


class _Messages:
    """Judges the messages that are somewhere in a result."""

    def __init__(self, guard: Guard, call: ToolCall, judge: Judge) -> None:
        self._guard = guard
        self._call = call
        self._judge = judge

    async def judged(self, result: Any) -> Any:
        match result:
            case BaseMessage():
                return await self._message(result)
            case Command():
                changed = {}
                for field in fields(result):
                    value = getattr(result, field.name)
                    if (new := await self.judged(value)) is not value:
                        changed[field.name] = new
                return replace(result, **changed) if changed else result
            case Mapping():
                items = {key: await self.judged(value) for key, value in result.items()}
                return items if any(items[key] is not value for key, value in result.items()) else result
            case list() | tuple():
                values = [await self.judged(value) for value in result]
                if all(new is old for new, old in zip(values, result, strict=True)):
                    return result
                return tuple(values) if type(result) is tuple else values
            case _:
                return result

    async def _message(self, message: BaseMessage) -> BaseMessage:
        message = await self._with_judged_artifact(message)
        checked = await self._judge(_without_artifact(message))
        if checked.allowed:
            remember(message, self._guard.policy)
            return message
        if checked.text:
            redacted = _rebuilt(message, self._call, checked.text, _about(checked))
            # what has other forms than its text must have none of them left that is rejected
            if not read(redacted).forms or (await self._judge(redacted)).allowed:
                remember(redacted, self._guard.policy)
                return redacted
        return _note(self._guard, self._call, message, checked)

    async def _with_judged_artifact(self, message: BaseMessage) -> BaseMessage:
        """The message without its artifact, if that is rejected or cannot be read."""
        artifact = getattr(message, "artifact", None)
        if artifact is None or (await self._judge(artifact)).allowed:
            return message
        return message.model_copy(update={"artifact": None})


def call_not_run(guard: Guard, call: ToolCall, checked: Checked) -> ToolMessage:
    """What the model reads instead of the result of a call that was rejected."""
    reason = f"({checked.reason}). {checked.message}" if checked.message else f"({checked.reason})."
    message = ToolMessage(
        content=f"The tool was not run: policy {guard.policy.name!r} does not allow this call {reason}",
        tool_call_id=str(call["id"]),
        name=call["name"],
        status="error",
        response_metadata=about_call_not_run(checked),
    )
    remember(message, guard.policy)
    return message


def answered_by_person(
    guard: Guard, call: ToolCall, checked: Checked, message: str, outcome: ApprovalOutcome
) -> ToolMessage:
    """What the model reads instead of the result of a call that a person has rejected, or answered.

    A person's own words are judged before the model reads them, as all that comes from outside is.
    """
    if outcome == "responded":
        text = message
    elif message:
        text = f"The tool was not run: a person rejected this call: {message}"
    else:
        text = "The tool was not run: a person rejected this call. Don't make it again unless you are asked to."
    answer = ToolMessage(
        content=text,
        tool_call_id=str(call["id"]),
        name=call["name"],
        status="success" if outcome == "responded" else "error",
        response_metadata=about_call_not_run(checked),
    )
    if not message:
        remember(answer, guard.policy)
    return answer


def _without_messages(value: Any) -> Any:
    """What a result holds beside messages; None where that is nothing."""
    match value:
        case BaseMessage():
            return None
        case Command():
            parts = [_without_messages(getattr(value, field.name)) for field in fields(value)]
            return [part for part in parts if part is not None] or None
        case Mapping():
            items = {key: kept for key, item in value.items() if (kept := _without_messages(item)) is not None}
            return items or None
        case list() | tuple():
            return [kept for item in value if (kept := _without_messages(item)) is not None] or None
        case _:
            return value


def _without_artifact(message: BaseMessage) -> BaseMessage:
    return message if getattr(message, "artifact", None) is None else message.model_copy(update={"artifact": None})


def _note(guard: Guard, call: ToolCall, message: BaseMessage | None, checked: Checked) -> BaseMessage:
    """What the model reads in the place of a message, or of a whole result."""
    note = _rebuilt(message, call, withheld_result(guard, checked.reason), _about(checked))
    remember(note, guard.policy)
    return note


def _rebuilt(message: BaseMessage | None, call: ToolCall, text: str, about: dict[str, Any]) -> BaseMessage:
    """A message of the same kind that holds a text and nothing of the message."""
    match message:
        case ToolMessage() | None:
            status = message.status if message is not None else "success"
            return ToolMessage(
                text, tool_call_id=str(call["id"]), name=call["name"], status=status, response_metadata=about
            )
        case AIMessage():
            return AIMessage(text, response_metadata=about)
        case SystemMessage():
            return SystemMessage(text, response_metadata=about)
        case _:
            return HumanMessage(text, response_metadata=about)


def _about(checked: Checked) -> dict[str, Any]:
    return {"stars_guard": {"audit_id": checked.audit_id, "reason": checked.reason}}
