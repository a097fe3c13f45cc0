"""What one guard has opened: its store, and once they are needed its engine and its judges."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, fields
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from stars_guard.audit import AuditStore, Writing, shared_store
from stars_guard.backends.base import Backend
from stars_guard.calling.backend_loading import lease_backend
from stars_guard.calling.judge_loading import load_rail
from stars_guard.calling.portal import begin, to_the_end
from stars_guard.calling.shadow_calls import Shadows
from stars_guard.calling.shadowing import ShadowPolicy
from stars_guard.core.vocabulary import Rail, Stage
from stars_guard.engines.sharing import Lease
from stars_guard.errors import BackendError, InputError, StarsGuardError
from stars_guard.policy import Policy
from stars_guard.scorers.cascade import Cascade, Judge

__all__ = ["Given", "Loaded"]

_log = logging.getLogger("stars_guard")


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a guard was given beside its policy; see `Guard`."""

    model: str | Backend
    backend: str
    options: Mapping[str, Any] = field(repr=False)
    judges: Sequence[Judge] | None
    allow_python: bool
    audit: str | AuditStore | None = field(repr=False)

    @property
    def arguments(self) -> dict[str, Any]:
        """For another guard like it."""
        return {given.name: getattr(self, given.name) for given in fields(self)}

    @property
    def ready(self) -> list[str]:
        """The parts that were passed in ready, in words. They belong to the caller, and to the caller's process."""
        parts = {
            "a Backend": isinstance(self.model, Backend),
            "judges": self.judges is not None,
            "a store": isinstance(self.audit, AuditStore),
        }
        return [name for name, is_ready in parts.items() if is_ready]


