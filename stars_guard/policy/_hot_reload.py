"""A policy that follows its files while a program runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stars_guard.errors import PolicyError
from stars_guard.policy._loader import resolve_policy
from stars_guard.policy._model import Policy

__all__ = ["LivePolicy"]

logger = logging.getLogger("stars_guard.policy")

Stamps = tuple[tuple[int, int] | None, ...]


class LivePolicy:
    """The newest valid version of a policy. Safe for threads.

    A changed file, or one that it extends, is read again, checked, and taken whole; what is not valid is logged
    (``stars_guard.policy``, WARNING) and the last good version stays. Calls that run keep the one they began with.

    Args:
        source: as `load_policy` takes it.
        interval: seconds between looks at the files.

    Raises:
        PolicyError: the first version is not valid.
    """

    def __init__(self, source: str | Path | Mapping[str, Any] | Policy, interval: float = 1.0) -> None:
        self._source = source
        self._interval = interval
        self._lock = threading.Lock()
        self._files: tuple[Path, ...] = ()
        self._policy = source if isinstance(source, Policy) else self._load(source)
        self._stamps = self._look()
        self._next = time.monotonic() + interval

    def _load(self, source: str | Path | Mapping[str, Any]) -> Policy:
        resolved = resolve_policy(source)
        self._files = resolved.files
        return resolved.policy

    def _look(self) -> Stamps:
        stamps: list[tuple[int, int] | None] = []
        for file in self._files:
            try:
                found = file.stat()
            except OSError:
                stamps.append(None)
            else:
                stamps.append((found.st_mtime_ns, found.st_size))
        return tuple(stamps)

    @property
    def current(self) -> Policy:
        """The version that a new call should use."""
        with self._lock:
            if not self._files or isinstance(self._source, Policy) or time.monotonic() < self._next:
                return self._policy
            self._next = time.monotonic() + self._interval
            stamps = self._look()
            if stamps != self._stamps:
                self._stamps = stamps
                try:
                    self._policy = self._load(self._source)
                    self._stamps = self._look()
                    logger.info("policy %s was read again: %s", self._policy.name, self._policy.sha256[:12])
                except PolicyError as exc:
                    logger.warning("the changed policy is not valid, the last good one stays:\n%s", exc)
            return self._policy
