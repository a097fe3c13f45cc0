"""How deep JSON may nest. What nests deeper would break whatever walks it, with a `RecursionError` of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stars_guard.core.arguments import has_lone_surrogate

__all__ = ["MOST_NESTED", "TooDeep", "decode_json", "is_too_deep", "read_json"]

MOST_NESTED = 64
"""Lists and objects inside each other."""


class TooDeep(ValueError):
    """JSON that nests deeper than `MOST_NESTED`."""


def is_too_deep(value: Any) -> bool:
    """Whether lists, tuples and mappings nest deeper than `MOST_NESTED` in a value; also where they hold themselves."""
    level = [value]
    for _ in range(MOST_NESTED + 1):
        # each container once: shared ones may be reached by a number of ways that doubles with each level
        containers = {id(item): item for item in level if isinstance(item, Mapping | list | tuple)}
        if not containers:
            return False
        level = [
            inner for item in containers.values() for inner in (item.values() if isinstance(item, Mapping) else item)
        ]
    return True


def read_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON, escapes half a character (a lone surrogate), or (`TooDeep`) nests too deep.
    """
    value, end = decode_json(text.strip(), 0)
    if end != len(text.strip()):
        raise ValueError("there is more than one value")
    return value


def decode_json(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that begins at ``start``, and where it ends. Raises as `read_json` does."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except RecursionError:
        raise TooDeep("the JSON is nested too deeply") from None
    if is_too_deep(value):
        raise TooDeep("the JSON is nested too deeply")
    if has_lone_surrogate(value):
        raise ValueError("the JSON holds half a character")
    return value, end


_DECODER = json.JSONDecoder()
