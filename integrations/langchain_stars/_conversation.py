"""The conversation around a text, as judges read it, and the message that ends it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from langchain_stars._messages import refusal_content
from langchain_stars._plain import Unreadable, plain
from langchain_stars._reading import read, words_of
from langchain_stars._trust import remember
from stars_guard.core.messages import Message
from stars_guard.guard import Guard

__all__ = [
    "REMOVED",
    "last_turn",
    "message_of_refusal",
    "messages_in_state",
    "messages_of",
    "transcript",
    "withheld_result",
    "words",
]

REMOVED = "[removed by policy]"
"""What stands in the place of a message that was rejected."""


def withheld_result(guard: Guard, reason: str) -> str:
    """What the model reads in the place of a tool's result that was rejected."""
    return f"[The tool's result was withheld by policy {guard.policy.name!r}: {reason}]"


def messages_of(value: Any) -> list[Message]:
    """A runnable's input as a conversation: its messages or, if it has no messages, its text as the user's.

    Raises:
        Unreadable: the text of something in it is unknown.
    """
    if messages := list(_messages_in(plain(value))):
        return transcript(messages)
    return [Message("user", read(value).text)]


def transcript(messages: Sequence[BaseMessage]) -> list[Message]:
    """The conversation as judges read it. A tool's result counts as the user's text, because it came from outside.

    It has one message at least, which is empty where nothing was said.
    """
    found = []
    for message in messages:
        if text := words(message):
            match message:
                case AIMessage():
                    found.append(Message("assistant", text))
                case SystemMessage():
                    found.append(Message("system", text))
                case _:
                    found.append(Message("user", text))
    return found or [Message("user", "")]


def messages_in_state(state: Any) -> Sequence[BaseMessage]:
    """The messages of an agent's state, whatever class it is of."""
    found: Sequence[BaseMessage] = (
        state.get("messages", []) if isinstance(state, Mapping) else getattr(state, "messages", [])
    )
    return found


def message_of_refusal(
    guard: Guard,
    reason: str,
    audit_id: str | None,
    *,
    said: str = "",
    id: str | None = None,  # noqa: A002
) -> AIMessage:
    """The policy's refusal, as `ChatStars` gives it.

    Args:
        said: the policy's text in the reader's language. The default is its first.
    """
    policy = guard.policy
    refusal = AIMessage(
        content=refusal_content(said or policy.refusal.messages[0], reason),
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
    remember(refusal, policy)
    return refusal


def last_turn(messages: Sequence[BaseMessage]) -> int:
    """Index of the first message of the turn that the user has just taken."""
    start = len(messages)
    while start and isinstance(messages[start - 1], HumanMessage):
        start -= 1
    return start


def words(message: BaseMessage) -> str:
    """What a message says; nothing where that can't be read."""
    try:
        return words_of(message)
    except Unreadable:
        return ""  # where it was new it was rejected; here it is context alone


def _messages_in(tree: Any) -> Iterator[BaseMessage]:
    match tree:
        case BaseMessage():
            yield tree
        case Mapping():
            for item in tree.values():
                yield from _messages_in(item)
        case list():
            for item in tree:
                yield from _messages_in(item)
