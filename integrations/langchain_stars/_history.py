"""A conversation of LangChain's, which any provider may have been part of, as the messages that a model is sent.

What is sent is what the rails judge. A block that has text is sent as text. A block with none for the model (reasoning,
what a provider did on its own, cache points) is passed over, and a picture, sound or file is an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

from stars_guard.core.messages import Message, ToolCall
from stars_guard.core.nesting import read_json
from stars_guard.core.vocabulary import Role
from stars_guard.errors import InputError

__all__ = ["to_messages"]

_ROLES: Mapping[str, Role] = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
}
"""The roles that a `ChatMessage` may name."""

_MEDIA = ("image", "audio", "video", "file", "document", "media", "pdf", "picture", "inline_data", "inlinedata")
"""What the type or the key of a block names that holds something besides text."""

_NO_TEXT = (
    "thinking",
    "reasoning",
    "thought",
    "tool",
    "function_call",
    "functioncall",
    "executable_code",
    "executablecode",
    "code_execution",
    "codeexecution",
    "code_interpreter",
    "computer_call",
    "search_call",
    "shell_call",
    "mcp_",
    "cache",
    "compaction",
    "context_management",
    "signature",
    "summary",
    "refusal",
)
"""What the type or the key of a block names that holds nothing for the model. Calls are read from ``tool_calls``."""

_RESULTS = ("tool_result", "toolresult", "function_call_output", "custom_tool_call_output", "function_response")
"""Results of tools that the app ran, as some providers write them into the user's message. They hold text."""


def to_messages(messages: Sequence[BaseMessage]) -> list[Message]:
    """The messages as the model gets them, with tool calls.

    Raises:
        InputError: there are no messages, a role is unknown, or a message holds something besides text.
    """
    calls = _Calls()
    found = [
        _message(message, index, calls)
        for index, message in enumerate(messages)
        if not isinstance(message, RemoveMessage)
    ]
    if not found:
        raise InputError("there are no messages", hint="pass at least one message")
    return found


class _Calls:
    """The tools called so far."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        """By the call's id."""
        self._functions: dict[str, str] = {}

    def of(self, message: AIMessage) -> tuple[ToolCall, ...]:
        """The calls of a message; also the one call of OpenAI's first form, which has no id."""
        calls = tuple(
            ToolCall(id=call["id"] or "", name=call["name"], arguments=call["args"]) for call in message.tool_calls
        )
        match message.additional_kwargs.get("function_call"):
            case {"name": str(name), **rest} if not calls:
                self._functions[name] = f"function_call_{len(self.names)}"
                arguments = _arguments(rest.get("arguments"))
                calls = (ToolCall(id=self._functions[name], name=name, arguments=arguments),)
        self.names.update((call.id, call.name) for call in calls)
        return calls

    def id_of(self, function: str) -> str:
        """The id of the last call of a function that was called without one."""
        return self._functions.get(function, "")


def _arguments(written: Any) -> dict[str, Any]:
    try:
        read = read_json(written) if isinstance(written, str) else written
    except ValueError:
        return {}
    return dict(read) if isinstance(read, Mapping) else {}


def _message(message: BaseMessage, index: int, calls: _Calls) -> Message:
    role, text = _role(message, index), _Content(message, index).text
    match message:
        case ToolMessage():
            name = message.name or calls.names.get(message.tool_call_id, "")
            return Message(role, text, tool_call_id=message.tool_call_id, name=name)
        case FunctionMessage():
            return Message(role, text, tool_call_id=calls.id_of(message.name), name=message.name)
        case AIMessage():
            return Message(role, text, tool_calls=calls.of(message))
        case _:
            called = getattr(message, "tool_call_id", "") if role == "tool" else ""
            return Message(role, text, tool_call_id=str(called), name=(message.name or "") if role == "tool" else "")


