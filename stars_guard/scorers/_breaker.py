"""A judge that keeps failing is left alone for a while, so that calls fail at once and not by timeout."""

from __future__ import annotations

import time
from collections.abc import Collection

__all__ = ["Breaker"]


class Breaker:
    """Opens after failures of ``failures`` different calls without a success between them.

    After ``rest`` seconds one success closes it, and one failure opens it again. One call counts once, however many
    attempts of it fail: what fails there may be about its own text.
    """

    def __init__(self, failures: int = 5, rest: float = 30.0) -> None:
        self._most = failures
        self._rest = rest
        self._failed: set[str] = set()
        self._open_until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the judge should not be asked now."""
        return time.monotonic() < self._open_until

    def succeeded(self) -> None:
        """The judge has answered."""
        self._failed.clear()

    def failed(self, calls: Collection[str]) -> None:
        """The judge has failed passages of these calls."""
        if len(self._failed) < self._most:
            self._failed.update(calls)
        if len(self._failed) >= self._most:
            self._open_until = time.monotonic() + self._rest
