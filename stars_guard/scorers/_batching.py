"""Passages of all calls that are ready at the same moment go to a scorer in one batch."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from stars_guard.core.segments import Passage
from stars_guard.errors import ScorerError
from stars_guard.scorers._breaker import Breaker
from stars_guard.scorers.base import Rating, Scorer

__all__ = ["Batcher", "batcher_of"]

Rated = tuple[Sequence[Rating], int]
"""Ratings, and the size of the batch that they were made in."""

Waiter = tuple[Sequence[Passage], "asyncio.Future[Rated]"]

PATIENCE = 5.0
"""Seconds that a scorer has to end after nobody waits for its answer. Then it is left behind, and the next is asked."""


class Batcher:
    """Merges concurrent requests: while one batch runs, what arrives waits and goes as the next.

    A batch lives as long as somebody waits for it. When all who wait have gone, by their timeouts or by a
    cancellation, it is cancelled, so that a scorer that hangs does not take the next callers with it. A scorer that
    does not heed the cancellation is left behind after `PATIENCE` seconds: it then runs beside the next batch.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.breaker = Breaker()
        self.process = os.getpid()
        self._scorer = scorer
        self._waiting: list[Waiter] = []
        self._task: asyncio.Task[None] | None = None
        self._left_behind: set[asyncio.Task[Sequence[Rating]]] = set()

    async def score(self, passages: Sequence[Passage]) -> Rated:
        """Ratings of some passages, in order, and how many there were in the batch. Raises what the scorer raises about
        them."""
        if not self._scorer.waits:
            return await self._ask(passages), len(passages)
        future: asyncio.Future[Rated] = asyncio.get_running_loop().create_future()
        self._waiting.append((passages, future))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        return await future

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            if not await self._serve(batch) and len(batch) > 1:
                # One caller's passages must not fail another's: each goes alone.
                for waiter in batch:
                    await self._serve([waiter])

    async def _serve(self, batch: Sequence[Waiter]) -> bool:
        """Answer those who still wait; False where the scorer failed."""
        batch = [waiter for waiter in batch if not waiter[1].done()]
        if not batch:
            return True
        passages = [passage for given, _ in batch for passage in given]
        scoring = asyncio.get_running_loop().create_task(self._ask(passages))
        await self._while_wanted(scoring, [future for _, future in batch])
        if not scoring.done():
            return True
        try:
            ratings = scoring.result()
        except (Exception, asyncio.CancelledError) as exc:
            if len(batch) == 1 and not batch[0][1].done():
                cancelled = isinstance(exc, asyncio.CancelledError)
                batch[0][1].set_exception(ScorerError("the scorer cancelled itself") if cancelled else exc)
            return False
        start = 0
        for given, future in batch:
            if not future.done():
                future.set_result((ratings[start : start + len(given)], len(passages)))
            start += len(given)
        return True

    async def _ask(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        try:
            ratings = await self._scorer.score(passages)
        except (KeyboardInterrupt, SystemExit) as exc:
            raise ScorerError(f"the scorer raised {type(exc).__name__}") from exc  # it would end the event loop
        if len(ratings) != len(passages):
            raise ScorerError(f"the scorer gave {len(ratings)} scores for {len(passages)} passages")
        return ratings

    async def _while_wanted(
        self, scoring: asyncio.Task[Sequence[Rating]], futures: Sequence[asyncio.Future[Rated]]
    ) -> None:
        either: list[asyncio.Future[Any]] = [scoring, asyncio.gather(*futures, return_exceptions=True)]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not scoring.done():
            scoring.cancel()
            self._left_behind.add(scoring)
            scoring.add_done_callback(self._ended)
            await asyncio.wait([scoring], timeout=PATIENCE)

    def _ended(self, scoring: asyncio.Task[Sequence[Rating]]) -> None:
        self._left_behind.discard(scoring)
        if not scoring.cancelled():
            scoring.exception()  # nobody waits for it any more


_KEPT = "_stars_guard_batcher"


def batcher_of(scorer: Scorer) -> Batcher:
    """The one batcher of a scorer, whoever asks it.

    The scorer itself keeps it: so it lives as long as the scorer, and a scorer needs neither a hash nor to be mutable.
    """
    kept = vars(scorer)
    batcher: Batcher | None = kept.get(_KEPT)
    if batcher is None or batcher.process != os.getpid():
        batcher = kept[_KEPT] = Batcher(scorer)
    return batcher
