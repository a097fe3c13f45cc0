"""Parts that hold a model are made once and shared by all who name the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

__all__ = ["PARTS", "shared"]

T = TypeVar("T")
PARTS: dict[tuple[object, ...], asyncio.Task[object]] = {}
"""By a key that holds everything that the part depends on. Used on the one event loop alone."""


async def shared(key: tuple[object, ...], make: Callable[[], Awaitable[T]]) -> T:
    """Make a part once for all callers; a failure is not kept."""

    async def run() -> object:
        return await make()

    task = PARTS.get(key)
    if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
        task = PARTS[key] = asyncio.get_running_loop().create_task(run())
    return cast("T", await asyncio.shield(task))
