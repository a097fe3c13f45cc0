"""Measuring how long an engine's decoding step takes by its number of rows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from stars_guard.backends.base import Backend, OpenRequest, Proposal, Session
from stars_guard.core.messages import Message
from stars_guard.errors import StarsGuardError

__all__ = ["LIMIT", "ROWS", "step_times"]

ROWS = (1, 2, 4, 8, 16)
"""The widths that ``parallel: auto`` chooses from."""

MANY = (32, 64)
"""What several calls at once make of them; timed where time is left."""

TOKENS = 5
"""Of each proposal: four steps are timed after the first, which also reads the prompt."""

TURNS = (*ROWS, *ROWS, *MANY, *ROWS)
LIMIT = 0.8
"""Seconds that all of it may take. An engine too slow for that is not measured, or only with few rows."""

_PROMPT = [Message("user", "Tell me a long story about a lighthouse keeper and the sea.")]


async def step_times(
    backend: Backend, *, limit: float = LIMIT, clock: Callable[[], float] = time.perf_counter
) -> dict[int, float]:
    """Seconds of a step by its rows, as far as the time allows. It generates a few tokens that nobody gets.

    Each is the least of a few, because what disturbs a step makes it longer. Where an engine fails at many rows, for
    want of memory, the figures of fewer rows stand.

    Args:
        limit: seconds.
        clock: in seconds.

    Raises:
        StarsGuardError: the engine failed before there was a figure.
    """
    found: dict[int, float] = {}
    try:
        async with asyncio.timeout(limit):
            session = await backend.open(OpenRequest(messages=_PROMPT))
            try:
                # the first steps of an engine take longer than any later one
                await _step_time(session, 1, clock)
                for rows in TURNS:
                    took = await _step_time(session, rows, clock)
                    if took is not None:
                        found[rows] = min(took, found.get(rows, took))
            finally:
                await session.aclose()
    except TimeoutError:
        pass
    except StarsGuardError:
        if not found:
            raise
    return found


async def _step_time(session: Session, rows: int, clock: Callable[[], float]) -> float | None:
    """Seconds of a step with so many rows, or None where the engine gave all its tokens at once."""
    proposals = await session.propose(range(rows), TOKENS)
    marks: list[tuple[float, int]] = []

    async def read(proposal: Proposal) -> None:
        async for _ in proposal:
            if not marks and all(one.drawn for one in proposals):
                marks.append((clock(), sum(one.drawn for one in proposals)))
        if len(marks) == 1:
            # from here on a row is missing
            marks.append((clock(), sum(one.drawn for one in proposals)))

    try:
        async with asyncio.TaskGroup() as readers:
            for proposal in proposals:
                readers.create_task(read(proposal))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    finally:
        for proposal in proposals:
            await proposal.aclose()
    if len(marks) < 2 or marks[1][1] <= marks[0][1]:
        return None
    (began, before), (ended, after) = marks
    return rows * (ended - began) / (after - before)
