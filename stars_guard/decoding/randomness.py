"""All randomness of a call, from one seed.

Each number depends on (seed, segment, attempt, purpose) alone and not on what was drawn before. So the same call
gives the same answer whatever the number of parallel proposals, and a decision can be redone from the record.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

__all__ = ["derive_seed", "uniform"]


def _digest(seed: int, segment: int, attempt: int, purpose: Literal["draw", "accept"]) -> int:
    text = f"{seed}/{segment}/{attempt}/{purpose}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def derive_seed(seed: int, segment: int, attempt: int) -> int:
    """The 63-bit seed with which a proposal's tokens are drawn."""
    return _digest(seed, segment, attempt, "draw") >> 1


def uniform(seed: int, segment: int, attempt: int) -> float:
    """The number in [0, 1) against which a proposal's probability of acceptance is held."""
    return (_digest(seed, segment, attempt, "accept") >> 11) * 2.0**-53
