"""The fields of a dataclass whose fields hold no other dataclasses, as a mapping."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

__all__ = ["flat"]


def flat(value: Any) -> dict[str, Any]:
    """As `dataclasses.asdict`, which copies all values and takes ten times as long."""
    return {field.name: getattr(value, field.name) for field in fields(value)}
