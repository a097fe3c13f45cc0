"""What a tool gave back, with every message in it judged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from langchain_core.messages import ToolCall, ToolMessage
from langgraph.types import Command

from stars_guard.calling.checks import Checked
from stars_guard.guard import Guard

__all__ = ["call_not_run", "judged_result", "message_after"]


async def judged_result(result: Any, judge: Callable[[ToolMessage], Awaitable[ToolMessage]]) -> Any:
    """The same result, with what ``judge`` makes of each tool message in it.

    Args:
        result: a message, a `Command` that updates the state, or any nesting of lists and mappings of them. What has
            not changed is the same object in the result.
    """
    match result:
        case ToolMessage():
            return await judge(result)
        case Command():
            update = await judged_result(result.update, judge)
            return result if update is result.update else replace(result, update=update)
        case Mapping():
            items = {key: await judged_result(value, judge) for key, value in result.items()}
            return items if any(items[key] is not value for key, value in result.items()) else result
        case list() | tuple():
            values = [await judged_result(value, judge) for value in result]
            if all(new is old for new, old in zip(values, result, strict=True)):
                return result
            return tuple(values) if isinstance(result, tuple) else values
        case _:
            return result


def message_after(guard: Guard, message: ToolMessage, checked: Checked) -> ToolMessage:
    """The message that the model may read: the same, a redacted copy, or a note in its place."""
    if checked.allowed:
        return message
    note = f"[The tool's result was withheld by policy {guard.policy.name!r}: {checked.reason}]"
    about = {**message.response_metadata, "stars_guard": {"audit_id": checked.audit_id, "reason": checked.reason}}
    return message.model_copy(
        update={"content": checked.text or note, "artifact": None, "response_metadata": about},
    )


def call_not_run(guard: Guard, call: ToolCall, checked: Checked) -> ToolMessage:
    """What the model reads instead of the result of a call that was rejected."""
    return ToolMessage(
        content=f"The tool was not run: policy {guard.policy.name!r} does not allow this call ({checked.reason}).",
        tool_call_id=str(call["id"]),
        name=call["name"],
        status="error",
        response_metadata={"stars_guard": {"audit_id": checked.audit_id, "reason": checked.reason}},
    )