def _role(message: BaseMessage, index: int) -> Role:
    match message:
        case HumanMessage():
            return "user"
        case SystemMessage():
            return "system"
        case AIMessage():
            return "assistant"
        case ToolMessage() | FunctionMessage():
            return "tool"
        case ChatMessage() if (role := _ROLES.get(message.role.strip().lower())) is not None:
            return role
        case _:
            unknown = message.role if isinstance(message, ChatMessage) else message.type
            raise InputError(
                f"message {index} has the unknown role {unknown!r}", hint="use system, human, ai and tool messages"
            )


class _Content:
    """The text of one message's content.

    Attributes:
        text: what the model is sent.
    """

    def __init__(self, message: BaseMessage, index: int) -> None:
        self._index = index
        # a model writes kinds of blocks that nobody here knows; what a caller sends is never dropped unseen
        self._passes_unknown = isinstance(message, AIMessage)
        self._refusals: list[str] = []
        self.text = self._of(message.content) or "".join(self._refusals)

    def _of(self, content: Any) -> str:
        match content:
            case None:
                return ""
            case str():
                return content
            case Mapping():
                return self._block(content)
            case Sequence():
                return "".join(self._of(item) for item in content)
            case _:
                return str(content)

    def _block(self, block: Mapping[str, Any]) -> str:
        """Its text, or nothing where it has none for the model.

        Raises:
            InputError: it holds something besides text.
        """
        kind = block.get("type")
        names = _names(block)
        if kind == "non_standard":
            return self._non_standard(block.get("value"))
        if kind == "refusal":
            self._refusals.append(str(block.get("refusal") or ""))
            return ""
        if any(name in _RESULTS for name in names):
            return self._result(block)
        if block.get("thought") is True or (kind and _any_of(_NO_TEXT, names)):
            return ""
        match block:
            case {"text": str(text)} | {"text": {"text": str(text)} | {"value": str(text)}}:
                return text
            case {"guardContent": {"text": {"text": str(text)}}} | {"source": {"type": "text", "data": str(text)}}:
                return text
            case {"source": {"type": "content", "content": inner}}:
                return self._of(inner)
            case {"json": value}:
                return json.dumps(value, ensure_ascii=False, default=str)
        if _any_of(_MEDIA, names) and not _any_of(_NO_TEXT, names):
            raise self._unreadable(block)
        match block.get("content"):
            case (str() | list()) as inner if kind:
                return self._of(inner)
        if self._passes_unknown or _any_of(_NO_TEXT, names):
            return ""
        raise self._unreadable(block)

    def _non_standard(self, value: Any) -> str:
        """What another provider's block says in text. What it says otherwise is that provider's, except media."""
        if not isinstance(value, Mapping):
            return self._of(value) if isinstance(value, str | list) else ""
        try:
            return self._block(value)
        except InputError:
            if _any_of(_MEDIA, _names(value)):
                raise
            return ""

    def _result(self, block: Mapping[str, Any]) -> str:
        for key in ("content", "output", "response", "toolResult", "functionResponse", "function_response"):
            match block.get(key):
                case None:
                    continue
                case str() | list() as inner:
                    return self._of(inner)
                case Mapping() as inner:
                    return self._result(inner) or json.dumps(inner, ensure_ascii=False, default=str)
        return ""

    def _unreadable(self, block: Mapping[str, Any]) -> InputError:
        kind = block.get("type")
        named = repr(kind) if kind else f"with the keys {', '.join(map(str, block))}"
        return InputError(
            f"message {self._index} holds a content block {named}, which the model cannot read",
            hint="send text, or leave the block out",
        )


def _names(block: Mapping[str, Any]) -> list[str]:
    """Its type, or its keys where it has none, as Bedrock and Gemini write blocks."""
    kind = block.get("type")
    names = [kind] if isinstance(kind, str) and kind else list(block)
    return [str(name).lower().replace("-", "_") for name in names]


def _any_of(parts: Sequence[str], names: Sequence[str]) -> bool:
    return any(part in name for part in parts for name in names)
