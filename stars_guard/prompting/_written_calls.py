"""Tool calls as a model wrote them, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stars_guard.core.nesting import TooDeep, decode_json, read_json

__all__ = ["Written", "read_json_calls", "read_named_call"]


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
    text, at = text.strip(), 0
    calls: list[Written] = []
    while at < len(text):
        try:
            value, end = decode_json(text, at)
        except ValueError as exc:
            return [*calls, Written(error=_wrong("the call is", exc))]
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
            arguments = read_json(arguments)
        except ValueError as exc:
            return Written(name, error=_wrong("the arguments are", exc))
    if not isinstance(arguments, dict):
        return Written(name, error="the arguments are not an object")
    return Written(name, arguments)


def _wrong(what: str, exc: ValueError) -> str:
    return f"{what} {'nested too deeply' if isinstance(exc, TooDeep) else 'not JSON'}"
