"""LangChain messages to ours, and events to message chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata

from stars_guard.core.events import Finished
from stars_guard.core.messages import Message, ToolCall
from stars_guard.core.vocabulary import Role
from stars_guard.errors import InputError

__all__ = ["metadata_of", "to_messages", "usage_of"]


def to_messages(messages: Sequence[BaseMessage]) -> list[Message]:
    """Messages whose content is plain text, with tool calls.

    Raises:
        InputError: no messages, a role that the model does not have, or content that is not text.
    """
    if not messages:
        raise InputError("there are no messages", hint="pass at least one message")
    names: dict[str, str] = {}
    return [_message(message, names) for message in messages]


def _message(message: BaseMessage, names: dict[str, str]) -> Message:
    """``names``: those of the tools called so far, by the call's id."""
    role, text = _role(message), _text(message)
    if isinstance(message, ToolMessage):
        name = message.name or names.get(message.tool_call_id, "")
        return Message(role, text, tool_call_id=message.tool_call_id, name=name)
    if not isinstance(message, AIMessage):
        return Message(role, text)
    calls = tuple(
        ToolCall(id=call["id"] or "", name=call["name"], arguments=call["args"]) for call in message.tool_calls
    )
    names.update((call.id, call.name) for call in calls)
    return Message(role, text, tool_calls=calls)


def _role(message: BaseMessage) -> Role:
    match message:
        case HumanMessage():
            return "user"
        case SystemMessage():
            return "system"
        case AIMessage():
            return "assistant"
        case ToolMessage():
            return "tool"
        case _:
            raise InputError(f"unknown message role {message.type!r}", hint="use system, human, ai and tool messages")


def _text(message: BaseMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    parts = []
    for block in message.content:
        if isinstance(block, str):
            parts.append(block)
        elif block.get("type") == "text":
            parts.append(str(block.get("text", "")))
        elif block.get("type") not in _PASSED_OVER:
            raise InputError(f"cannot read content of type {block.get('type')!r}", hint="send text only")
    return "".join(parts)


# refusals and reasoning are no part of the answer; calls are read from ``tool_calls``
_PASSED_OVER = ("refusal", "tool_use", "reasoning", "tool_call", "invalid_tool_call", "tool_call_chunk")


def usage_of(done: Finished) -> UsageMetadata:
    """Tokens of the prompt and tokens kept."""
    totals = done.totals
    return UsageMetadata(
        input_tokens=totals.prompt, output_tokens=totals.kept, total_tokens=totals.prompt + totals.kept
    )


def metadata_of(done: Finished, model: str) -> dict[str, Any]:
    """``response_metadata``: why the answer ended, what it cost, where its record is."""
    return {
        "model_name": model,
        "model_provider": "stars-guard",
        "finish_reason": "tool_calls" if done.tool_calls and done.finish in ("eos", "stop") else done.finish,
        "stars_guard": {
            "audit_id": done.call_id,
            "policy": done.policy,
            "policy_sha256": done.policy_sha256,
            "drawn": done.totals.drawn,
            "kept": done.totals.kept,
            "rejected": done.totals.rejected,
            "rejections": done.totals.rejections,
            "proposals": done.totals.proposals,
            "seed": str(done.seed),
            "reason": done.reason,
        },
    }
