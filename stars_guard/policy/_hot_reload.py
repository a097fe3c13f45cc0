"""A policy that follows its files while a program runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stars_guard.concealing import concealed
from stars_guard.errors import StarsGuardError
from stars_guard.policy._files import FileState, look_at
from stars_guard.policy._loader import PolicyReader
from stars_guard.policy._model import Policy

__all__ = ["LivePolicy", "working_folder"]

logger = logging.getLogger("stars_guard.policy")


def working_folder() -> Path:
    """The working directory, or a relative path to it where it was deleted."""
    try:
        return Path.cwd()
    except OSError:
        return Path()


class LivePolicy:
    """The newest valid version of a policy. Safe for threads.

    When a file changes, or one that it extends, the policy is read again, checked, and taken whole. If the new version
    is not valid the last good one stays, and one warning in the log ``stars_guard.policy`` says why. Files that are
    missing are looked for too, so a policy is taken as soon as the parent that it lacks is there. Calls that run keep
    the version that they began with.

    Args:
        source: as `load_policy` takes it. Relative paths keep their meaning when the working directory changes.
        interval: seconds between looks at the files.
        folder: where relative paths start; by default, the working directory of now.
        usable: called with each new version, which is taken only once this raises nothing. Make here what may fail
            under a valid policy, such as a guard. It is called again at each look until it succeeds.

    Raises:
        PolicyError: the first version is not valid.
    """

    def __init__(
        self,
        source: str | Path | Mapping[str, Any] | Policy,
        interval: float = 1.0,
        *,
        folder: Path | None = None,
        usable: Callable[[Policy], object] = lambda policy: None,
    ) -> None:
        self._source = source
        self._folder = folder or working_folder()
        self._interval = interval
        self._usable = usable
        self._looking = threading.Lock()
        self._seen: Mapping[Path, FileState] = {}
        self._policy = self._read()
        self._candidate: Policy | None = None
        self._next = time.monotonic() + interval

    @property
    def current(self) -> Policy:
        """The version that a new call should use."""
        if self._seen and time.monotonic() >= self._next and self._looking.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._next = time.monotonic() + self._interval
                self._looking.release()
        return self._policy

    def _read(self) -> Policy:
        """The policy as its files are now."""
        if isinstance(self._source, Policy):
            return self._source
        reader = PolicyReader(self._folder)
        try:
            return reader.read(self._source).policy
        finally:
            self._seen = reader.seen

    def _look(self) -> None:
        """Take a new version, if there is one that can be used."""
        changed = any(look_at(path) != state for path, state in self._seen.items())
        try:
            if changed:
                self._candidate = None
                found = self._read()
                self._candidate = found if found != self._policy else None
            if self._candidate is not None:
                self._usable(self._candidate)
                self._policy, self._candidate = self._candidate, None
                logger.info("policy %s was read again: %s", concealed(self._policy.name), self._policy.sha256[:12])
        except Exception as exc:
            # what is not ours may hold a secret in its text
            reason = str(exc) if isinstance(exc, StarsGuardError) else type(exc).__name__
            if changed:
                logger.warning("the changed policy can't be used, so the last good version stays:\n%s", reason)
