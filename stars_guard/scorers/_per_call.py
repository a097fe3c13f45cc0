"""What a scorer keeps of each call, for a bounded number of calls."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["CALLS", "PerCall"]

CALLS = 1024
"""Calls that something is kept of. What is kept of the least recently used one goes first."""

T = TypeVar("T")


class PerCall(Generic[T]):
    """One value a call. Take it out and put it back: `forget` may come meanwhile, from another thread."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, T] = OrderedDict()

    def take(self, call_id: str) -> T | None:
        """Take a call's value out; None where there is none."""
        return self._values.pop(call_id, None)

    def put(self, call_id: str, value: T) -> None:
        """Keep a value."""
        self._values[call_id] = value
        if len(self._values) > CALLS:
            self._values.popitem(last=False)

    def forget(self, call_id: str) -> None:
        """Drop what is kept of a call."""
        self._values.pop(call_id, None)
