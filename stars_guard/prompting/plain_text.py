"""Conversations with tool calls as plain text, for judges, records and chat templates that know no tools."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace

from stars_guard.core.messages import Message, ToolCall

__all__ = ["as_text", "call_text", "merged", "one_call_a_turn", "text_of", "without_system"]


def call_text(call: ToolCall) -> str:
    """A call as JSON."""
    return json.dumps({"name": call.name, "arguments": dict(call.arguments)}, ensure_ascii=False)


def text_of(message: Message) -> str:
    """All that a message says: its content, and its calls between ``<tool_call>`` markers."""
    calls = [f"<tool_call>[{', '.join(map(call_text, message.tool_calls))}]</tool_call>"] if message.tool_calls else []
    return "\n".join([*([message.content] if message.content or not calls else []), *calls])


def as_text(messages: Iterable[Message]) -> list[Message]:
    """The same conversation with the roles system, user and assistant only.

    Results of tools are what a user says, between ``<tool_response>`` markers; those of one turn become one message.
    """
    turns: list[Message] = []
    follows = False
    for message in messages:
        if message.role != "tool":
            turns.append(Message(message.role, text_of(message)))
        else:
            text = f"<tool_response>\n{message.content}\n</tool_response>"
            if follows:
                text = f"{turns.pop().content}\n{text}"
            turns.append(Message("user", text))
        follows = message.role == "tool"
    return turns


def merged(messages: Iterable[Message]) -> list[Message]:
    """The same conversation with one message for the messages of a user that follow each other."""
    turns: list[Message] = []
    for message in messages:
        if turns and turns[-1].role == message.role == "user":
            message = replace(message, content=f"{turns.pop().content}\n\n{message.content}")
        turns.append(message)
    return turns


def without_system(messages: Sequence[Message]) -> list[Message]:
    """The same conversation with a system message that comes first at the front of what the user says first."""
    if not messages or messages[0].role != "system":
        return list(messages)
    system, *turns = messages
    for number, turn in enumerate(turns):
        if turn.role == "user":
            turns[number] = replace(turn, content=f"{system.content}\n\n{turn.content}")
            return turns
    return [Message("user", system.content), *turns]


def one_call_a_turn(messages: Sequence[Message]) -> list[Message]:
    """The same conversation with each call in a turn of its own, before its result: some templates take no other."""
    results = {message.tool_call_id: message for message in messages if message.role == "tool"}
    turns: list[Message] = []
    for message in messages:
        if len(message.tool_calls) > 1:
            for number, call in enumerate(message.tool_calls):
                turns.append(replace(message, content="" if number else message.content, tool_calls=(call,)))
                turns += [results.pop(call.id)] if call.id in results else []
        elif message.role != "tool" or message.tool_call_id in results:
            turns.append(message)
    return turns
