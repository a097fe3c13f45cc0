"""A judge that keeps failing is left alone for a while, so that calls fail at once and not by timeout."""

from __future__ import annotations

import time

__all__ = ["Breaker"]


class Breaker:
    """Opens after ``failures`` in a row; after ``rest`` seconds one success closes it, one failure opens it again."""

    def __init__(self, failures: int = 5, rest: float = 30.0) -> None:
        self._most = failures
        self._rest = rest
        self._failures = 0
        self._open_until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the judge should not be asked now."""
        return time.monotonic() < self._open_until

    def record(self, *, failed: bool) -> None:
        """Count one answer."""
        self._failures = self._failures + 1 if failed else 0
        if self._failures >= self._most:
            self._open_until = time.monotonic() + self._rest
