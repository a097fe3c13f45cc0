"""The guards that one model, middleware or runnable has opened, and their end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial
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

PATIENCE = 1.0
"""Seconds that the first call after a change of a policy waits for the new version. It goes on under the last one."""

RETRY = 30.0
"""Seconds until a version whose judges could not be loaded is tried again, because a model may arrive late."""

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
    """A guard that is open, what it was made of, and the guard that is being made from a changed policy."""

    def __init__(self, recipe: GuardRecipe, guard: Guard) -> None:
        self.recipe = recipe
        self.guard = guard
        self._loading: tuple[Policy, portal.Errand[Guard]] | None = None
        self._failed: Policy | None = None
        self._retry = 0.0

    @property
    def is_orphan(self) -> bool:
        """Whether it uses the engine of a ready guard that is gone."""
        return self.recipe.engine_of is not None and self.recipe.engine_of() is None

    def follow(self, policy: Policy) -> Future[Guard] | None:
        """Begin to make a guard from a changed policy. It takes over by `take`, and until then the last one stays.

        Returns:
            What is worth a short wait before `take`, where this has begun now.
        """
        self.take()
        if self._loading is not None and self._loading[0] is not policy:
            self.give_up()
        is_retry = policy is self._failed
        if self._loading or policy is self.guard.policy or (is_retry and time.monotonic() < self._retry):
            return None
        loading = portal.begin(partial(self.guard.replaced, policy))
        self._loading = policy, loading
        return None if is_retry else loading.outcome

    def take(self) -> None:
        """Take the guard that was being made, if all its judges are loaded by now."""
        if self._loading is None or not self._loading[1].outcome.done():
            return
        (policy, loading), self._loading = self._loading, None
        exc = loading.outcome.exception()
        if exc is None:
            self.guard = loading.outcome.result()
            return
        if policy is not self._failed:
            # what is not ours may hold a secret in its text
            reason = str(exc) if isinstance(exc, StarsGuardError) else type(exc).__name__
            logger.warning("the changed policy %s cannot be used, and the last good one stays: %s", policy.name, reason)
        self._failed, self._retry = policy, time.monotonic() + RETRY

    def give_up(self) -> None:
        """Make no guard from a changed policy."""
        if self._loading is not None:
            loading = self._loading[1]
            loading.cancel()
            loading.outcome.add_done_callback(_close_made)
        self._loading = None


def _close_made(outcome: Future[Guard]) -> None:
    if outcome.exception() is None:
        portal.begin(outcome.result().aclose)


class OpenGuards:
    """Opens a guard for each recipe when it is first asked for. Safe for threads.

    A guard is replaced when its policy's files have changed and each judge of the new version is loaded. Until then,
    and as long as one can't be loaded, calls go on under the last version. The replaced guard frees what it holds when
    its last call has ended. A copy of this object, by `copy.deepcopy` or `pickle`, has opened nothing.

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
            opened = self._find(recipe)
            if opened is None:
                opened = _Opened(recipe, self._open(recipe, policy))
                self._opened.append(opened)
            loading = opened.follow(policy)
        if loading is not None:
            wait([loading], PATIENCE)
            with self._lock:
                opened.take()
        return opened.guard

    def policy_in_use(self, recipe: GuardRecipe) -> Policy:
        """The policy of the last call, which may be older than its files, or of the next call if there was no call yet.

        It waits for nothing that is being loaded.
        """
        with self._lock:
            opened = self._find(recipe)
            return self.policy(recipe.policy) if opened is None else opened.guard.policy

    def _find(self, recipe: GuardRecipe) -> _Opened | None:
        return next((opened for opened in self._opened if opened.recipe == recipe), None)

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
            opened.give_up()
            portal.begin(opened.guard.aclose)

    async def close(self, waiting: Waiting) -> None:
        """Close every guard. A later call opens what it needs again."""
        with self._lock:
            closing, self._opened = self._opened, []
        for opened in closing:
            opened.give_up()
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
