"""The guards that one model, middleware or runnable has opened, and their end."""

from __future__ import annotations

import logging
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
from stars_guard.errors import StarsGuardError
from stars_guard.guard import Guard
from stars_guard.policy import LivePolicy, Policy, working_folder

__all__ = ["GuardRecipe", "OpenGuards", "OpensGuards", "PolicySource"]

logger = logging.getLogger("stars_guard.policy")

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


class _Opened:
    """A guard that is open, and what it was made of."""

    def __init__(self, recipe: GuardRecipe, guard: Guard) -> None:
        self.recipe = recipe
        self.guard = guard
        self._unusable: Policy | None = None

    @property
    def is_orphan(self) -> bool:
        """Whether it uses the engine of a ready guard that is gone."""
        return self.recipe.engine_of is not None and self.recipe.engine_of() is None

    def under(self, policy: Policy) -> Guard:
        """The guard, replaced if its policy has changed. It stays where no guard can be made from the new policy."""
        if policy is not self.guard.policy and policy is not self._unusable:
            try:
                self.guard = self.guard.replaced(policy)
            except StarsGuardError as exc:
                self._unusable = policy
                logger.warning(
                    "the changed policy %s cannot be used, and the last good one stays: %s", policy.name, exc
                )
        return self.guard


class OpenGuards:
    """Opens a guard for each recipe when it is first asked for. Safe for threads.

    A guard is replaced when its policy's files have changed, and the replaced one frees what it holds when its last
    call has ended. A copy of this object, by `copy.deepcopy` or `pickle`, has opened nothing.

    Args:
        folder: where the relative paths of policies start; by default, the working directory of now. It stays the same
            when the working directory changes before the first call.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or working_folder()
        self._lock = threading.RLock()
        self._policies: list[tuple[PolicySource, LivePolicy]] = []
        self._opened: list[_Opened] = []
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
            followed = LivePolicy(source, folder=self._folder)
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
            for opened in self._opened:
                if opened.recipe == recipe:
                    return opened.under(policy)
            guard = self._open(recipe, policy)
            self._opened.append(_Opened(recipe, guard))
            return guard

    async def current(self, waiting: Waiting, recipe: GuardRecipe) -> Guard:
        """As `guard`, which may read files."""
        return await waiting.call(lambda: self.guard(recipe))

    def _open(self, recipe: GuardRecipe, policy: Policy) -> Guard:
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
        for opened in [one for one in self._opened if one.is_orphan]:
            self._opened.remove(opened)
            portal.begin(opened.guard.aclose)

    async def close(self, waiting: Waiting) -> None:
        """Close every guard. A later call opens what it needs again."""
        with self._lock:
            closing, self._opened = self._opened, []
        for opened in closing:
            await waiting.close(opened.guard)

    def unopened(self) -> OpenGuards:
        """One for the same files that has opened nothing."""
        return OpenGuards(self._folder)

    def __deepcopy__(self, memo: dict[int, Any]) -> OpenGuards:
        return self.unopened()

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
