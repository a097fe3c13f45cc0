"""Tool calls of another's model that the policy does not allow.

A call that the rail for tool calls rejects stays in the answer, because the model must learn why its tool was not
run. Its arguments do not stay: nobody sees them, and no tool gets them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain.agents.middleware.types import ModelResponse
from langchain_core.messages import AIMessage, BaseMessage, ToolCall

from langchain_stars._block_keys import is_usual
from langchain_stars._model_answers import Answer
from langchain_stars._reading import reading_of_call
from langchain_stars._trust import remember_call
from langchain_stars._unjudged import check_reading
from langchain_stars._waiting import Waiting
from stars_guard.calling.checks import Checked
from stars_guard.core.messages import Message
from stars_guard.guard import Guard

__all__ = ["reason_to_withhold", "without_rejected_calls"]

_REASON, _RECORD = "withheld_by_policy", "audit_id"
_PLAIN_ID = re.compile("call[-_][A-Za-z0-9]{1,8}")
"""An id that says nothing, so that it need not be judged."""


async def without_rejected_calls(
    waiting: Waiting, guard: Guard, answer: Answer, *, messages: Sequence[Message], tools: Collection[str]
) -> Answer:
    """The answer without the arguments of the calls that ``rails.tool_call`` rejects.

    Args:
        messages: the conversation before the answer.
        tools: the names of the agent's tools, which are the program's own words.
    """
    if not isinstance(answer, ModelResponse) or answer.structured_response is not None:
        return answer
    result: list[BaseMessage] = []
    for message in answer.result:
        stubs: dict[int, dict[str, Any]] = {}
        for index, call in enumerate(message.tool_calls if isinstance(message, AIMessage) else ()):
            checked = await check_reading(waiting, guard, "tool_call", call, reader=reading_of_call, messages=messages)
            if checked.allowed:
                remember_call(call, guard.policy)
                continue
            stubs[index] = stub = {**call, "args": {_REASON: checked.reason, _RECORD: checked.audit_id}}
            # the id, and a name that is no tool's, are the model's own words too, and may be what was rejected
            if call["name"] not in tools:
                stub |= {"name": "withheld", "id": f"withheld-{index}"}
            elif not await _may_stay(waiting, guard, str(call["id"])):
                digest = hashlib.sha256(str(call["id"]).encode(errors="replace")).hexdigest()
                stub["id"] = f"withheld-{index}-{digest[:12]}"
        result.append(_withheld(message, stubs) if isinstance(message, AIMessage) and stubs else message)
    return replace(answer, result=result)


async def _may_stay(waiting: Waiting, guard: Guard, call_id: str) -> bool:
    if is_usual(call_id) or _PLAIN_ID.fullmatch(call_id):
        return True
    return (await check_reading(waiting, guard, "tool_call", call_id)).allowed


def reason_to_withhold(call: ToolCall) -> Checked | None:
    """Why a call's arguments were taken out of an answer, or None where they were not."""
    reason = call["args"].get(_REASON) if isinstance(call["args"], Mapping) else None
    if not isinstance(reason, str):
        return None
    audit_id = call["args"].get(_RECORD)
    return Checked(stage="tool_call", allowed=False, text="", reason=reason, audit_id=audit_id and str(audit_id))


def _withheld(message: AIMessage, stubs: Mapping[int, dict[str, Any]]) -> AIMessage:
    calls = [stubs.get(index, call) for index, call in enumerate(message.tool_calls)]
    # what providers write there beside the text is the calls once more
    content: Any = message.content
    if isinstance(content, list):
        content = [block for block in content if isinstance(block, str) or block.get("type") in ("text", "reasoning")]
    kwargs = {name: value for name, value in message.additional_kwargs.items() if name not in _RAW_CALLS}
    return message.model_copy(update={"content": content, "additional_kwargs": kwargs, "tool_calls": calls})


_RAW_CALLS = ("tool_calls", "function_call")
