"""The arguments of a tool call, one text at a time, with what each is called."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stars_guard.core.messages import ToolCall
from stars_guard.core.nesting import is_too_deep
from stars_guard.parsing.shell_arguments import like

__all__ = ["Argument", "arguments_of"]


@dataclass(frozen=True, slots=True)
class Argument:
    """One text in the arguments of a call.

    Attributes:
        tool: the tool's name; empty where the call is a text that shows no call.
        name: the key that is nearest to the text, without an index.
        path: all keys that lead to it, with dots between them.
        text: the value. A list of words, as in ``argv``, is a text too: a command line.
    """

    tool: str
    name: str
    path: str
    text: str = field(repr=False)

    def is_in(self, arguments: Sequence[str]) -> bool:
        """Whether one of the globs names the argument: its name, its path, or ``tool.path``, in any case."""
        names = (self.name.lower(), self.path.lower(), f"{self.tool}.{self.path}".lower())
        return not self.tool or any(like(name, arguments) for name in names)


def arguments_of(calls: Sequence[ToolCall], tools: Sequence[str] = ("*",)) -> Iterator[Argument]:
    """Every text in the calls' arguments, and in JSON that is written in them.

    Args:
        tools: globs of the tools that matter. A call without a name always does.
    """
    for call in calls:
        if not call.name or like(call.name, tools):
            for name, path, text in _texts(call.arguments, "", ""):
                yield Argument(call.name, name, path, text)


def _texts(value: Any, name: str, path: str) -> Iterator[tuple[str, str, str]]:
    match value:
        case str():
            yield name, path, value
            if value.lstrip()[:1] in ("{", "[") and (inner := _parsed(value)) is not None:
                yield from _texts(inner, name, path)
        case Mapping():
            for key, item in value.items():
                yield from _texts(item, str(key).partition("[")[0], f"{path}.{key}".lstrip("."))
        case list() | tuple():
            if value and all(isinstance(item, str | int | float) for item in value):
                yield name, path, shlex.join(map(str, value))
            for item in value:
                if not isinstance(item, str) or name not in _WORD_BY_WORD:
                    yield from _texts(item, name, path)
        case None | bool():
            pass
        case _:
            yield name, path, str(value)


_WORD_BY_WORD = frozenset({"argv", "args", "cmd", "command", "command_line"})
"""Lists under these names are one command, and no command a word."""


def _parsed(text: str) -> Any:
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, Mapping | list) and not is_too_deep(value) else None
