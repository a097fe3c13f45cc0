"""Parts that are expensive to make are made once for all who need the same, and closed when the last one lets go."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from stars_guard.errors import BackendUnavailable

__all__ = ["Closable", "Lease", "Shared"]


class Closable(Protocol):
    """What can be closed."""

    async def aclose(self) -> None: ...


P = TypeVar("P", bound=Closable)


@dataclass(slots=True, eq=False)
class _Made(Generic[P]):
    task: asyncio.Task[P]
    users: int = 0
    withdrawn: bool = False


class Lease(Generic[P]):
    """One user's share in a part.

    Attributes:
        part: the part. Other users have the same one, so close the lease and never the part.
    """

    def __init__(self, part: P, shared: Shared[P], key: Hashable, made: _Made[P]) -> None:
        self.part = part
        self._shared = shared
        self._key = key
        self._made = made
        self._open = True

    @property
    def withdrawn(self) -> bool:
        """Whether the part was taken from all who use it. Then get another lease."""
        return self._made.withdrawn

    async def aclose(self) -> None:
        """Let go of the part. Does nothing the second time."""
        if self._open:
            self._open = False
            await self._shared._leave(self._key, self._made)

    async def withdraw(self) -> None:
        """Close the part, whoever uses it, such as an engine that has died. The next user makes a new one."""
        await self._shared._withdraw(self._key, self._made)


class Shared(Generic[P]):
    """Parts of one kind, by a key that holds everything that the part depends on. Use it on one event loop."""

    def __init__(self) -> None:
        self._made: dict[Hashable, _Made[P]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._process = os.getpid()
        self._left_by_parent: list[object] = []

    async def lease(self, key: Hashable, make: Callable[[], Awaitable[P]]) -> Lease[P]:
        """Get the part of a key. The first user makes it. A failure reaches all who wait; the next user tries again.

        A user who is cancelled while the part is made stops only the waiting.

        Raises:
            BackendUnavailable: the part was withdrawn while it was being made.
        """

        async def run() -> P:
            return await make()

        self._after_fork()
        made = self._made.get(key)
        if made is None or _failed(made.task):
            made = self._made[key] = _Made(asyncio.get_running_loop().create_task(run()))
        made.users += 1
        try:
            part = await asyncio.shield(made.task)
        except BaseException as exc:
            if self._is_last(key, made):
                # the part may still be on its way, and nobody else is left to close it
                closing = asyncio.get_running_loop().create_task(_close(made.task))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
            if isinstance(exc, asyncio.CancelledError) and made.withdrawn and not _is_cancelled():
                raise BackendUnavailable("it was unloaded while it was being loaded", hint="call again") from None
            raise
        return Lease(part, self, key, made)

    async def withdraw_all(self) -> None:
        """Close all parts, whoever uses them. The next users make new ones."""
        self._after_fork()
        for key, made in list(self._made.items()):
            await self._withdraw(key, made)

    async def _withdraw(self, key: Hashable, made: _Made[P]) -> None:
        if self._made.get(key) is made:
            del self._made[key]
        if made.withdrawn:
            return
        made.withdrawn = True
        if not made.task.done():
            if made.task.get_loop().is_closed():  # the program ended the loop while the part was being made
                return
            made.task.cancel()
            await asyncio.wait([made.task])
        if not _failed(made.task):
            await made.task.result().aclose()

    async def _leave(self, key: Hashable, made: _Made[P]) -> None:
        if self._is_last(key, made) and not made.withdrawn and self._process == os.getpid():
            await made.task.result().aclose()

    def _is_last(self, key: Hashable, made: _Made[P]) -> bool:
        """Take one user away. When none is left the part is forgotten, so that the next user makes a new one."""
        made.users -= 1
        if made.users:
            return False
        if self._made.get(key) is made:
            del self._made[key]
        return True

    def _after_fork(self) -> None:
        """What the parent process made belongs to its threads. It is kept alive, as its end could touch theirs."""
        if self._process != os.getpid():
            self._left_by_parent.append(self._made)
            self._made, self._process = {}, os.getpid()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _failed(task: asyncio.Task[P]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


async def _close(task: asyncio.Task[P]) -> None:
    with suppress(Exception, asyncio.CancelledError):
        await (await task).aclose()
