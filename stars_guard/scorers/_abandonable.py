"""Blocking code that may never come back, on threads that nobody has to wait for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

__all__ = ["in_thread_of_its_own"]

T = TypeVar("T")


async def in_thread_of_its_own(function: Callable[[], T]) -> T:
    """Run a blocking function on a new thread.

    A thread cannot be cancelled. When the caller is cancelled the thread goes on by itself and its result is dropped.
    It takes no place in a pool from others, and the process can end without it.
    """
    done: Future[T] = Future()
    context = copy_context()

    def run() -> None:
        if not done.set_running_or_notify_cancel():
            return
        try:
            result = context.run(function)
        except BaseException as exc:
            done.set_exception(exc)
        else:
            done.set_result(result)

    threading.Thread(target=run, name="stars-guard-judge", daemon=True).start()
    return await asyncio.wrap_future(done)
