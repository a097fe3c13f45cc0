"""What callers pass, checked: an error names the option, what was given, and what is possible."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from stars_guard.core.nearest import did_you_mean
from stars_guard.errors import InputError

__all__ = ["LANGUAGE", "chosen", "has_lone_surrogate", "language_tag", "number", "text", "whole_number"]

LANGUAGE = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$"
"""A tag of a language, such as ``de`` or ``pt-BR`` (BCP 47)."""

_SURROGATE = re.compile("[\ud800-\udfff]")


def number(name: str, value: object, low: float, high: float) -> float:
    """A number between two others.

    Args:
        name: what it is, as the message says it.

    Raises:
        InputError: it is no such number (neither are True and False), or it is not in the range.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(f"{name} is {_kind(value, 'a number')}", hint=f"use a number from {low} to {high}")
    plain = value if isinstance(value, int | float) else float(value)
    if not low <= plain <= high:  # not a number (nan) is in no range
        raise InputError(f"{name} is {plain}", hint=f"use a number from {low} to {high}")
    return plain


def whole_number(name: str, value: object, low: int, high: int) -> int:
    """As `number`, for whole numbers."""
    hint = f"use a whole number from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        shown = value if isinstance(value, float) and math.isfinite(value) else _kind(value, "a whole number")
        raise InputError(f"{name} is {shown}", hint=hint)
    plain = int(value)
    if not low <= plain <= high:
        raise InputError(f"{name} is {plain}", hint=hint)
    return plain


def text(name: str, value: object) -> str:
    """A text that can be written as UTF-8.

    Raises:
        InputError: it is no string, or it holds half of a surrogate pair, which no encoding can write.
    """
    if not isinstance(value, str):
        raise InputError(f"{name} is {_kind(value, 'a string')}", hint="pass a string")
    if has_lone_surrogate(value):
        raise InputError(
            f"{name} holds a lone surrogate, which is half a character", hint="decode it with errors='replace'"
        )
    return value


def language_tag(value: object) -> None:
    """A tag of a language.

    Raises:
        InputError: it isn't one.
    """
    if not isinstance(value, str):
        raise InputError(f"language is {_kind(value, 'a string')}", hint="pass a tag such as 'de' or 'pt-BR'")
    if not re.fullmatch(LANGUAGE, value):
        raise InputError("language is not the tag of a language", hint="pass a tag such as 'de' or 'pt-BR'")


def chosen(name: str, value: object, known: tuple[str, ...]) -> None:
    """One of a few words.

    Raises:
        InputError: it is another one; the message names the nearest.
    """
    if isinstance(value, str) and value in known:
        return
    meant = did_you_mean(value, known, form="{!r}") if isinstance(value, str) else ""
    shown = repr(value[:40]) if isinstance(value, str) else _kind(value, "a string")
    raise InputError(f"{name} is {shown}", hint=f"{meant} use one of {', '.join(known)}".strip())


def has_lone_surrogate(value: Any) -> bool:
    """Whether a text, or one that is nested in lists and mappings (keys included), can't be written as UTF-8."""
    seen: set[int] = set()
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            if not item.isascii() and _SURROGATE.search(item):
                return True
        elif isinstance(item, Mapping | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            left += [*item.keys(), *item.values()] if isinstance(item, Mapping) else item
    return False


def _kind(value: object, wanted: str) -> str:
    """How a message calls a value whose kind is wrong. Its own text may be a user's."""
    return "None" if value is None else f"not {wanted} but {type(value).__name__}"
