"""One background event loop for the whole process, and the doors to it.

Engines, batchers and stores live on this loop. Sync callers block on it, and callers with a loop of their own await it.
So threads and tasks share one model, and there is no second copy of the logic for sync code.

Whoever leaves early, by a cancellation, a timeout, Ctrl-C or a closed iterator, cancels what was begun on the loop and
waits until it has ended: then its engine is free and its record is written.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent import futures
from contextlib import aclosing, suppress
from contextvars import ContextVar, copy_context
from typing import Any, Generic, TypeVar

import anyio

from stars_guard.errors import InputError

__all__ = ["Errand", "acall", "astream", "begin", "call", "is_inside", "stream", "to_the_end"]

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds that a sync caller who is interrupted waits for its call to end. A second interrupt ends the wait."""


_inside: ContextVar[bool] = ContextVar("stars_guard_inside", default=False)


def is_inside() -> bool:
    """Whether the code runs on the loop, or in a thread that was begun there, as a judge does."""
    return _inside.get()


class _Background:
    """An event loop, and the thread that runs it."""

    def __init__(self) -> None:
        # made here, so that a caller with an event loop of its own doesn't wait for the thread to begin
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._closing = asyncio.Event()
        self.loop = self._runner.get_loop()
        self.thread = threading.Thread(target=self._run, name="stars-guard", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        with self._runner:
            self._runner.run(self._until_closed())

    async def _until_closed(self) -> None:
        await self._closing.wait()

    def close(self) -> None:
        """Cancel what still runs, and end the thread."""
        self.loop.call_soon_threadsafe(self._closing.set)
        self.thread.join(PATIENCE)


_lock = threading.Lock()
_background: _Background | None = None


def _get() -> _Background:
    global _background
    with _lock:
        if _background is None:
            _background = _Background()
        return _background


def _close() -> None:
    if _background is not None:
        _background.close()


def _after_fork() -> None:
    """The thread has stayed in the parent process, so this process begins with another one."""
    global _background, _lock
    _background, _lock = None, threading.Lock()


atexit.register(_close)
os.register_at_fork(after_in_child=_after_fork)


class Errand(Generic[T]):
    """A function that runs on the loop, as one task, for a caller elsewhere.

    Attributes:
        outcome: what the function gives or raises. It is not done before the function has ended, cleaning up included.
    """

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self.outcome: futures.Future[T] = _future()
        self._function = function
        self._background = _get()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin. Apart from making it, because an interrupt may come between any two lines of a sync caller."""
        self._background.loop.call_soon_threadsafe(self._start, context=copy_context())

    def cancel(self) -> None:
        """Ask the function to end."""
        with suppress(RuntimeError):  # the loop is closed, so nothing runs on it
            self._background.loop.call_soon_threadsafe(self._cancel)

    def leave(self) -> None:
        """Make an end of it, and wait for the end. For sync callers."""
        if not self.outcome.done():
            self.cancel()
            # an iterator may be collected on the loop's own thread, which must not wait for itself
            if threading.current_thread() is not self._background.thread:
                futures.wait([self.outcome], PATIENCE)

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._ended)

    async def _run(self) -> None:
        _inside.set(True)
        try:
            result = await self._function()
        except BaseException as exc:
            # not raised here: a SystemExit would end the loop for everybody
            self.outcome.set_exception(exc)
        else:
            self.outcome.set_result(result)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:
            self._ended()

    def _ended(self, task: asyncio.Task[None] | None = None) -> None:
        if not self.outcome.done():  # cancelled before it began
            self.outcome.set_exception(asyncio.CancelledError())


def _future() -> futures.Future[T]:
    """A future that cannot be cancelled by those who wait for it."""
    made: futures.Future[T] = futures.Future()
    made.set_running_or_notify_cancel()
    return made


def begin(function: Callable[[], Awaitable[T]]) -> Errand[T]:
    """Run an async function on the loop without waiting for it. What it gives or raises is in the `Errand` alone."""
    errand = Errand(function)
    errand.start()
    return errand


def call(function: Callable[[], Awaitable[T]]) -> T:
    """Run an async function on the loop and wait for it. An interrupt (Ctrl-C) cancels the function.

    Raises:
        InputError: the caller is on the loop itself, and would wait for itself.
    """
    if threading.current_thread() is _get().thread:
        raise InputError(
            "a blocking method was called on the event loop of stars-guard", hint="await the async method instead"
        )
    errand = Errand(function)
    try:
        errand.start()
        return errand.outcome.result()
    finally:
        errand.leave()


async def acall(function: Callable[[], Awaitable[T]]) -> T:
    """Run an async function on the loop, from any asyncio loop. Cancelling the caller cancels the function."""
    if asyncio.get_running_loop() is _get().loop:
        return await function()
    errand = Errand(function)
    errand.start()
    ended = asyncio.wrap_future(errand.outcome)
    try:
        await asyncio.wait([ended])
        return ended.result()
    finally:
        await _left(errand, ended)


class _Pump(Errand[None], Generic[T]):
    """Owns an async generator. One task on the loop takes its items, each only when it has been asked for.

    So a slow reader slows the generator down, and nobody else ever enters or closes the generator.
    """

    def __init__(self, make: Callable[[], AsyncGenerator[T, None]]) -> None:
        self._make = make
        self._asked: asyncio.Queue[futures.Future[T]] = asyncio.Queue()
        super().__init__(self._take)

    def ask(self) -> futures.Future[T]:
        """The next item. It never comes if the generator ends, which `outcome` says."""
        item: futures.Future[T] = _future()
        with suppress(RuntimeError):  # the loop is closed, and the outcome is there
            self._background.loop.call_soon_threadsafe(self._asked.put_nowait, item)
        return item

    async def _take(self) -> None:
        async with aclosing(self._make()) as items:
            asked = await self._asked.get()
            async for item in items:
                asked.set_result(item)
                asked = await self._asked.get()


async def astream(make: Callable[[], AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
    """Iterate an async generator that lives on the loop, from any asyncio loop. Leaving early cancels it."""
    pump = _Pump(make)
    pump.start()
    ended = asyncio.wrap_future(pump.outcome)
    try:
        while True:
            item = asyncio.wrap_future(pump.ask())
            either: list[asyncio.Future[Any]] = [item, ended]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not item.done():
                break
            yield item.result()
        ended.result()
    finally:
        await _left(pump, ended)


def stream(make: Callable[[], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
    """Iterate an async generator that lives on the loop, from sync code. Leaving early cancels it."""
    pump = _Pump(make)
    try:
        pump.start()
        while True:
            item = pump.ask()
            either: list[futures.Future[Any]] = [item, pump.outcome]
            futures.wait(either, return_when=futures.FIRST_COMPLETED)
            if not item.done():
                break
            yield item.result()
        pump.outcome.result()
    finally:
        pump.leave()


async def _left(errand: Errand[T], ended: asyncio.Future[T]) -> None:
    """As `Errand.leave`, for async callers."""
    try:
        if not ended.done():
            errand.cancel()
            await _until_done(ended)
    finally:
        ended.exception()  # looked at, so that asyncio does not warn of it


async def to_the_end(work: Awaitable[T]) -> T:
    """Await something that must be finished once it has begun. A cancellation is raised only after that."""
    task = asyncio.ensure_future(work)
    try:
        await _until_done(task)
    except asyncio.CancelledError:
        if not task.cancelled():
            task.exception()
        raise
    return task.result()


async def _until_done(future: asyncio.Future[T]) -> None:
    cancelled: asyncio.CancelledError | None = None
    try:
        # nearly always enough, and cheaper than the scope below
        await asyncio.wait([future])
    except asyncio.CancelledError as exc:
        cancelled = exc
    while not future.done():
        try:
            with anyio.CancelScope(shield=True):
                await asyncio.wait([future])
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        raise cancelled
