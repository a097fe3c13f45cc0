"""Parts that are expensive to make are made once for all who need the same, and closed when the last one lets go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

__all__ = ["Closable", "Lease", "Shared"]


class Closable(Protocol):
    """What can be closed."""

    async def aclose(self) -> None: ...


P = TypeVar("P", bound=Closable)


@dataclass(slots=True, eq=False)
class _Made(Generic[P]):
    task: asyncio.Task[P]
    users: int = 0


class Lease(Generic[P]):
    """One user's share in a part.

    Attributes:
        part: the part. Other users have the same one, so close the lease and never the part.
    """

    def __init__(self, part: P, leave: Callable[[], Awaitable[None]]) -> None:
        self.part = part
        self._leave = leave
        self._open = True

    async def aclose(self) -> None:
        """Let go of the part. Does nothing the second time."""
        if self._open:
            self._open = False
            await self._leave()


class Shared(Generic[P]):
    """Parts of one kind, by a key that holds everything that the part depends on. Use it on one event loop."""

    def __init__(self) -> None:
        self._made: dict[Hashable, _Made[P]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def lease(self, key: Hashable, make: Callable[[], Awaitable[P]]) -> Lease[P]:
        """Get the part of a key. The first user makes it. A failure reaches all who wait; the next user tries again.

        A user who is cancelled while the part is made stops only the waiting.
        """

        async def run() -> P:
            return await make()

        made = self._made.get(key)
        if made is None or _failed(made.task):
            made = self._made[key] = _Made(asyncio.get_running_loop().create_task(run()))
        made.users += 1
        try:
            part = await asyncio.shield(made.task)
        except BaseException:
            if self._is_last(key, made):
                # the part may still be on its way, and nobody else is left to close it
                closing = asyncio.get_running_loop().create_task(_close(made.task))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
            raise
        return Lease(part, lambda: self._leave(key, made))

    async def _leave(self, key: Hashable, made: _Made[P]) -> None:
        if self._is_last(key, made):
            await made.task.result().aclose()

    def _is_last(self, key: Hashable, made: _Made[P]) -> bool:
        """Take one user away. When none is left the part is forgotten, so that the next user makes a new one."""
        made.users -= 1
        if made.users:
            return False
        if self._made.get(key) is made:
            del self._made[key]
        return True


def _failed(task: asyncio.Task[P]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


async def _close(task: asyncio.Task[P]) -> None:
    with suppress(Exception):
        await (await task).aclose()
