"""Many jobs, so many at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import anyio

__all__ = ["concurrently"]

J = TypeVar("J")


async def concurrently(work: Callable[[J], Awaitable[None]], jobs: Iterable[J], limit: int) -> None:
    """Do every job, at most ``limit`` at once. The first error cancels the others, and is raised as it is."""
    waiting = iter(jobs)
    failures: list[Exception] = []

    async def worker() -> None:
        try:
            for job in waiting:
                await work(job)
        except Exception as exc:
            failures.append(exc)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for _ in range(limit):
            group.start_soon(worker)
    if failures:
        raise failures[0]
