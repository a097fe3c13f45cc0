"""The arguments of a call as conditions see them: JSON values, bounded in size.

The model writes the arguments, and so may an attacker. What isn't a JSON value becomes `UNREADABLE`. A condition that
reads it can't be evaluated, and one that doesn't is not disturbed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stars_guard.core.arguments import has_lone_surrogate
from stars_guard.core.nesting import MOST_NESTED
from stars_guard.rules._cel_tree import Path

__all__ = ["MOST_CHARACTERS", "MOST_VALUES", "UNREADABLE", "TooLarge", "Unreadable", "plain_values", "readable"]

MOST_CHARACTERS = 200_000
"""Characters in all texts and keys of a call's arguments together."""

MOST_VALUES = 10_000
"""Values in a call's arguments, nested ones included."""


class TooLarge(Exception):
    """Arguments that are too large, or nest too deep, for conditions to be evaluated."""


class Unreadable:
    """Stands for a value that isn't one of JSON's."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "unreadable"


UNREADABLE = Unreadable()
"""The one that there is."""


def plain_values(args: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the arguments in Python's own types.

    Raises:
        TooLarge: there are more than `MOST_CHARACTERS`, `MOST_VALUES` or `MOST_NESTED`.
    """
    left = [MOST_CHARACTERS, MOST_VALUES]

    def text(value: str) -> Any:
        left[0] -= len(value)
        if left[0] < 0:
            raise TooLarge
        return UNREADABLE if has_lone_surrogate(value) else str(value)

    def copy(value: Any, depth: int) -> Any:
        left[1] -= 1
        if left[1] < 0 or depth > MOST_NESTED:
            raise TooLarge
        if value is None or isinstance(value, bool | Unreadable):
            return value
        if isinstance(value, str):
            return text(value)
        if isinstance(value, int):
            return int(value) if -(1 << 63) <= value < 1 << 64 else UNREADABLE
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else UNREADABLE
        if isinstance(value, Mapping):
            return {key(name): copy(item, depth + 1) for name, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):  # an app's context may hold sets
            return [copy(item, depth + 1) for item in value]
        return UNREADABLE

    def key(name: Any) -> str:
        if not isinstance(name, str) or isinstance(found := text(name), Unreadable):
            raise TooLarge  # a mapping with such a key isn't one of JSON's, and nothing can be said about its fields
        return str(found)

    return {key(name): copy(item, 1) for name, item in args.items()}


def readable(values: Any) -> tuple[Any, tuple[Path, ...]]:
    """The values with None in the place of what can't be read, and the paths to it."""
    unreadable: list[Path] = []

    def copy(value: Any, path: Path) -> Any:
        if isinstance(value, dict):
            return {key: copy(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [copy(item, (*path, index)) for index, item in enumerate(value)]
        if isinstance(value, Unreadable):
            unreadable.append(path)
            return None
        return value

    return copy(values, ()), tuple(unreadable)
