"""Passages of all calls that are ready at the same moment go to a scorer in one batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from stars_guard.core.segments import Passage
from stars_guard.scorers._breaker import Breaker
from stars_guard.scorers.base import Rating, Scorer

__all__ = ["Batcher", "batcher_of"]

Rated = tuple[Sequence[Rating], int]
"""Ratings, and the size of the batch that they were made in."""

Waiter = tuple[Sequence[Passage], "asyncio.Future[Rated]"]


class Batcher:
    """Merges concurrent requests: while one batch runs, what arrives waits and goes as the next."""

    def __init__(self, scorer: Scorer) -> None:
        self.breaker = Breaker()
        self._scorer = scorer
        self._waiting: list[Waiter] = []
        self._task: asyncio.Task[None] | None = None

    async def score(self, passages: Sequence[Passage]) -> Rated:
        future: asyncio.Future[Rated] = asyncio.get_running_loop().create_future()
        self._waiting.append((passages, future))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        return await future

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = [w for w in self._waiting if not w[1].done()], []
            if not await self._serve(batch) and len(batch) > 1:
                # One caller's passages must not fail another's: each goes alone.
                for waiter in batch:
                    await self._serve([waiter])

    async def _serve(self, batch: Sequence[Waiter]) -> bool:
        try:
            ratings = await self._scorer.score([passage for passages, _ in batch for passage in passages])
            size = sum(len(passages) for passages, _ in batch)
            if len(ratings) != size:
                raise ValueError("wrong number of scores")
        except Exception as exc:
            if len(batch) == 1 and not batch[0][1].done():
                batch[0][1].set_exception(exc)
            return False
        start = 0
        for passages, future in batch:
            if not future.done():
                future.set_result((ratings[start : start + len(passages)], size))
            start += len(passages)
        return True


_KEPT = "_stars_guard_batcher"


def batcher_of(scorer: Scorer) -> Batcher:
    """The one batcher of a scorer, whoever asks it.

    The scorer itself keeps it: so it lives as long as the scorer, and a scorer needs neither a hash nor to be mutable.
    """
    kept = vars(scorer)
    if _KEPT not in kept:
        kept[_KEPT] = Batcher(scorer)
    batcher: Batcher = kept[_KEPT]
    return batcher
