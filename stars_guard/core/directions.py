"""Directions in the space of a generator's final hidden states, whose values a judge may ask for with each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Directions", "dot"]


def dot(first: Sequence[float], second: Sequence[float]) -> float:
    """The inner product of two vectors of one length."""
    return sum(a * b for a, b in zip(first, second, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Directions:
    """What a backend reads of its model's final hidden states, which are the input of the output layer.

    Two are equal where their digests are.

    Attributes:
        digest: of the file that they come from, or any other name of their own.
        model_sha256: which checkpoint's states they are for; see `stars_guard.engines.checkpoints.fingerprint`. Empty
            where they fit any model of their width.
        width: numbers in a hidden state.
        rows: one direction each, of ``width`` numbers. Its value for a state is their inner product. Without
            any it stands for the state itself: one direction along each axis.
    """

    digest: str
    model_sha256: str = field(compare=False)
    width: int = field(compare=False)
    rows: tuple[tuple[float, ...], ...] = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.rows) or self.width

    def values(self, state: Sequence[float]) -> tuple[float, ...]:
        """Their values for a state."""
        return tuple(dot(row, state) for row in self.rows) or tuple(state)
