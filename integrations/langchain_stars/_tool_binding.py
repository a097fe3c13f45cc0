"""Tools and schemas as LangChain gives them, and calls as it takes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import InvalidToolCall, ToolCall, ToolCallChunk
from langchain_core.utils.function_calling import convert_to_openai_tool

from stars_guard.core.events import Called, Finished
from stars_guard.core.grammar import Grammar
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
    formatted = [convert_to_openai_tool(tool, strict=strict) for tool in tools]
    chosen = _choice(tool_choice)
    bound: dict[str, Any] = {"tools": formatted}
    if chosen != "auto":
        bound["tool_choice"] = chosen
    if parallel is not None:
        bound["parallel_tool_calls"] = parallel
    names = [_function(tool)["name"] for tool in formatted]
    if chosen not in ("auto", "required", "none", *names):
        raise InputError(f"no tool is named {chosen}", hint=f"there are {', '.join(names)}")
    return bound


def _choice(given: Any) -> str:
    if isinstance(given, Mapping):
        given = given.get("function", given).get("name")
    if given is True or given in ("any", "required"):
        return "required"
    if not given:
        return "auto"
    if not isinstance(given, str):
        raise InputError("tool_choice is not understood", hint="use auto, any, none or a tool's name")
    return given


def toolset_of(given: Mapping[str, Any]) -> Toolset | None:
    """The tools of a call, from its keyword arguments, or None where the model gets no tools.

    Raises:
        InputError: a tool or the choice cannot be used.
    """
    choice = _choice(given.get("tool_choice"))
    functions = [_function(tool) for tool in given.get("tools") or ()]
    if not functions or choice == "none":
        return None
    tools = tuple(
        Tool(
            name=function["name"],
            description=function.get("description", ""),
            parameters=function.get("parameters") or _NOTHING,
        )
        for function in functions
    )
    forced = {"auto": (), "required": tuple(tool.name for tool in tools)}.get(choice, (choice,))
    return Toolset(
        tools,
        forced=forced,
        parallel=given.get("parallel_tool_calls") is not False,
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
