"""What an agent gives its caller at the end, judged whoever put it there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, RemoveMessage, ToolMessage
from langgraph.graph.message import REMOVE_ALL_MESSAGES

from langchain_stars._block_keys import is_usual
from langchain_stars._conversation import message_of_refusal, transcript, withheld_result
from langchain_stars._reading import read
from langchain_stars._trust import remember, was_judged
from langchain_stars._unjudged import check_reading, removed, unjudged_in
from langchain_stars._waiting import Waiting
from stars_guard.calling.checks import Checked
from stars_guard.guard import Guard

__all__ = ["judged_end"]


async def judged_end(
    waiting: Waiting, guard: Guard, state: Mapping[str, Any], *, by: str = ""
) -> dict[str, Any] | None:
    """Judge the messages that a state ends with, all others that no rail has seen, and its structured response.

    Args:
        by: the middleware, where an agent has several.

    Returns:
        None, or the update that puts the refusal in their place.
    """
    messages: Sequence[BaseMessage] = state["messages"]
    start = _end(guard, messages)
    if (update := await _judged_before(waiting, guard, state, start, by)) is not None:
        return update
    structured = state.get("structured_response")
    values = [*messages[start:], *([] if structured is None else [structured])]
    if not values or _is_refusal(guard, values):
        return None
    checked = await check_reading(waiting, guard, "output", values, messages=transcript(messages[:start]))
    if checked.allowed:
        for message in messages[start:]:
            remember(message, guard.policy)
        return None
    kept = messages[start:] if start < len(messages) and isinstance(messages[-1], ToolMessage) else []
    notes = [_note(guard, message, checked.reason) for message in kept]
    last = None if kept or start == len(messages) else messages[-1].id
    cleared = {"structured_response": None} if structured is not None else {}
    refusal = message_of_refusal(guard, checked.reason, checked.audit_id, said=checked.refusal, id=last)
    if all(is_usual(message.id or "") for message in messages[start:]):
        return {"messages": [*notes, refusal], **cleared}
    whole = [RemoveMessage(id=REMOVE_ALL_MESSAGES), *messages[:start], *notes, refusal]
    return {"messages": [*whole[:-1], refusal.model_copy(update={"id": None})], **cleared}


async def _judged_before(
    waiting: Waiting, guard: Guard, state: Mapping[str, Any], start: int, by: str
) -> dict[str, Any] | None:
    """Judge what other middleware has put before the answer, or changed there, since the last model call.

    Returns:
        None, or the update that takes the answer and all that is rejected out and ends with the refusal.
    """
    messages: Sequence[BaseMessage] = state["messages"]
    rejected: dict[int, Checked] = {}
    for index in unjudged_in(guard, state, before=start, by=by) if guard.policy.rails.output.judges else ():
        checked = await check_reading(waiting, guard, "output", messages[index], messages=transcript(messages[:index]))
        if checked.allowed:
            remember(messages[index], guard.policy)
        else:
            rejected[index] = checked
    if not rejected:
        return None
    first = next(iter(rejected.values()))
    refusal = message_of_refusal(guard, first.reason, first.audit_id, said=first.refusal)
    kept = [
        _in_place_of(guard, message, rejected[index].reason) if index in rejected else message
        for index, message in enumerate(messages[:start])
    ]
    cleared = {"structured_response": None} if state.get("structured_response") is not None else {}
    return {"messages": [RemoveMessage(id=REMOVE_ALL_MESSAGES), *kept, refusal], **cleared}


def _in_place_of(guard: Guard, message: BaseMessage, reason: str) -> BaseMessage:
    if isinstance(message, ToolMessage):
        return _note(guard, message, reason)
    return removed(guard)


def _end(guard: Guard, messages: Sequence[BaseMessage]) -> int:
    """Index of the first of the messages that are the answer: the last one, or the results of tools after the last
    answer of the model. A user's message that has passed its rail is no answer."""
    start = len(messages)
    if not messages or (isinstance(messages[-1], HumanMessage) and was_judged(messages[-1], guard.policy)):
        return start
    if not isinstance(messages[-1], ToolMessage):
        return start - 1
    while start and isinstance(messages[start - 1], ToolMessage):
        start -= 1
    return start


def _is_refusal(guard: Guard, values: Sequence[Any]) -> bool:
    """Whether the answer is the policy's own refusal, which no judge needs to see."""
    if len(values) != 1 or not isinstance(values[0], AIMessage):
        return False
    message = values[0]
    kinds = [block.get("type") for block in message.content if isinstance(block, dict)]
    if "refusal" in kinds and message.text in guard.policy.refusal.messages:
        return was_judged(message, guard.policy)
    reading = read(message)
    return reading.text in guard.policy.refusal.messages and not reading.forms


def _note(guard: Guard, message: BaseMessage, reason: str) -> BaseMessage:
    assert isinstance(message, ToolMessage)  # noqa: S101
    id = message.id if is_usual(message.id or "") else None  # noqa: A001
    note = ToolMessage(
        withheld_result(guard, reason),
        tool_call_id=message.tool_call_id,
        id=id,
        status=message.status,
    )
    remember(note, guard.policy)
    return note
