"""Waiting for several requests at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

__all__ = ["together"]

T = TypeVar("T")


async def together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines at once and give their results in order.

    The first failure is raised as it is, not in a group, and the others are cancelled: a judge's failure is recorded by
    its kind.
    """
    tasks: list[asyncio.Task[T]] = []
    try:
        tasks += map(asyncio.ensure_future, coroutines)
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
