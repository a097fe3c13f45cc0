"""How many proposals to draw at once."""

from __future__ import annotations

__all__ = ["AcceptanceRate", "best_width"]

ROW_COST = 0.1
"""What one more row in a decoding batch costs, as a share of a step with one row. Measured with a 135M model on two
cores it is 0.07; an accelerator has less. Judging is in it."""

WIDEST = 16


class AcceptanceRate:
    """The acceptance rate of a call so far, as the mean of a Beta(1.4, 0.6) prior and what was seen."""

    def __init__(self) -> None:
        self._accepted = 1.4
        self._decided = 2.0

    def observe(self, accepted: bool) -> None:
        """Count one decision."""
        self._accepted += accepted
        self._decided += 1

    @property
    def mean(self) -> float:
        """The chance that the next proposal is accepted."""
        return self._accepted / self._decided


def best_width(rate: float, most: int) -> int:
    """The width with the least expected time until a segment is accepted.

    A round of m proposals costs 1 + ROW_COST (m - 1) and succeeds with chance 1 - (1 - rate)^m, so the expected cost
    is their ratio. Only powers of two up to ``most`` are looked at; the smallest wins a tie.
    """
    widths = [1]
    while widths[-1] * 2 <= min(most, WIDEST):
        widths.append(widths[-1] * 2)
    return min(widths, key=lambda m: (1 + ROW_COST * (m - 1)) / (1 - (1 - rate) ** m))
