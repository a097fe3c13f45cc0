"""Tools and schemas as LangChain gives them, and calls as it takes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import InvalidToolCall, ToolCall, ToolCallChunk

from langchain_stars._schemas import described_tool
from stars_guard.core.events import Called, Finished
from stars_guard.core.grammar import Grammar
from stars_guard.core.schemas import self_contained
from stars_guard.core.tools import Tool, Toolset
from stars_guard.errors import InputError

__all__ = ["bound_tools", "call_chunks", "calls_of", "grammar_of", "invalid_calls_of", "toolset_of"]


def bound_tools(
    tools: Sequence[Any], tool_choice: Any, *, strict: bool | None, parallel: bool | None
) -> dict[str, Any]:
    """What `bind_tools` binds.

    Raises:
        InputError: something is not a tool that we can describe, or the choice names none of them.
    """
    formatted = [described_tool(tool, strict=strict) for tool in tools]
    names = [_function(tool)["name"] for tool in formatted]
    chosen = _Choice.of(tool_choice)
    chosen.check(names)
    bound: dict[str, Any] = {"tools": formatted}
    if chosen.kind != "auto":
        bound["tool_choice"] = tool_choice if isinstance(tool_choice, Mapping) else chosen.kind or chosen.names[0]
    if parallel is not None:
        bound["parallel_tool_calls"] = parallel
    return bound


@dataclass(frozen=True, slots=True)
class _Choice:
    """Which tools must be called.

    Attributes:
        kind: ``auto``, ``required`` or ``none``; empty where tools are named.
        names: of the tools of which one must be called.
        parallel: whether there may be several calls, as far as the choice says so.
    """

    kind: str
    names: tuple[str, ...] = ()
    parallel: bool = True

    @classmethod
    def of(cls, given: Any) -> _Choice:
        """From any of the forms that providers have for it.

        Raises:
            InputError: it has none of these forms.
        """
        match given:
            case None | False | "":
                return cls("auto")
            case True:
                return cls("required")
            case "any" | "required":
                return cls("required")
            case str():
                return cls(given) if given in ("auto", "none") else cls("", (given,))
            case {"function": {"name": str(name)}} | {"tool": {"name": str(name)}}:
                return cls("", (name,))
            case {"type": "allowed_tools"}:
                return cls._allowed(given.get("allowed_tools", given))
            case {"type": "auto" | "any" | "required" | "none" as kind}:
                return replace(cls.of(kind), parallel=not given.get("disable_parallel_tool_use"))
            case {"name": str(name)}:
                return cls("", (name,), not given.get("disable_parallel_tool_use"))
            case {"auto": _} | {"any": _} | {"none": _} if len(given) == 1:
                return cls.of(next(iter(given)))
        raise InputError("tool_choice is not understood", hint="use auto, any, none or a tool's name")

    @classmethod
    def _allowed(cls, given: Mapping[str, Any]) -> _Choice:
        names = tuple(_name_in(tool) for tool in given.get("tools") or ())
        if given.get("mode") == "required" and names:
            return cls("", names)
        raise InputError("tool_choice lets the model choose among some tools", hint="bind only these tools")

    def check(self, names: Sequence[str]) -> None:
        """See that the choice can be made.

        Raises:
            InputError: there is no such tool, or none at all.
        """
        there = f"there are {', '.join(names)}" if names else "no tools are given"
        for name in self.names:
            if name not in names:
                raise InputError(f"no tool is named {name}", hint=there)
        if self.kind == "required" and not names:
            raise InputError("tool_choice says that a tool must be called", hint=there)


def _name_in(tool: Any) -> str:
    match tool:
        case {"function": {"name": str(name)}} | {"name": str(name)}:
            return name
        case _:
            raise InputError("tool_choice is not understood", hint="use auto, any, none or a tool's name")


def toolset_of(given: Mapping[str, Any]) -> Toolset | None:
    """The tools of a call, from its keyword arguments, or None where the model gets no tools.

    Raises:
        InputError: a tool or the choice cannot be used.
    """
    choice = _Choice.of(given.get("tool_choice"))
    functions = [_function(tool) for tool in given.get("tools") or ()]
    choice.check([function["name"] for function in functions])
    if not functions or choice.kind == "none":
        return None
    tools = tuple(
        Tool(
            name=function["name"],
            description=function.get("description", ""),
            parameters=self_contained(function.get("parameters") or _NOTHING),
        )
        for function in functions
    )
    return Toolset(
        tools,
        forced=tuple(tool.name for tool in tools) if choice.kind == "required" else choice.names,
        parallel=given.get("parallel_tool_calls") is not False and choice.parallel,
        strict=bool(given.get("strict")) or any(function.get("strict") for function in functions),
    )


_NOTHING: Mapping[str, Any] = {"type": "object", "properties": {}}


def _function(tool: Any) -> Mapping[str, Any]:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or "name" not in function:
        raise InputError(
            "a tool is not a function", hint="tools that run at a provider aren't supported; give functions"
        )
    return function


def grammar_of(given: Mapping[str, Any]) -> Grammar | None:
    """What the answer must look like: ``response_format`` in OpenAI's form, or a ``grammar``.

    Raises:
        InputError: the format is not known.
    """
    if isinstance(grammar := given.get("grammar"), Grammar):
        return grammar
    match given.get("response_format"):
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return Grammar.json_schema({"type": "object"})
        case {"type": "json_schema", "json_schema": {"schema": Mapping() as schema}}:
            return Grammar.json_schema(schema)
        case _:
            raise InputError("response_format is not understood", hint="use json_schema or json_object")


def calls_of(done: Finished) -> list[ToolCall]:
    """The calls that the caller may make."""
    return [ToolCall(name=c.name, args=dict(c.arguments), id=c.id, type="tool_call") for c in done.tool_calls]


def invalid_calls_of(done: Finished) -> list[InvalidToolCall]:
    """The texts that start like a call but cannot be parsed."""
    return [
        InvalidToolCall(name=c.name, args=c.arguments, id=c.id, error=c.error, type="invalid_tool_call")
        for c in done.invalid_tool_calls
    ]


def call_chunks(event: Called, *, beside_blocks: bool) -> list[ToolCallChunk]:
    """Judged calls as chunks, one for each call. Merged, they are the calls of `calls_of`.

    Args:
        beside_blocks: the text comes in content blocks. LangChain numbers these from 0 too, and would merge a block
            and a call of equal number.
    """
    first = event.index + (1000 if beside_blocks else 0)
    chunks = [(c.id, c.name, json.dumps(dict(c.arguments), ensure_ascii=False)) for c in event.tool_calls]
    chunks += [(c.id, c.name or "", c.arguments) for c in event.invalid_tool_calls]
    return [
        ToolCallChunk(name=name, args=args, id=call_id, index=first + i, type="tool_call_chunk")
        for i, (call_id, name, args) in enumerate(chunks)
    ]
