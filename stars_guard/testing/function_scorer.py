"""A function as a judge: for tests of policies, ours and yours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import SupportsFloat

from stars_guard.core.segments import Passage
from stars_guard.scorers.base import Rating, Scorer

__all__ = ["FunctionScorer"]


class FunctionScorer(Scorer):
    """Calls ``function`` on each passage.

    Attributes:
        batches: how many passages each call of `score` had.
    """

    def __init__(self, function: Callable[[Passage], SupportsFloat | Rating], *, cost: float = 1.0) -> None:
        self.function = function
        self.cost = cost
        self.identity = {"kind": "function", "name": getattr(function, "__name__", type(function).__name__)}
        self.batches: list[int] = []

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        self.batches.append(len(passages))
        values = [self.function(passage) for passage in passages]
        return [value if isinstance(value, Rating) else Rating(float(value)) for value in values]
