"""A tool call as a text that judges read: deterministic, with every string as the tool gets it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stars_guard.core.messages import ToolCall

__all__ = ["read_call", "render_call"]

_DEEPEST = 16
_NAME = re.compile(r"[\w.-]{1,128}")
_ARGUMENT = re.compile(r"([\w.\[\]-]+): ")


def render_call(name: str, args: Any) -> str:
    """The tool's name, and a line ``path: value`` for each value of the arguments.

    Strings stand as they are, not escaped as in JSON, so that ``\n`` is a line's end; one that is itself JSON is shown
    a second time by its values. What a shell would read differently stands a second time without quotes, backslashes
    and ``$IFS``: ``r''m`` is there as ``rm`` too.
    """
    lines = [f"{path}: {value}" if path else value for path, value in _leaves(args, "", _DEEPEST)]
    plain = [simple for line in lines if (simple := _unquoted(line)) != line]
    return "\n".join([name, *lines, *plain])


def read_call(text: str) -> ToolCall:
    """The call that a text shows, for judges that read arguments.

    It is what `render_call` makes of it. Where lines of one value look like further arguments, the reading has the
    lines in both: as arguments, and as the end of the value. A text that shows no call is one argument without a name,
    of a tool without a name.
    """
    name, _, rest = text.partition("\n")
    lines = rest.split("\n")
    if not _NAME.fullmatch(name) or not rest or not _ARGUMENT.match(lines[0]):
        return ToolCall(id="", name="", arguments={"": text})
    for end in range(len(lines), 0, -1):
        values = _arguments(lines[:end])
        if render_call(name, values) == text:
            return ToolCall(id="", name=name, arguments=_with_ends(values))
    return ToolCall(id="", name=name, arguments=_with_ends(_arguments(lines)))


def _arguments(lines: Sequence[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    last = ""
    for line in lines:
        if (begun := _ARGUMENT.match(line)) and begun[1] not in values:
            last = begun[1]
            values[last] = line[begun.end() :]
        else:
            values[last] += "\n" + line
    return values


def _with_ends(values: Mapping[str, str]) -> dict[str, Any]:
    """The values, and each that others follow once more with all lines after it."""
    items = list(values.items())
    ends = {
        key: "\n".join([value, *(f"{name}: {text}" for name, text in items[index + 1 :])])
        for index, (key, value) in enumerate(items[:-1])
    }
    return {**values, **({"": ends} if ends else {})}


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
