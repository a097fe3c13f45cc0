"""What is on record, held against what follows from the rest of the record."""

from __future__ import annotations

import math

__all__ = ["CannotRedo", "DoesNotHold", "close", "holds", "same"]


class DoesNotHold(Exception):
    """Something on record does not follow from the rest. The text says what."""


class CannotRedo(Exception):
    """A part that decided isn't installed here, or failed. The text says which."""


def holds(condition: bool, otherwise: str) -> None:
    """Say otherwise, unless the condition holds."""
    if not condition:
        raise DoesNotHold(otherwise)


def same(what: str, on_record: object, redone: object) -> None:
    """Both are equal."""
    if on_record != redone:
        raise DoesNotHold(f"{what} is {on_record} on record and {redone} when redone")


def close(what: str, on_record: float | None, redone: float | None) -> None:
    """Equal up to the last digits, in which machines differ."""
    if on_record is None or redone is None:
        same(what, on_record, redone)
    elif not math.isclose(on_record, redone, rel_tol=1e-9, abs_tol=1e-12):
        raise DoesNotHold(f"{what} is {on_record:.12g} on record and {redone:.12g} when redone")
