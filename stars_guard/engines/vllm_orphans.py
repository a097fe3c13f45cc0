"""Ends a vLLM engine whose program is gone.

vLLM ends the process of its engine when the program ends in order. A program that is killed (``kill -9``, ``SIGTERM``,
out of memory) leaves it behind, and it goes on generating. vLLM loads this module in each of its processes, as one of
its general plugins, and it then waits for the end of the program that started the engine.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["end_with_this_process", "watch_parent"]

PARENT = "STARS_GUARD_ENGINE_PARENT"
"""The environment variable with the id of the process that starts an engine, while it does."""

EVERY = 1.0
"""Seconds between two looks, where the system can't tell when a process ends."""


@contextmanager
def end_with_this_process() -> Iterator[None]:
    """Processes of vLLM that are started in this context end when this process ends, however it does."""
    os.environ[PARENT] = str(os.getpid())
    try:
        yield
    finally:
        os.environ.pop(PARENT, None)


def watch_parent() -> None:
    """Kill this process as soon as its parent has ended, if that is one that started an engine."""
    parent = os.getppid()
    if os.environ.get(PARENT) != str(parent):
        return
    threading.Thread(target=_wait_and_end, args=(parent,), name="stars-guard-parent", daemon=True).start()


def _wait_and_end(parent: int) -> None:
    try:
        ended = select.poll()
        ended.register(os.pidfd_open(parent), select.POLLIN)
        if os.getppid() == parent:
            ended.poll()
    except (AttributeError, OSError):  # not Linux, or it has ended already
        while os.getppid() == parent:
            time.sleep(EVERY)
    os.kill(os.getpid(), signal.SIGKILL)
