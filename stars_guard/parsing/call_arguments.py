"""The arguments of a tool call, one text at a time, with what each is called."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from stars_guard.core.messages import ToolCall
from stars_guard.core.nesting import is_too_deep
from stars_guard.parsing.shell_arguments import like
from stars_guard.parsing.word_lists import word_list

__all__ = ["Argument", "arguments_of", "words_of_name"]


@dataclass(frozen=True, slots=True, kw_only=True)
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
        """Whether one of the globs names the argument: its name, its path, or ``tool.path``, in any case.

        ``websiteUrl`` and ``website-url`` are ``website_url`` too.
        """
        if not self.tool:
            return True
        names = (self.name, self.path, f"{self.tool}.{self.path}")
        return any(like(name.lower(), arguments) or like(_snake(name), arguments) for name in names)


_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@lru_cache(4096)
def _snake(name: str) -> str:
    return _HUMPS.sub("_", name).replace("-", "_").lower()


def words_of_name(name: str) -> frozenset[str]:
    """The words that a tool's or an argument's name is made of, in lower case."""
    return frozenset(re.findall(r"[a-z]+", _snake(name)))


def arguments_of(calls: Sequence[ToolCall], tools: Sequence[str] = ("*",)) -> Iterator[Argument]:
    """Every text in the calls' arguments, in JSON that is written in them, and in keys that are no plain names.

    Args:
        tools: globs of the tools that matter. A call without a name always does.
    """
    for call in calls:
        if not call.name or like(call.name, tools):
            for name, path, text in _texts(call.arguments, "", ""):
                yield Argument(tool=call.name, name=name, path=path, text=text)
            yield from _with_the_tool(call)


_PROGRAMS = word_list("call_arguments.programs")
_OPERANDS = word_list("call_arguments.operands")
_PLAIN_KEY = re.compile(r"[\w.\[\]$@-]*")


def _texts(value: Any, name: str, path: str) -> Iterator[tuple[str, str, str]]:
    match value:
        case str():
            yield name, path, value
            if value.lstrip()[:1] in ("{", "[") and (inner := _parsed(value)) is not None:
                yield from _texts(inner, name, path)
        case Mapping():
            for key, item in value.items():
                if not _PLAIN_KEY.fullmatch(str(key)):
                    yield name, path, str(key)
                if name in _ENVIRONMENTS and isinstance(item, str):
                    yield "command", f"{path}.command", f"{key}={shlex.quote(item)} true"
                yield from _texts(item, str(key).partition("[")[0], f"{path}.{key}".lstrip("."))
            yield from _with_its_operands(value, path)
        case list() | tuple():
            is_plain = bool(value) and all(isinstance(item, str | int | float) for item in value)
            is_line = is_plain and (len(value) == 1 or _is_program(str(value[0])))
            if is_line:
                yield name, path, shlex.join(map(str, value))
            is_one_command = is_line and name in _WORD_BY_WORD and _is_program(str(value[0]))
            for item in value:
                if not is_one_command:
                    yield from _texts(item, name, path)
        case None | bool():
            pass
        case _:
            yield name, path, str(value)


_ENVIRONMENTS = frozenset({"env", "environment", "envs", "env_vars", "environment_variables"})
"""What sets variables for a command, some of which change which code runs."""

_WORD_BY_WORD = frozenset({"argv", "args", "cmd", "command", "command_line"})
"""Lists under these names are one command, and no command a word, where the first item can be a program's name."""


def _is_program(text: str) -> bool:
    return not re.search(r"[\s;|&<>`$(){}]", text)


def _with_its_operands(value: Mapping[Any, Any], path: str) -> Iterator[tuple[str, str, str]]:
    """The command line that a program and its operands are, which stand beside each other: command and args."""
    by_name = {str(key).lower(): item for key, item in value.items()}
    for name in _PROGRAMS:
        program = by_name.get(name)
        if isinstance(program, str) and program.strip():
            lines = (_line(by_name[one]) for one in _OPERANDS if by_name.get(one))
            yield from (("command", f"{path}.command".lstrip("."), f"{program} {line}") for line in lines if line)


def _with_the_tool(call: ToolCall) -> Iterator[Argument]:
    """The command line of a tool that is named like the program which it runs."""
    for key, item in call.arguments.items():
        if str(key).lower() in _OPERANDS and (line := _line(item)):
            name = "command_of_tool"
            yield Argument(tool=call.name, name=name, path=name, text=f"{call.name} {line}")


def _line(operands: Any) -> str:
    if isinstance(operands, str):
        return operands
    if isinstance(operands, list | tuple) and all(isinstance(item, str | int | float) for item in operands):
        return shlex.join(map(str, operands))
    return ""


def _parsed(text: str) -> Any:
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, Mapping | list) and not is_too_deep(value) else None
