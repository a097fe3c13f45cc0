"""Policies that are asked beside the live one. What they would have decided is recorded, and changes nothing."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable

from stars_guard.calling.judge_loading import load_rail
from stars_guard.concealing import concealed
from stars_guard.core.vocabulary import Rail, Stage
from stars_guard.errors import StarsGuardError
from stars_guard.policy import Shadow
from stars_guard.scorers.cascade import Cascade

__all__ = ["ShadowPolicy"]

_log = logging.getLogger("stars_guard")

REST = 60.0
"""Seconds after which judges that could not be loaded are loaded once more."""

PATIENCE = 5.0
"""Seconds that tasks have to end when the guard is closed."""


class ShadowPolicy:
    """One shadow of a guard. Its judges are loaded when they are first needed. Use it on the background loop alone."""

    def __init__(self, spec: Shadow, *, allow_python: bool) -> None:
        self.spec = spec
        self.name = concealed(spec.policy.name)
        self.digest = spec.policy.sha256
        self.rules = spec.policy.rails.tool_call.compiled()
        self._allow_python = allow_python
        self._loading: dict[Rail, asyncio.Task[Cascade]] = {}
        self._again: dict[Rail, float] = {}
        self._running: set[asyncio.Task[None]] = set()

    def wants(self, call_id: str) -> bool:
        """Whether the call is in its share. The same calls are in the shares of all shadows, the smaller ones first."""
        number = int.from_bytes(hashlib.sha256(call_id.encode()).digest()[:8], "big")
        return number < self.spec.share * 2**64

    def watches(self, stage: Stage) -> bool:
        """Whether it has a say about texts of a stage around the answer."""
        policy = self.spec.policy
        rules = stage == "tool_call" and policy.rails.tool_call.is_used
        return policy.mode != "off" and (rules or bool(dict(policy.rails.items())[stage].judges))

    def loading(self, rail: Rail) -> asyncio.Task[Cascade]:
        """The task that loads its judges, or has loaded them."""
        now = asyncio.get_running_loop().time()
        if rail not in self._loading or (self._has_failed(rail) and now >= self._again.get(rail, 0.0)):
            self._again[rail] = now + REST
            self._loading[rail] = asyncio.get_running_loop().create_task(self._load(rail))
            self._loading[rail].add_done_callback(_seen)
        return self._loading[rail]

    async def cascade(self, rail: Rail) -> Cascade:
        """Its judges. Raises what `load_rail` does."""
        return await asyncio.shield(self.loading(rail))

    def _has_failed(self, rail: Rail) -> bool:
        task = self._loading[rail]
        return task.done() and (task.cancelled() or task.exception() is not None)

    async def _load(self, rail: Rail) -> Cascade:
        try:
            return await load_rail(self.spec.policy, rail, allow_python=self._allow_python, shadow=True)
        except Exception as exc:
            # what is not ours may hold a secret in its text
            reason = str(exc) if isinstance(exc, StarsGuardError) else type(exc).__name__
            _log.warning("the judges of the shadow policy %s can't be loaded: %s", self.name, reason)
            raise

    def start(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None] | None:
        """Begin to follow a call; None where it follows too many already."""
        if len(self._running) >= self.spec.at_once:
            return None

        async def run() -> None:
            await work()

        task = asyncio.get_running_loop().create_task(run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def aclose(self) -> None:
        """Follow nothing any more, and free its judges."""
        tasks = {*self._running, *(task for task in self._loading.values() if not task.done())}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=PATIENCE)
        loaded = [task.result() for rail, task in self._loading.items() if task.done() and not self._has_failed(rail)]
        self._loading.clear()
        for cascade in loaded:
            await cascade.aclose()


def _seen(loading: asyncio.Task[Cascade]) -> None:
    """A failure is in the log, whoever waits for it."""
    if not loading.cancelled():
        loading.exception()
