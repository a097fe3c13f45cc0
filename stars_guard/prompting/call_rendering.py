"""A tool call as a text that judges read: deterministic, with every string as the tool gets it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["render_call"]

_DEEPEST = 16


def render_call(name: str, args: Any) -> str:
    """The tool's name, and a line ``path: value`` for each value of the arguments.

    Strings stand as they are, not escaped as in JSON, so that ``\n`` is a line's end; one that is itself JSON is shown
    a second time by its values. What a shell would read differently stands a second time without quotes, backslashes
    and ``$IFS``: ``r''m`` is there as ``rm`` too.
    """
    lines = [f"{path}: {value}" if path else value for path, value in _leaves(args, "", _DEEPEST)]
    plain = [simple for line in lines if (simple := _unquoted(line)) != line]
    return "\n".join([name, *lines, *plain])


def _leaves(value: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and depth:
        for key, item in value.items():
            if path and not str(key).isidentifier():
                yield "", str(key)  # a text of its own
            yield from _leaves(item, f"{path}.{key}" if path else str(key), depth - 1)
        if not value and path:
            yield path, "{}"
    elif isinstance(value, list | tuple) and depth:
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]", depth - 1)
        if value and all(isinstance(item, str) for item in value):
            yield path, " ".join(value)  # a command given word by word
        elif not value and path:
            yield path, "[]"
    elif isinstance(value, str):
        yield path, value
        if depth and value.lstrip()[:1] in ("{", "[", '"'):
            try:
                inner = json.loads(value)
            except (ValueError, RecursionError):
                return
            yield from _leaves(inner, path, depth - 1)
    elif isinstance(value, Mapping | list | tuple):
        yield from ((path, leaf) for leaf in _below(value))
    else:
        yield path, json.dumps(value, sort_keys=True, default=str)


def _below(value: Any) -> Iterator[str]:
    """All that stands deeper than paths are written, keys and values, however deep: a judge must see it."""
    waiting, seen = [value], set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping | list | tuple):
            if id(item) in seen:
                continue
            seen.add(id(item))
            inner = [part for pair in item.items() for part in pair] if isinstance(item, Mapping) else item
            waiting.extend(reversed(inner))
        else:
            yield item if isinstance(item, str) else json.dumps(item, default=str)


def _unquoted(line: str) -> str:
    line = re.sub(r"\\\n", "", line)
    line = re.sub(r"\$\{IFS[^}]*\}|\$IFS(?:\$\d)?", " ", line)
    return re.sub(r"[\"'\\]", "", line)
