"""What must hold of an event when it is made."""

from __future__ import annotations

from stars_guard.errors import ProtocolError

__all__ = ["holds"]


def holds(event: object, condition: bool, problem: str) -> None:
    """Refuse to make an event of which a condition does not hold.

    Raises:
        ProtocolError: the condition does not hold.
    """
    if not condition:
        raise ProtocolError(f"{type(event).__name__} cannot be made: {problem}")
