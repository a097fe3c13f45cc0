"""The conversation: messages, and the tool calls in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, get_args

from stars_guard.core.arguments import chosen, has_lone_surrogate, text
from stars_guard.core.nesting import MOST_NESTED, is_too_deep
from stars_guard.core.vocabulary import Role
from stars_guard.errors import InputError

__all__ = ["InvalidCall", "Message", "ToolCall"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call that the model wrote: the tool's name, and arguments that are JSON values. Its result has the same ``id``.

    Raises:
        InputError: a field is of another type, nests too deep, or holds half a character.
    """

    id: str
    name: str
    arguments: Mapping[str, Any] = field(repr=False)

    def __post_init__(self) -> None:
        text("a tool call's id", self.id)
        text("a tool call's name", self.name)
        if not isinstance(self.arguments, Mapping):
            raise InputError(
                f"a tool call's arguments are of the type {type(self.arguments).__name__}", hint="pass a dict"
            )
        if has_lone_surrogate(self.arguments):
            raise InputError("a tool call's arguments hold a lone surrogate", hint="decode them with errors='replace'")
        if is_too_deep(self.arguments):
            raise InputError("a tool call's arguments are nested too deeply", hint=f"at most {MOST_NESTED} levels fit")


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidCall:
    """Text that starts like a tool call but can't be parsed.

    ``arguments`` is the text as written, markers and all. ``error`` says what is wrong, and holds none of it. ``name``
    is None where the text doesn't say which tool it is for.
    """

    id: str
    name: str | None
    arguments: str = field(repr=False)
    error: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation. Its text never becomes control tokens, that in the calls' arguments included.

    Attributes:
        content: plain text; of a ``tool`` message the tool's result.
        tool_calls: what an ``assistant`` message calls.
        tool_call_id: which call a ``tool`` message answers; ``name`` is its tool.

    Raises:
        InputError: the role is unknown, or a text is no string or holds half a character (a lone surrogate).
    """

    role: Role
    content: str = field(repr=False)
    _: KW_ONLY
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        chosen("the role of a message", self.role, get_args(Role))
        text(f"the content of a {self.role} message", self.content)
        text("the tool_call_id of a message", self.tool_call_id)
        text("the name of a message", self.name)
        for call in self.tool_calls:
            if not isinstance(call, ToolCall):
                raise InputError(f"a message's tool call is of the type {type(call).__name__}", hint="pass a ToolCall")
