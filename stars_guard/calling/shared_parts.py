"""Parts that hold a model are made once and shared by all who name the same.

A `Keeper` keeps what is loaded under it. A part is freed when the last keeper that has it lets go.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar, cast
from weakref import WeakSet

from stars_guard.scorers.python import is_named

__all__ = ["PARTS", "Keeper", "is_shared", "shared"]

T = TypeVar("T")
Key = tuple[object, ...]

PARTS: dict[Key, asyncio.Task[object]] = {}
"""By a key that holds everything that the part depends on. Used on the one event loop alone."""

_keepers: dict[Key, WeakSet[Keeper]] = {}
_inner: dict[Key, Keeper] = {}
"""What a part itself keeps: a judge may be made of a model that other judges share."""

_left_by_parent: list[object] = []


class Closable(Protocol):
    """What every part can do."""

    async def aclose(self) -> None:
        """Free what it holds."""


class Keeper:
    """Keeps the shared parts that are loaded inside `keeping`, until it is closed."""

    def __init__(self) -> None:
        self._keys: set[Key] = set()

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """What is loaded here is kept by this keeper."""
        token = _keeper.set(self)
        try:
            yield
        finally:
            _keeper.reset(token)

    def keep(self, key: Key) -> None:
        """Keep the part of a key."""
        self._keys.add(key)
        _keepers.setdefault(key, WeakSet()).add(self)

    async def aclose(self) -> None:
        """Let go of all parts, and free those that nobody else keeps."""
        async with AsyncExitStack() as stack:
            while self._keys:
                key = self._keys.pop()
                keepers = _keepers.get(key, WeakSet())
                keepers.discard(self)
                if keepers:
                    continue
                _keepers.pop(key, None)
                if (inner := _inner.pop(key, None)) is not None:
                    stack.push_async_callback(inner.aclose)
                if (task := PARTS.pop(key, None)) is not None:
                    stack.push_async_callback(_free, task)


_keeper: ContextVar[Keeper | None] = ContextVar("stars_guard_keeper", default=None)


async def shared(key: Key, make: Callable[[], Awaitable[T]]) -> T:
    """Make a part once for all callers; a failure is not kept."""

    async def run() -> object:
        _inner[key] = inner = Keeper()
        with inner.keeping():
            return await make()

    if (keeper := _keeper.get()) is not None:
        keeper.keep(key)
    task = PARTS.get(key)
    if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
        task = PARTS[key] = asyncio.get_running_loop().create_task(run())
    return cast("T", await asyncio.shield(task))


def is_shared(part: object) -> bool:
    """Whether a part was made by `shared`, and so is freed by its keepers."""
    return any(_made(task) is part for task in PARTS.values())


def _made(task: asyncio.Task[object]) -> object:
    return task.result() if task.done() and not task.cancelled() and task.exception() is None else None


async def _free(task: asyncio.Task[Any]) -> None:
    await asyncio.wait([task])  # a model that is being loaded cannot be stopped halfway
    if (part := _made(task)) is not None and not is_named(part):
        await cast("Closable", part).aclose()


def _after_fork() -> None:
    """What the parent process has loaded belongs to its threads. It is kept alive, as its end could touch theirs."""
    _left_by_parent.extend([dict(PARTS), dict(_keepers), dict(_inner)])
    for parts in (PARTS, _keepers, _inner):
        parts.clear()


os.register_at_fork(after_in_child=_after_fork)
