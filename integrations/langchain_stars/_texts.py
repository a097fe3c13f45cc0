"""The one place that turns LangChain's messages and values into the texts that judges read.

It also makes the messages that stand for what was rejected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolCall
from langchain_core.prompt_values import PromptValue
from pydantic import BaseModel

from stars_guard.core.messages import Message
from stars_guard.errors import InputError
from stars_guard.guard import Guard
from stars_guard.prompting.call_rendering import render_call

__all__ = [
    "last_turn",
    "message_of_refusal",
    "messages_of",
    "text_of",
    "text_of_call",
    "text_of_message",
    "texts_of_calls",
    "transcript",
]


def text_of_message(message: BaseMessage) -> str:
    """All that a reader may see of a message: its text and its reasoning. Pictures and sound are not judged."""
    if isinstance(message.content, str) and "reasoning_content" not in message.additional_kwargs:
        return message.content
    parts = []
    for block in message.content_blocks:
        match block["type"]:
            case "text" | "reasoning" | "refusal" as kind:
                parts.append(str(block.get(kind) or ""))  # the text's key is the block's type
            case "non_standard":
                parts.append(text_of(block.get("value")))
            case _:
                pass
    return "\n".join(part for part in parts if part)


def text_of_call(call: ToolCall) -> str:
    """A tool call: its name, and a line for each value of its arguments."""
    return render_call(call["name"], call["args"])


def texts_of_calls(answer: Any) -> list[str]:
    """The tool calls of an answer, if it is a message."""
    return [text_of_call(call) for call in answer.tool_calls] if isinstance(answer, AIMessage) else []


def text_of(value: Any) -> str:
    """The text of what goes into or comes out of a runnable; of a mapping or a model, a line for each value.

    Raises:
        InputError: the value is of a kind whose text we do not know.
    """
    match value:
        case str():
            return value
        case BaseMessage():
            return text_of_message(value)
        case PromptValue():
            return text_of(value.to_messages())
        case BaseModel():
            return text_of(value.model_dump(mode="json"))
        case Mapping() | bool() | int() | float() | None:
            return render_call("", value).strip()
        case list() | tuple():
            return "\n".join(text_of(item) for item in value)
        case _:
            raise InputError(
                f"cannot judge a value of type {type(value).__name__}", hint="give text=, a function to its text"
            )


def messages_of(value: Any) -> list[Message]:
    """A runnable's input as a conversation."""
    if isinstance(value, PromptValue):
        value = value.to_messages()
    if isinstance(value, list) and value and all(isinstance(item, BaseMessage) for item in value):
        return transcript(value)
    return [Message("user", text_of(value))]


def transcript(messages: Sequence[BaseMessage]) -> list[Message]:
    """The conversation as judges read it. A tool's result counts as the user's text, because it came from outside."""
    found = []
    for message in messages:
        if text := text_of_message(message):
            match message:
                case AIMessage():
                    found.append(Message("assistant", text))
                case SystemMessage():
                    found.append(Message("system", text))
                case _:
                    found.append(Message("user", text))
    return found


def message_of_refusal(guard: Guard, reason: str, audit_id: str | None, *, id: str | None = None) -> AIMessage:  # noqa: A002
    """The policy's refusal, as `ChatStars` gives it."""
    policy = guard.policy
    return AIMessage(
        content=[{"type": "refusal", "refusal": policy.refusal.message, "reason": reason}],
        response_metadata={
            "model_provider": "stars-guard",
            "finish_reason": "refused",
            "stars_guard": {
                "audit_id": audit_id,
                "policy": policy.name,
                "policy_sha256": policy.sha256,
                "reason": reason,
            },
        },
        id=id,
    )


def last_turn(messages: Sequence[BaseMessage]) -> int:
    """Index of the first message of the turn that the user has just taken."""
    start = len(messages)
    while start and isinstance(messages[start - 1], HumanMessage):
        start -= 1
    return start
