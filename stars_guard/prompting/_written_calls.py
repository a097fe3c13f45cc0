"""Tool calls as a model wrote them, and what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Written", "read_json_calls", "read_named_call"]

DEEPEST = 64
"""How deeply the JSON of a call may be nested."""


@dataclass(frozen=True, slots=True)
class Written:
    """A call that was found in the text.

    Attributes:
        arguments: None where the text can't be read as a call; ``error`` then says why, without any of the text.
    """

    name: str | None = None
    arguments: Mapping[str, Any] | None = None
    error: str = ""


def read_json_calls(text: str) -> list[Written]:
    """Calls written as JSON: objects with a name and arguments, or lists of them, with ``;`` or ``,`` in between."""
    decoder, at = json.JSONDecoder(), 0
    calls: list[Written] = []
    text = text.strip()
    while at < len(text):
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return [*calls, Written(error="the call is not JSON")]
        calls += [_call(item) for item in (value if isinstance(value, list) else [value])]
        at = end + len(text[end:]) - len(text[end:].lstrip(" \n\r\t;,"))
    return calls


def read_named_call(name: str, arguments: str) -> Written:
    """A call whose name stands before its arguments in JSON."""
    return _call({"name": name, "arguments": arguments})


def _call(value: Any) -> Written:
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str) or not name:
        return Written(error="the call has no name")
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return Written(name, error="the arguments are not JSON")
    if not isinstance(arguments, dict):
        return Written(name, error="the arguments are not an object")
    if _is_deeper(arguments, DEEPEST):
        return Written(name, error="the arguments are nested too deeply")
    return Written(name, arguments)


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether JSON is nested more deeply than so many levels."""
    here = [value]
    for _ in range(levels):
        below: list[Any] = []
        for item in here:
            below += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        here = below
    return any(isinstance(item, dict | list) for item in here)
