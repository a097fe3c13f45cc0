"""The guards that one model, middleware or runnable has opened, and their end."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from weakref import ref

from langchain_stars._waiting import AWAITING, BLOCKING, Waiting, run
from stars_guard.audit import AuditStore, MemoryStore
from stars_guard.calling import portal
from stars_guard.guard import Guard
from stars_guard.policy import LivePolicy, Policy

__all__ = ["GuardRecipe", "OpenGuards", "OpensGuards", "PolicySource"]

PolicySource = str | Path | Policy | Mapping[str, Any]
"""A shipped policy's name, a path, what a YAML file would hold, or a `Policy`."""


@dataclass(frozen=True, kw_only=True)
class GuardRecipe:
    """Everything that a guard is made of. Equal recipes share a guard.

    Attributes:
        policy: it is followed: when its files change, the guard is replaced.
        model, backend, options, audit, allow_python: as `Guard` takes them.
        engine_of: a ready guard whose engine answers, instead of ``model``. It is not kept alive.
    """

    policy: PolicySource
    model: str = "embedded"
    backend: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    audit: str | AuditStore | None = field(default=None, repr=False)
    allow_python: bool = False
    engine_of: ref[Guard] | None = None


class OpenGuards:
    """Opens a guard for each recipe when it is first asked for. Safe for threads.

    A guard is replaced when its policy's files have changed, and the replaced one frees what it holds when its last
    call has ended. A copy of this object, by `copy.deepcopy` or `pickle`, has opened nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._policies: list[tuple[PolicySource, LivePolicy]] = []
        self._guards: list[tuple[GuardRecipe, Guard]] = []
        self._memory = MemoryStore()

    def policy(self, source: PolicySource) -> Policy:
        """The version of a policy that a new call should use.

        Raises:
            PolicyError: its first version cannot be used.
        """
        with self._lock:
            for known, followed in self._policies:
                if known is source or (type(known) is type(source) and known == source):
                    return followed.current
            followed = LivePolicy(source)
            self._policies.append((source, followed))
            return followed.current

    def guard(self, recipe: GuardRecipe) -> Guard:
        """The guard that a new call should use.

        Raises:
            PolicyError: the policy cannot be used.
            AuditError: the audit URL cannot be used.
        """
        with self._lock:
            self._close_orphans()
            policy = self.policy(recipe.policy)
            for index, (known, guard) in enumerate(self._guards):
                if known == recipe:
                    if guard.policy is not policy:
                        guard = guard.replaced(policy)
                        self._guards[index] = (known, guard)
                    return guard
            guard = self._opened(recipe, policy)
            self._guards.append((recipe, guard))
            return guard

    def _opened(self, recipe: GuardRecipe, policy: Policy) -> Guard:
        audit = recipe.audit
        if audit == "memory://":
            audit = self._memory  # one log for all guards, which a replaced policy does not empty
        if recipe.engine_of is None:
            return Guard(
                policy,
                model=recipe.model,
                backend=recipe.backend,
                options=recipe.options,
                audit=audit,
                allow_python=recipe.allow_python,
            )
        ready = recipe.engine_of()
        assert ready is not None  # noqa: S101
        return ready.under(policy, audit=audit, allow_python=recipe.allow_python)

    def _close_orphans(self) -> None:
        """Close the guards on the engine of a ready guard that is gone: no call can ask for them again."""
        gone = [one for one in self._guards if one[0].engine_of is not None and one[0].engine_of() is None]
        self._guards = [one for one in self._guards if one not in gone]
        for _, guard in gone:
            portal.begin(guard.aclose)

    async def close(self, waiting: Waiting) -> None:
        """Close every guard. A later call opens what it needs again."""
        with self._lock:
            guards, self._guards = self._guards, []
        for _, guard in guards:
            await waiting.close(guard)

    def __deepcopy__(self, memo: dict[int, Any]) -> OpenGuards:
        return OpenGuards()

    def __reduce__(self) -> Any:
        return OpenGuards, ()

    def __eq__(self, other: object) -> bool:
        # two models are the same or not whatever each of them has opened
        return isinstance(other, OpenGuards)

    __hash__ = None  # type: ignore[assignment]


class OpensGuards:
    """Closes what it has opened: ``with``, ``async with``, `close` or `aclose`."""

    _guards: OpenGuards

    def close(self) -> None:
        """Wait for the calls that run, and free what was opened. A later call opens what it needs again.

        A guard or a store that was passed in ready stays the caller's to close.
        """
        run(self._guards.close(BLOCKING))

    async def aclose(self) -> None:
        """As `close`."""
        await self._guards.close(AWAITING)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
