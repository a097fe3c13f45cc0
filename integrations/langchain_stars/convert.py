"""LangChain messages to ours, and events to message chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.messages.ai import UsageMetadata

from stars_guard.errors import InputError
from stars_guard.events import Finished
from stars_guard.segments import Message, Role

__all__ = ["metadata_of", "to_messages", "usage_of"]


def to_messages(messages: Sequence[BaseMessage]) -> list[Message]:
    """Plain text messages.

    Raises:
        InputError: no messages, a role that the model does not have, or content that is not text.
    """
    if not messages:
        raise InputError("there are no messages", hint="pass at least one message")
    return [Message(_role(message), _text(message)) for message in messages]


def _role(message: BaseMessage) -> Role:
    match message:
        case HumanMessage():
            return "user"
        case SystemMessage():
            return "system"
        case AIMessage():
            return "assistant"
        case _:
            raise InputError(f"unknown message role {message.type!r}", hint="use system, human and ai messages")


def _text(message: BaseMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    parts = []
    for block in message.content:
        if isinstance(block, str):
            parts.append(block)
        elif block.get("type") == "text":
            parts.append(str(block.get("text", "")))
        elif block.get("type") not in ("refusal", "tool_use", "reasoning"):
            raise InputError(f"cannot read content of type {block.get('type')!r}", hint="send text only")
    return "".join(parts)


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
        "finish_reason": done.finish,
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
