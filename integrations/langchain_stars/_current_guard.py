"""A guard that follows its policy's files, for code around models that are not ours."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langchain_core.runnables.config import var_child_runnable_config

from stars_guard.guard import Guard
from stars_guard.policy import LivePolicy, Policy

__all__ = ["LiveGuard", "current_run_id"]


class LiveGuard:
    """Makes the guard of a policy, and another when the policy's files have changed. Loads no model that writes.

    Args:
        policy: a shipped policy's name, a path, a mapping or a `Policy`.
        audit: the audit log's URL, instead of the policy's.
        allow_python: whether the policy's judges may name Python code to run.

    Raises:
        PolicyError: the policy cannot be used.
    """

    def __init__(
        self, policy: str | Path | Mapping[str, Any] | Policy, *, audit: Any = None, allow_python: bool = False
    ) -> None:
        self._live = LivePolicy(policy)
        self._audit = audit
        self._allow_python = allow_python
        self._lock = threading.Lock()
        self._guard: Guard | None = None

    @property
    def current(self) -> Guard:
        """The guard that a new call should use."""
        policy = self._live.current
        with self._lock:
            if self._guard is None:
                self._guard = Guard(policy, audit=self._audit, allow_python=self._allow_python)
            elif self._guard.policy is not policy:
                self._guard = self._guard.replaced(policy)
            return self._guard


def current_run_id() -> str | None:
    """The LangChain run that the code is in, for the audit record."""
    manager = (var_child_runnable_config.get() or {}).get("callbacks")
    run_id = getattr(manager, "parent_run_id", None)
    return str(run_id) if run_id else None
