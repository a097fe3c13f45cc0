"""How many proposals to draw at once."""

from __future__ import annotations

__all__ = ["AcceptanceRate", "best_width", "shared_row_cost"]

ALONE = 0.1
WIDEST = 16
MEMORY = 64
CLOSE = 1.1


class AcceptanceRate:
    """The acceptance rate seen so far, as the mean of a Beta(1.4, 0.6) prior and the last 64 decisions or so.

    It may be shared by all calls of a policy: the width changes when an answer comes, not what it is.
    """

    def __init__(self) -> None:
        self._accepted = 1.4
        self._decided = 2.0

    def observe(self, accepted: bool) -> None:
        """Count one decision; old ones count less and less."""
        self._accepted += accepted
        self._decided += 1
        if self._decided > MEMORY:
            self._accepted *= 0.5
            self._decided *= 0.5

    @property
    def mean(self) -> float:
        """The chance that the next proposal is accepted."""
        return self._accepted / self._decided


def shared_row_cost(alone: float, calls: int) -> float:
    """What one more row for each of ``calls`` calls in one batch costs, as a share of the step without.

    A step with R rows takes 1 + k (R - 1) of one with a single row, so the share is k L / (1 + k (L - 1)): next to
    nothing for a call alone on an accelerator, nearly one on an engine that many calls keep busy.

    Args:
        alone: k, what a second row costs, as a share of a step with one.
        calls: L, calls that draw now.
    """
    return alone * calls / (1 + alone * (calls - 1))


def best_width(rate: float, most: int, row_cost: float = ALONE) -> int:
    """The smallest width whose expected time until a segment is accepted is within a tenth of the least.

    A round of m proposals costs 1 + c (m - 1) and succeeds with chance 1 - (1 - rate)^m, so the expected cost is their
    ratio. Only powers of two up to ``most`` are looked at. A tenth, because wider rounds draw more tokens, and neither
    rate nor row cost is known better than that.

    Args:
        row_cost: c, see `shared_row_cost`.
    """
    widths = [1]
    while widths[-1] * 2 <= min(most, WIDEST):
        widths.append(widths[-1] * 2)
    costs = {m: (1 + row_cost * (m - 1)) / (1 - (1 - rate) ** m) for m in widths}
    return next(m for m in widths if costs[m] <= CLOSE * min(costs.values()))
