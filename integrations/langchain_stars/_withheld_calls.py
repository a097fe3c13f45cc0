"""Tool calls of another's model that the policy does not allow.

A call that the rail for tool calls rejects stays in the answer, because the model must learn why its tool was not
run. Its arguments do not stay: nobody sees them, and no tool gets them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

from langchain.agents.middleware.types import ModelResponse
from langchain_core.messages import AIMessage, BaseMessage, ToolCall

from langchain_stars._block_keys import is_usual
from langchain_stars._call_decisions import CallDecisions
from langchain_stars._model_answers import Answer
from langchain_stars._unjudged import check_reading
from langchain_stars._waiting import Waiting
from langchain_stars._withheld_marks import withheld_args
from stars_guard.guard import Guard

__all__ = ["with_calls", "without_rejected_calls"]

_PLAIN_ID = re.compile("call[-_][A-Za-z0-9]{1,8}")
"""An id that says nothing, so that nobody has to judge it."""


async def without_rejected_calls(
    waiting: Waiting, guard: Guard, answer: Answer, *, decisions: CallDecisions, tools: Collection[str]
) -> Answer:
    """The answer without the arguments of the calls that ``rails.tool_call`` rejects.

    Args:
        decisions: about the calls of the answer.
        tools: the names of the agent's tools, which are the program's own words.
    """
    if not isinstance(answer, ModelResponse) or answer.structured_response is not None:
        return answer
    result: list[BaseMessage] = []
    for message in answer.result:
        if isinstance(message, AIMessage) and message.tool_calls and message.id is None:
            message.id = f"stars-guard-{uuid4()}"  # what is decided about a call is remembered with its message
        stubs: dict[int, ToolCall] = {}
        earlier: list[tuple[ToolCall, bool]] = []
        for index, call in enumerate(message.tool_calls if isinstance(message, AIMessage) else ()):
            checked = await decisions.of(call, message.id, earlier=earlier)
            earlier.append((call, checked.action == "reject"))
            if checked.action != "reject":
                continue
            stub: ToolCall = {**call, "args": withheld_args(checked)}
            # the id, and a name that is no tool's, are the model's own words too, and may be what was rejected
            if call["name"] not in tools:
                stub |= {"name": "withheld", "id": f"withheld-{index}"}
            elif not await _may_stay(waiting, guard, str(call["id"])):
                digest = hashlib.sha256(str(call["id"]).encode(errors="replace")).hexdigest()
                stub["id"] = f"withheld-{index}-{digest[:12]}"
            stubs[index] = stub
        result.append(with_calls(message, stubs) if isinstance(message, AIMessage) and stubs else message)
    return replace(answer, result=result)


async def _may_stay(waiting: Waiting, guard: Guard, call_id: str) -> bool:
    if is_usual(call_id) or _PLAIN_ID.fullmatch(call_id):
        return True
    return (await check_reading(waiting, guard, "tool_call", call_id)).allowed


def with_calls(message: AIMessage, changed: Mapping[int, ToolCall]) -> AIMessage:
    """The message with other calls at some indexes, and without what providers write beside its text: the old calls."""
    calls = [changed.get(index, call) for index, call in enumerate(message.tool_calls)]
    content: Any = message.content
    if isinstance(content, list):
        content = [block for block in content if isinstance(block, str) or block.get("type") in ("text", "reasoning")]
    kwargs = {name: value for name, value in message.additional_kwargs.items() if name not in _RAW_CALLS}
    return message.model_copy(update={"content": content, "additional_kwargs": kwargs, "tool_calls": calls})


_RAW_CALLS = ("tool_calls", "function_call")
