"""Canonical JSON (RFC 8785): one text for one value, so that a hash of it can be taken again."""

from __future__ import annotations

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
        try:
            return rfc8785.dumps(data).decode()
        except rfc8785.IntegerDomainError:
            return rfc8785.dumps(_exact(data)).decode()
    except rfc8785.CanonicalizationError as exc:
        raise AuditError("a record cannot be written", hint=f"{type(exc).__name__}: a number or a text in it") from None


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
