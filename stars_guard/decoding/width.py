"""How many candidates to generate at once."""

from __future__ import annotations

from stars_guard.core.step_costs import StepCosts, WidthCost

__all__ = ["ALONE", "AcceptanceRate", "best_width"]

ALONE = StepCosts.line(0.1).shared(1)
"""What a width costs where nothing is known about the engine."""

WIDEST = 16
MEMORY = 64
CLOSE = 1.05
RAREST = 1e-6


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
        """The chance that the next candidate is accepted."""
        return self._accepted / self._decided


def best_width(rate: float, most: int, cost: WidthCost = ALONE) -> int:
    """The smallest width whose expected time until a segment is accepted is within a twentieth of the least.

    A round of m candidates takes ``cost(m)`` and succeeds with chance 1 - (1 - rate)^m, so the expected time is their
    ratio. Only powers of two up to ``most`` are considered, because between them nothing was measured. A twentieth,
    because wider rounds generate more tokens, and neither rate nor cost is known better than that.

    Args:
        rate: the chance that a candidate is accepted.
        most: candidates that the attempts and the budget allow, 1 or more.
        cost: see `StepCosts.shared`.
    """
    widths = [1]
    while widths[-1] * 2 <= min(most, WIDEST):
        widths.append(widths[-1] * 2)
    failure = 1 - max(rate, RAREST)
    times = {width: cost(width) / (1 - failure**width) for width in widths}
    return next(width for width in widths if times[width] <= CLOSE * min(times.values()))
