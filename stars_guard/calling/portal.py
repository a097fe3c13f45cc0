"""One background event loop for the whole process, and the doors to it.

Engines, batchers and stores live on this loop. Sync callers block on it; callers with a loop of their own await it.
So threads and tasks share one model, and there is no second copy of the logic for sync code.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import ExitStack
from typing import TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

__all__ = ["acall", "astream", "begin", "call", "stream"]

T = TypeVar("T")

_lock = threading.Lock()
_stack = ExitStack()
_portal: BlockingPortal | None = None
_loop: asyncio.AbstractEventLoop | None = None


async def _running_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def _get() -> BlockingPortal:
    global _portal, _loop
    with _lock:
        if _portal is None:
            _portal = _stack.enter_context(start_blocking_portal("asyncio", name="stars-guard"))
            _loop = _portal.call(_running_loop)
            atexit.register(_stack.close)
        return _portal


def call(function: Callable[[], Awaitable[T]]) -> T:
    """Run an async function on the loop and wait for it. Not to be called on the loop itself."""
    return _get().call(function)


def begin(function: Callable[[], Awaitable[object]]) -> None:
    """Run an async function on the loop without waiting for it. It has to handle its own errors."""
    _get().start_task_soon(function)


async def acall(function: Callable[[], Awaitable[T]]) -> T:
    """Run an async function on the loop, from any asyncio loop. Cancelling the caller cancels the function."""
    portal = _get()
    if asyncio.get_running_loop() is _loop:
        return await function()
    return await asyncio.wrap_future(portal.start_task_soon(function))


_END = object()


async def astream(make: Callable[[], AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
    """Iterate an async generator that lives on the loop, from any asyncio loop.

    Leaving the iteration early closes the generator, on the loop.
    """
    events = make()
    if asyncio.get_running_loop() is _loop:
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()
        return
    try:
        while (item := await acall(lambda: anext(events, _END))) is not _END:
            yield item  # type: ignore[misc]
    finally:
        await acall(events.aclose)


def stream(make: Callable[[], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
    """Iterate an async generator that lives on the loop, from sync code."""

    async def step() -> object:
        return await anext(events, _END)

    events = make()
    try:
        while (item := call(step)) is not _END:
            yield item  # type: ignore[misc]
    finally:
        call(events.aclose)
