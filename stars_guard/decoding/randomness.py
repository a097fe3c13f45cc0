"""All randomness of a call, from one seed.

Each number depends on (seed, segment, attempt, purpose) alone and not on what was generated before. So the same call
gives the same answer whatever the number of parallel candidates, and a decision can be redone from the record.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

__all__ = ["Place", "derive_seed", "uniform"]


def _digest(seed: int, segment: int, attempt: int, purpose: str) -> int:
    text = f"{seed}/{segment}/{attempt}/{purpose}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def derive_seed(seed: int, segment: int, attempt: int) -> int:
    """The 63-bit seed with which a candidate's tokens are sampled."""
    return _digest(seed, segment, attempt, "draw") >> 1


def uniform(seed: int, segment: int, attempt: int) -> float:
    """The number in [0, 1) against which a candidate's probability of acceptance is held."""
    return _fraction(_digest(seed, segment, attempt, "accept"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a candidate is in its call, and the call's seed: what its random numbers follow from."""

    seed: int
    segment: int
    attempt: int

    def share(self, judge: str) -> float:
        """The number in [0, 1) that decides whether a judge is asked by chance. Each judge has its own."""
        return _fraction(_digest(self.seed, self.segment, self.attempt, f"ask/{judge}"))


def _fraction(digest: int) -> float:
    return (digest >> 11) * 2.0**-53