class Loaded:
    """Loads when first asked, and frees what it has loaded.

    What was passed in ready (a `Backend`, judges, a store) is used and never closed. Shared parts are freed when no
    other guard uses them. Everything but the store is used on the background loop alone.

    Raises:
        AuditError: the store's URL cannot be used.
    """

    def __init__(self, policy: Policy, given: Given) -> None:
        self._policy = policy
        self._given = given
        self._judges = None if given.judges is None else Cascade(given.judges)
        self._closed = self._retired = False
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._running = 0
        self._left = asyncio.Event()
        self._engine: Lease[Backend] | None = None
        self._cascades: dict[Rail, Cascade] = {}
        python = self._given.allow_python
        self._shadows = tuple(ShadowPolicy(spec, allow_python=python) for spec in self._policy.shadow)
        self._loading = asyncio.Lock()
        self._loading_engine = asyncio.Lock()
        audit = self._given.audit
        self.store = audit if isinstance(audit, AuditStore) else _store(self._policy, audit, self)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Around each call: what is loaded is not freed before its end.

        Raises:
            InputError: the guard is closed.
            BackendError: this process was forked from the one in which the parts were made.
        """
        if self._closed:
            raise InputError("the guard is closed", hint="make another one")
        if self._process != os.getpid():
            self._after_fork()
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            self._left.set()
            if self._retired and not self._running:
                begin(self._free_quietly)

    async def engine(self) -> Backend:
        """What generates. Raises what `lease_backend` does."""
        given = self._given
        if isinstance(given.model, Backend):
            return given.model
        async with self._loading_engine:
            before = self._engine
            if before is None or before.withdrawn or before.part.dead:
                self._engine = await lease_backend(given.model, given.backend, given.options)
                if before is not None:
                    await before.aclose()
            assert self._engine is not None  # noqa: S101
            return self._engine.part

    def shadows(self, call_id: str, rail: Rail, *, supplied: bool = False) -> Shadows:
        """The policy's shadows that have the call in their shares, ready to follow it."""
        return Shadows(self._wanting(call_id), call_id, rail, supplied=supplied)

    def is_watched(self, call_id: str, stage: Stage) -> bool:
        """Whether one of them has a say about texts of a stage around the answer."""
        return any(shadow.watches(stage) for shadow in self._wanting(call_id))

    def _wanting(self, call_id: str) -> list[ShadowPolicy]:
        return [shadow for shadow in self._shadows if shadow.wants(call_id)]

    def begin_shadows(self, rail: Rail) -> None:
        """Begin to load what shadows need. What fails is in the log, and tried again by a later call."""
        for shadow in self._shadows:
            shadow.loading(rail)

    async def cascade(self, rail: Rail) -> Cascade:
        """The judges of answers or of a stage. Raises what `load_judges` does."""
        if rail == "answer" and self._judges is not None:
            return self._judges
        async with self._loading:
            if rail not in self._cascades:
                self._cascades[rail] = await load_rail(self._policy, rail, allow_python=self._given.allow_python)
            return self._cascades[rail]

    async def aclose(self) -> None:
        """Wait for the calls that run, and free everything. May be called again."""
        self._closed = True
        if self._running:
            _log.info("a guard that is being closed waits for %d calls to end", self._running)
        while self._running:
            self._left.clear()
            await self._left.wait()
        await to_the_end(self._free())

    def retire(self) -> None:
        """Free everything as soon as no call runs. A call that comes later is served, and frees again what it loads."""
        self._retired = True
        if not self._running:
            begin(self._free_quietly)

    async def take_over(self, before: Loaded) -> None:
        """Load every judge, and the engine if ``before`` has it. Then retire ``before``.

        If a judge can't be loaded, or doesn't fit the engine, this frees what it holds and ``before`` goes on. An
        engine that can't be loaded is no reason against the judges, and the next call says so.

        Raises:
            InputError: a probe is another model's.
            What `load_judges` raises.
        """
        try:
            with self.in_use():
                answers = await self.cascade("answer")
                for stage, rail in self._policy.rails.items():
                    if rail.judges:
                        await self.cascade(stage)
                self.begin_shadows("answer")
                if before._engine is not None:
                    await self._fits(answers)
        except BaseException:
            await self.aclose()
            raise
        before.retire()

    async def _fits(self, answers: Cascade) -> None:
        try:
            engine = await self.engine()
        except StarsGuardError as exc:
            _log.warning("the engine cannot be loaded for a changed policy: %s", exc)
        else:
            await engine.check_directions(answers.directions)

    async def _free(self) -> None:
        async with AsyncExitStack() as stack:
            if not isinstance(self._given.audit, AuditStore) and _let_go(self.store, self):
                stack.push_async_callback(self.store.aclose)
            if self._engine is not None:
                stack.push_async_callback(self._engine.aclose)
            for cascade in self._cascades.values():
                stack.push_async_callback(cascade.aclose)
            for shadow in self._shadows:
                stack.push_async_callback(shadow.aclose)
            self._cascades, self._engine = {}, None

    async def _free_quietly(self) -> None:
        """As `_free`, where nobody waits for it."""
        try:
            await self._free()
        except Exception as exc:
            _log.warning("a part of a guard that was replaced cannot be closed: %s", type(exc).__name__)

    def _after_fork(self) -> None:
        if ready := self._given.ready:
            raise BackendError(
                f"the guard holds {' and '.join(ready)} of the process that this one was forked from",
                hint="make the guard after the fork, or give it names instead of parts that are ready",
            )
        self._begin()


_users: WeakKeyDictionary[AuditStore, WeakSet[Loaded]] = WeakKeyDictionary()
_lock = threading.Lock()


def _store(policy: Policy, url: str | None, user: Loaded) -> AuditStore:
    with _lock:
        store = shared_store(url or policy.audit.url, Writing(policy.audit.durability, policy.audit.on_error))
        _users.setdefault(store, WeakSet()).add(user)
    return store


def _let_go(store: AuditStore, user: Loaded) -> bool:
    """Whether nobody else uses the store."""
    with _lock:
        users = _users.get(store, WeakSet())
        users.discard(user)
        return not users


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
