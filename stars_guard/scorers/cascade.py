"""Asks the judges, cheap ones first; passages of all calls that are ready at the same moment go in one batch."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from stars_guard.judging import Judgement, Rule, Score, combine
from stars_guard.scorers.base import Rating, Scorer
from stars_guard.segments import Passage

__all__ = ["Cascade", "Judge"]

Waiter = tuple[Sequence[Passage], "asyncio.Future[Sequence[Rating]]"]


@dataclass(frozen=True, slots=True)
class Judge:
    """A scorer, and what the policy makes of its score. ``timeout`` in seconds; None waits for ever."""

    rule: Rule
    scorer: Scorer
    timeout: float | None = None


class _Batcher:
    """Merges concurrent requests: while one batch runs, what arrives waits and goes as the next."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._waiting: list[Waiter] = []
        self._task: asyncio.Task[None] | None = None

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        future: asyncio.Future[Sequence[Rating]] = asyncio.get_running_loop().create_future()
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
            if len(ratings) != sum(len(passages) for passages, _ in batch):
                raise ValueError("wrong number of scores")
        except Exception as exc:
            if len(batch) == 1 and not batch[0][1].done():
                batch[0][1].set_exception(exc)
            return False
        start = 0
        for passages, future in batch:
            if not future.done():
                future.set_result(ratings[start : start + len(passages)])
            start += len(passages)
        return True


_batchers: WeakKeyDictionary[Scorer, _Batcher] = WeakKeyDictionary()


class Cascade:
    """All judges of one policy."""

    def __init__(self, judges: Sequence[Judge]) -> None:
        self.judges = tuple(judges)
        self.rules = tuple(judge.rule for judge in judges)
        self._order = sorted(judges, key=lambda judge: (judge.scorer.cost, judge.rule.reject_above is None))

    async def judge(self, passages: Sequence[Passage]) -> list[Judgement]:
        """Judge each passage. After a veto no further judge is asked about it.

        Raises:
            ScorerError: a judge failed and its rule says ``raise``.
        """
        return await self._ask(passages, self._order)

    async def judge_fully(self, passage: Passage) -> Judgement:
        """Every judge's word, whatever another vetoes. Raises as `judge` does."""
        scores = [(await _scores(judge, [passage]))[0] for judge in self.judges]
        return combine(scores, self.rules)

    async def prompt_reward(self, passage: Passage) -> tuple[float | None, int]:
        """r(x, "") and the number of passages scored; None when a judge failed or none gives a reward."""
        judges = [judge for judge in self._order if judge.rule.weight is not None]
        if not judges:
            return None, 0
        judgement = (await self._ask([passage], judges))[0]
        failed = any(score.value is None for score in judgement.scores)
        return (None if failed else judgement.reward), len(judgement.scores)

    async def _ask(self, passages: Sequence[Passage], judges: Sequence[Judge]) -> list[Judgement]:
        scores: list[list[Score]] = [[] for _ in passages]
        alive = list(range(len(passages)))
        for judge in judges:
            if not alive:
                break
            for index, score in zip(alive, await _scores(judge, [passages[i] for i in alive]), strict=True):
                scores[index].append(score)
            alive = [i for i in alive if combine(scores[i], self.rules).veto is None]
        return [combine(given, self.rules) for given in scores]

    async def forget(self, call_id: str) -> None:
        """Tell the scorers that a call is over."""
        for judge in self.judges:
            await judge.scorer.forget(call_id)


async def _scores(judge: Judge, passages: Sequence[Passage]) -> list[Score]:
    batcher = _batchers.get(judge.scorer)
    if batcher is None:
        batcher = _batchers[judge.scorer] = _Batcher(judge.scorer)
    name, began = judge.rule.judge, time.perf_counter()
    try:
        async with asyncio.timeout(judge.timeout):
            ratings = await batcher.score(passages)
    except Exception as exc:
        # The exception's text may hold user text; its kind does not.
        seconds = time.perf_counter() - began
        return [Score(name, None, error=type(exc).__name__, seconds=seconds) for _ in passages]
    seconds = time.perf_counter() - began
    return [
        Score(name, rating.value, detail=rating.detail, seconds=seconds)
        if math.isfinite(rating.value)
        else Score(name, None, error="the score is not a finite number", seconds=seconds)
        for rating in ratings
    ]
