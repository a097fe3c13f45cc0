"""What the benchmarks share: a prompt, guards whose judge accepts by chance at no cost, the time to the first text."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from stars_guard.audit import MemoryStore
from stars_guard.backends.base import Backend
from stars_guard.core.events import Released
from stars_guard.core.judging import Rule
from stars_guard.core.messages import Message
from stars_guard.guard import Guard
from stars_guard.scorers import Judge
from stars_guard.testing import FunctionScorer

__all__ = ["PROMPT", "guard_of", "policy", "released"]

PROMPT = [Message("user", "Tell me a long story about a lighthouse keeper and the sea.")]


def policy(**decoding: Any) -> Mapping[str, Any]:
    """A policy whose judge decides everything: threshold 0, beta 1."""
    base = {"segment_tokens": 16, "max_tokens": 64, "r_star": 0.0, "beta": 1.0, "schedule": "constant"}
    return {"apiVersion": "stars-guard/v1", "name": "bench", "decoding": {**base, **decoding}}


def guard_of(engine: Backend, acceptance: float, audit: Any = None, **decoding: Any) -> Guard:
    """A guard that accepts each segment with a given chance."""
    judge = Judge(Rule(judge="constant", weight=1.0), FunctionScorer(lambda passage: math.log(acceptance)))
    return Guard(policy(**decoding), model=engine, judges=[judge], audit=audit or MemoryStore())


async def released(guard: Guard) -> float:
    """Seconds from the call to its first text. The rest of the answer is given up."""
    began = time.perf_counter()
    stream = guard.stream(PROMPT)
    async for event in stream:
        if isinstance(event, Released):
            break
    took = time.perf_counter() - began
    await stream.aclose()
    return took
