"""Where the time of a call goes: the model, the judges, and what is ours, at 1 and 32 answers at once.

The model's and the judges' threads are timed where they do their work; while both rest, the time is ours. Work of ours
that goes on while they work costs nothing, and is told apart as the processor time of the event loop's thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from benchmarks.measure import table, write_section
from benchmarks.parts import PROMPT
from stars_guard.assembly import load_backend
from stars_guard.audit import MemoryStore
from stars_guard.backends.transformers import TransformersBackend
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import load_policy
from stars_guard.scorers.sequence_classifier import SequenceClassifier

__all__ = ["Shares", "main", "shares"]


@dataclass
class Clock:
    """Wall time in which at least one of some functions runs, and each one's own."""

    busy: float = 0.0
    each: dict[str, float] = field(default_factory=dict)
    _running: int = 0
    _since: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed under a name."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            with self._lock:
                if not self._running:
                    self._since = began
                self._running += 1
            try:
                return function(*args, **kwargs)
            finally:
                ended = time.perf_counter()
                with self._lock:
                    self._running -= 1
                    if not self._running:
                        self.busy += ended - self._since
                    self.each[name] = self.each.get(name, 0.0) + ended - began

        return timed


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of the wall time of a batch.

    Attributes:
        model: the forward passes and the drawing of the next tokens; ``judges`` alike. They may overlap.
        ours: while neither of them runs.
        loop: processor time of the event loop's thread.
    """

    seconds: float
    model: float
    judges: float
    ours: float
    loop: float


@contextmanager
def _timed(clock: Clock) -> Iterator[None]:
    parts = [
        (TransformersBackend, "_forward", "model"),
        (TransformersBackend, "_prefill", "model"),
        (SequenceClassifier, "_logits", "judges"),
    ]
    patches = [mock.patch.object(kind, name, clock.wrap(part, getattr(kind, name))) for kind, name, part in parts]
    from stars_guard.backends import _sampling

    patches.append(mock.patch.object(_sampling, "sample", clock.wrap("model", _sampling.sample)))
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


async def shares(batch: int, answers: int, max_tokens: int) -> Shares:
    """The shares of a batch under the default policy, on the transformers backend.

    Called on the library's own event loop, whose processor time is told.
    """
    engine = await load_backend("embedded", "transformers")
    guard = Guard(load_policy("default"), model=engine, audit=MemoryStore())
    await guard.generate(PROMPT, CallOptions(max_tokens=2))
    clock = Clock()
    with _timed(clock):
        began, cpu = time.perf_counter(), time.thread_time()
        await guard.batch([PROMPT] * answers, CallOptions(max_tokens=max_tokens, seed=1), concurrency=batch)
        wall, loop = time.perf_counter() - began, time.thread_time() - cpu
    parts = {name: clock.each.get(name, 0.0) / wall for name in ("model", "judges")}
    return Shares(wall, parts["model"], parts["judges"], 1 - clock.busy / wall, loop / wall)


async def main() -> None:
    """Measure all."""
    rows = []
    for batch, answers in ((1, 3), (32, 32)):
        found = await shares(batch, answers, 64)
        rows.append([batch, found.seconds, *(f"{v:.1%}" for v in (found.model, found.judges, found.ours, found.loop))])
    head = ["answers at once", "seconds", "model", "judges", "neither: ours", "processor time of our event loop"]
    about = (
        "The default policy on the transformers backend, answers of 64 tokens. Shares of wall time; model (with the "
        "drawing of each token) and judges may overlap. To look closer: "
        "`py-spy record -o profile.svg --threads -- python -m benchmarks profile`."
    )
    write_section("profile: where the time goes", f"{about}\n\n{table(head, rows)}", how="One run a row.")
