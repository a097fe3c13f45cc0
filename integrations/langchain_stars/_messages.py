"""LangChain messages to ours, and events to message chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from langchain_stars._tool_binding import call_chunks, calls_of, invalid_calls_of
from langchain_stars._trust import remember_answer
from stars_guard.core.events import Called, Event, Finished, Released
from stars_guard.core.messages import Message, ToolCall
from stars_guard.core.vocabulary import Role
from stars_guard.errors import InputError
from stars_guard.guard import Guard

__all__ = ["chunk_of", "result_of", "to_messages"]


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


def result_of(guard: Guard, done: Finished) -> ChatResult:
    """The answer of a call."""
    message = AIMessage(
        content=_content(guard, done, done.text),
        tool_calls=calls_of(done),
        invalid_tool_calls=invalid_calls_of(done),
        usage_metadata=_usage(done),
        response_metadata=_metadata(guard, done),
    )
    remember_answer(message, guard.policy, done.call_id)
    return ChatResult(generations=[ChatGeneration(message=message)])


def chunk_of(guard: Guard, event: Event, *, beside_blocks: bool) -> ChatGenerationChunk | None:
    """What a stream gives at an event, or None where it gives nothing. The chunks add up to `result_of`.

    Args:
        beside_blocks: the text comes in content blocks; see `call_chunks`.
    """
    match event:
        case Released(text=text):
            return ChatGenerationChunk(message=AIMessageChunk(content=text))
        case Called():
            chunks = call_chunks(event, beside_blocks=beside_blocks)
            return ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=chunks))
        case Finished():
            result_of(guard, event)  # takes note of the answer that the chunks add up to
            return ChatGenerationChunk(
                message=AIMessageChunk(
                    content=_content(guard, event, ""),
                    usage_metadata=_usage(event),
                    response_metadata=_metadata(guard, event),
                    chunk_position="last",
                )
            )
        case _:
            return None


def _content(guard: Guard, done: Finished, text: str) -> Any:
    """The text; with a refusal, blocks: what was released and then the policy's refusal message."""
    if done.finish != "refused":
        return text
    refusal = {"type": "refusal", "refusal": guard.policy.refusal.message, "reason": done.reason}
    return [{"type": "text", "text": text}, refusal] if text else [refusal]


def _usage(done: Finished) -> UsageMetadata:
    """Tokens of the prompt and tokens kept."""
    totals = done.totals
    return UsageMetadata(
        input_tokens=totals.prompt, output_tokens=totals.kept, total_tokens=totals.prompt + totals.kept
    )


def _metadata(guard: Guard, done: Finished) -> dict[str, Any]:
    """``response_metadata``: why the answer ended, what it cost, where its record is."""
    return {
        "model_name": guard.model_name,
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
