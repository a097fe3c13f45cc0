"""Where the time of a call goes: the model, the judges, and what is ours, at 1 and 32 answers at once.

Model and judges are timed where they do their work, on vLLM from the request to its last token; while both rest, the
time is ours. Work of ours that goes on while they work costs nothing as long as the machine has a core for it, and is
told apart as the processor time of the event loop's thread. vLLM runs a part of itself on that thread: looks at the
stack every few milliseconds tell the two apart.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any
from unittest import mock

from benchmarks.measure import table, write_section
from benchmarks.parts import PROMPT
from stars_guard.audit import MemoryStore
from stars_guard.backends._slots import SlotModel
from stars_guard.backends.base import Backend
from stars_guard.backends.vllm_engine import VllmEngineBackend
from stars_guard.calling.backend_loading import load_backend
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import load_policy
from stars_guard.scorers.sequence_classifier import SequenceClassifier

__all__ = ["Shares", "main", "shares"]

LOOK = 0.002
"""Seconds between two looks at a stack."""


class Clock:
    """Wall time in which at least one of those who hold it works."""

    def __init__(self) -> None:
        self.busy = 0.0
        self._running = 0
        self._since = 0.0
        self._lock = threading.Lock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Work goes on."""
        with self._lock:
            if not self._running:
                self._since = time.perf_counter()
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                if not self._running:
                    self.busy += time.perf_counter() - self._since


@contextmanager
def _held(clocks: tuple[Clock, ...]) -> Iterator[None]:
    with ExitStack() as stack:
        for clock in clocks:
            stack.enter_context(clock.held())
        yield


def _call(function: Callable[..., Any], *clocks: Clock) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        with _held(clocks):
            return function(*args, **kwargs)

    return timed


def _stream(function: Callable[..., Any], *clocks: Clock) -> Callable[..., Any]:
    @functools.wraps(function)
    async def timed(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        with _held(clocks):
            async for item in function(*args, **kwargs):
                yield item

    return timed


class Looks:
    """Looks at the stack of the thread that makes this."""

    def __init__(self) -> None:
        self.vllm = self.others = 0
        self._watched = threading.get_ident()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Looks:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(LOOK):
            frame: FrameType | None = sys._current_frames()[self._watched]
            if frame is None or frame.f_code.co_filename.endswith("selectors.py"):
                continue
            while frame is not None and "/vllm/" not in frame.f_code.co_filename:
                frame = frame.f_back
            self.vllm += frame is not None
            self.others += frame is None


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of the wall time of a batch.

    Attributes:
        model: the forward passes and the drawing of the next tokens; ``judges`` alike. They may overlap.
        ours: while neither of them runs.
        loop: processor time of the event loop's thread, without what it does in vLLM's code.
    """

    seconds: float
    model: float
    judges: float
    ours: float
    loop: float


@contextmanager
def _timed(engine: Backend, model: Clock, judges: Clock, either: Clock) -> Iterator[None]:
    from stars_guard.backends import _sampling

    with ExitStack() as patches:

        def patch(owner: Any, name: str, wrap: Callable[..., Any], clock: Clock) -> None:
            patches.enter_context(mock.patch.object(owner, name, wrap(getattr(owner, name), clock, either)))

        patch(SequenceClassifier, "_readings", _call, judges)
        patch(SequenceClassifier, "_rows", _call, judges)
        if isinstance(engine, VllmEngineBackend):
            patch(engine.engine, "generate", _stream, model)
        else:
            patch(SlotModel, "forward", _call, model)
            patch(SlotModel, "_read", _call, model)
            patch(_sampling, "sample", _call, model)
        yield


async def shares(batch: int, answers: int, max_tokens: int, backend: str = "transformers") -> Shares:
    """The shares of a batch under the default policy.

    Called on the library's own event loop, whose processor time is told.
    """
    engine = await load_backend("embedded", backend)
    guard = Guard(load_policy("default"), model=engine, audit=MemoryStore())
    await guard.generate(PROMPT, CallOptions(max_tokens=2))
    model, judges, either, looks = Clock(), Clock(), Clock(), Looks()
    options = CallOptions(max_tokens=max_tokens, seed=1 if engine.reproducible else None)
    with _timed(engine, model, judges, either), looks:
        began, cpu = time.perf_counter(), time.thread_time()
        await guard.batch([PROMPT] * answers, options, concurrency=batch)
        wall, loop = time.perf_counter() - began, time.thread_time() - cpu
    loop *= looks.others / max(looks.others + looks.vllm, 1)
    return Shares(wall, model.busy / wall, judges.busy / wall, 1 - either.busy / wall, loop / wall)


async def main() -> None:
    """Measure all."""
    rows = []
    for backend in ("transformers", "vllm"):
        for batch, answers in ((1, 3), (32, 32)):
            found = await shares(batch, answers, 64, backend)
            parts = (found.model, found.judges, found.ours, found.loop)
            rows.append([backend, batch, found.seconds, *(f"{share:.1%}" for share in parts)])
    head = [
        "backend",
        "answers at once",
        "seconds",
        "model",
        "judges",
        "neither: ours",
        "processor time of our event loop",
    ]
    about = (
        "The default policy, answers of 64 tokens. Shares of wall time; model (with the drawing of each token) and "
        "judges may overlap. To look closer: "
        "`py-spy record -o profile.svg --threads -- python -m benchmarks profile`."
    )
    write_section("profile: where the time goes", f"{about}\n\n{table(head, rows)}", how="One run a row.")
