"""Canonical JSON (RFC 8785): one text for one value, so that a hash of it can be taken again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import rfc8785

from stars_guard.errors import AuditError

__all__ = ["EXACT", "canonical"]

EXACT = 2**53 - 1
"""The largest whole number that a double holds, and every number below it."""


def canonical(data: Mapping[str, Any]) -> str:
    """Canonical JSON (RFC 8785). Whole numbers that a double cannot hold become strings.

    Raises:
        AuditError: a number is infinite or not a number, or a text is not Unicode.
    """
    try:
        return _dumped(data)
    except _NotPlain:
        pass
    try:
        try:
            return rfc8785.dumps(data).decode()
        except rfc8785.IntegerDomainError:
            return rfc8785.dumps(_exact(data)).decode()
    except rfc8785.CanonicalizationError as exc:
        raise AuditError("a record cannot be written", hint=f"{type(exc).__name__}: a number or a text in it") from None


class _NotPlain(Exception):
    """A value that json may write in another way than RFC 8785 wants."""


def _dumped(data: Mapping[str, Any]) -> str:
    """The same text by the standard library, which is ten times as fast: of what both write alike.

    Raises:
        _NotPlain: the data holds something else.
    """
    text = json.dumps(_plain(data), ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _NotPlain from None
    return text


def _plain(value: Any) -> Any:
    """The value with whole numbers as such, since Python writes 1.0 where JavaScript, and so RFC 8785, writes 1."""
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return value
    if kind is int and -EXACT <= value <= EXACT:
        return value
    if kind is float:
        if value.is_integer() and -EXACT <= value <= EXACT:
            return int(value)
        # in this range both write the shortest digits without an exponent
        if 1e-4 <= abs(value) < EXACT:
            return value
    if kind is dict and all(type(key) is str and key.isascii() for key in value):
        return {key: _plain(each) for key, each in value.items()}
    if kind is list or kind is tuple:
        return [_plain(each) for each in value]
    raise _NotPlain


def _exact(value: Any) -> Any:
    match value:
        case bool():
            return value
        case int():
            return value if -EXACT <= value <= EXACT else str(value)
        case dict():
            return {key: _exact(each) for key, each in value.items()}
        case list() | tuple():
            return [_exact(each) for each in value]
        case _:
            return value
