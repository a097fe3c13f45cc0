"""Tool calls as a model wrote them, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stars_guard.core.nesting import TooDeep, decode_json, read_json

__all__ = ["Written", "read_json_calls", "read_named_calls"]


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


def read_named_calls(text: str, marker: str) -> list[Written] | None:
    """Calls whose names stand before their arguments in JSON, with a marker in between; None where they don't.

    A marker inside the arguments' strings is not one.
    """
    calls: list[Written] = []
    at = 0
    while at < len(text) or not calls:
        named = _NAMED.match(text, at)
        if named is None or not (named[2] or text.startswith("{", named.end())):
            return None
        at = named.end()
        arguments, end = _arguments(text, at, marker)
        calls.append(_call({"name": named[1], "arguments": arguments}))
        rest = text[end:].lstrip()
        at = len(text) - len(rest.removeprefix(marker))
        if rest and at == len(text):
            return None
    return calls


_NAMED = re.compile(r"\s*([\w.-]+)(?:\[CALL_ID\]\w*)?(\[ARGS\])?\s*")


def _arguments(text: str, at: int, marker: str) -> tuple[Any, int]:
    """A JSON value up to the next marker, or the text up to there if that is something else; and where it ends."""
    try:
        value, end = decode_json(text, at)
        if text[end:].lstrip().startswith(marker) or not text[end:].strip():
            return value, end
    except ValueError:
        end = at
    place = text.find(marker, end)
    end = len(text) if place < 0 else place
    return text[at:end], end


def _call(value: Any) -> Written:
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str) or not name:
        return Written(error="the call has no name")
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str) and (arguments := arguments.strip()):
        try:
            arguments = read_json(arguments)
        except ValueError as exc:
            return Written(name, error=_wrong("the arguments are", exc))
    if arguments is None or arguments == "":
        arguments = {}  # how some models call a tool that takes none
    if not isinstance(arguments, dict):
        return Written(name, error="the arguments are not an object")
    return Written(name, arguments)


def _wrong(what: str, exc: ValueError) -> str:
    return f"{what} {'nested too deeply' if isinstance(exc, TooDeep) else 'not JSON'}"
