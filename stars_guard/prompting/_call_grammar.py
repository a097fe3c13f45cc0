"""Parts of a structural tag, by which an engine makes a model write a valid tool call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stars_guard.core.grammar import json_format
from stars_guard.core.tools import Tool

__all__ = ["call_format", "either", "row"]


def row(*parts: Any) -> dict[str, Any]:
    """Parts one after the other; a string stands for itself."""
    return {
        "type": "sequence",
        "elements": [{"type": "const_string", "value": part} if isinstance(part, str) else part for part in parts],
    }


def either(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """One of the parts."""
    return {"type": "or", "elements": parts} if len(parts) > 1 else parts[0]


def call_format(tools: Sequence[Tool], key: str) -> dict[str, Any]:
    """A JSON object with the name of one of the tools, and its arguments under ``key``."""
    schemas = [_schema(tool, key) for tool in tools]
    whole = {"anyOf": schemas} if len(schemas) > 1 else schemas[0]
    definitions = {tool.name: _moved(defs, tool.name) for tool in tools if (defs := tool.parameters.get("$defs"))}
    return json_format({**whole, "$defs": definitions} if definitions else whole)


def _schema(tool: Tool, key: str) -> dict[str, Any]:
    parameters = {name: value for name, value in tool.parameters.items() if name != "$defs"}
    arguments = {"type": "object", **_moved(parameters, tool.name)}
    if not arguments.get("properties"):
        arguments.setdefault("additionalProperties", False)
    properties = {"name": {"const": tool.name}, key: arguments}
    return {"type": "object", "properties": properties, "required": ["name", key], "additionalProperties": False}


def _moved(schema: Any, name: str) -> Any:
    """The schema with references to where a tool's definitions will be: at the root, under the tool's name."""
    if isinstance(schema, Mapping):
        return {
            key: f"#/$defs/{name}/{value.removeprefix('#/$defs/')}"
            if key == "$ref" and isinstance(value, str) and value.startswith("#/$defs/")
            else _moved(value, name)
            for key, value in schema.items()
        }
    return [_moved(item, name) for item in schema] if isinstance(schema, list | tuple) else schema
