"""How long a decoding step takes by its number of rows. A row is one sequence that gets a token in the step."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Self

__all__ = ["StepCosts", "WidthCost"]

WidthCost = Callable[[int], float]
"""What a step costs a call that generates so many candidates at once, as a multiple of what one candidate costs it."""


@dataclass(frozen=True, slots=True)
class StepCosts:
    """A curve through points, each a number of rows and what a step with them costs as a multiple of one with a row.

    Between two points the curve is straight. After the last it rises by as much a row as it did between the last two
    points, or on average up to there, whichever is more: a flat end doesn't mean that a thousand rows are free.

    Raises:
        ValueError: the points don't begin with one row at a cost of 1, or rows or costs fall from one to the next.
    """

    points: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        if len(self.points) < 2 or self.points[0] != (1, 1.0):
            raise ValueError("a curve has two points or more, and begins with one row at a cost of 1")
        for (rows, cost), (more, their_cost) in pairwise(self.points):
            if not (rows < more and cost <= their_cost < math.inf):
                raise ValueError(f"a step with {more} rows can't cost {their_cost} where one with {rows} costs {cost}")

    @classmethod
    def line(cls, row_cost: float) -> Self:
        """Each row after the first costs the same.

        Args:
            row_cost: as a share of a step with one row; 0 or more.
        """
        return cls(((1, 1.0), (2, 1.0 + row_cost)))

    @classmethod
    def measured(cls, seconds: Mapping[int, float]) -> Self | None:
        """From the seconds of a step by its rows, or None where they say nothing: one row is missing, or is alone.

        More rows never take less time, so where they seem to, that was noise.
        """
        rows = sorted(seconds)
        if len(rows) < 2 or rows[0] != 1 or not 0 < seconds[1] < math.inf:
            return None
        costs = accumulate((seconds[count] / seconds[1] for count in rows), max)
        return cls(tuple(zip(rows, costs, strict=True)))

    def at(self, rows: int) -> float:
        """What a step with so many rows costs, 1 or more."""
        (before, cost), (last, most) = self.points[-2:]
        if rows > last:
            slope = max((most - cost) / (last - before), (most - 1) / (last - 1))
            return most + slope * (rows - last)
        place = max(1, bisect_left(self.points, rows, key=lambda point: point[0]))
        (low, least), (high, cost) = self.points[place - 1 : place + 1]
        return least + (cost - least) * (rows - low) / (high - low)

    def shared(self, calls: int) -> WidthCost:
        """What a width costs one of so many calls that generate at once, if all of them take that width."""
        calls = max(1, calls)
        alone = self.at(calls)
        return lambda width: self.at(width * calls) / alone
