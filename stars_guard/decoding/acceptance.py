"""Acceptance rules: how a candidate's reward and the threshold give the chance that it is accepted.

To add a rule, write its function and enter it in `ACCEPTANCE`. Policy, schema and record take the names from there.
"""

from __future__ import annotations

import math
from typing import Protocol

__all__ = ["ACCEPTANCE", "AcceptanceRule", "gibbs", "hard"]


class AcceptanceRule(Protocol):
    """Gives the chance that an unvetoed candidate is accepted, from 0 to 1."""

    def __call__(self, *, reward: float, tau: float, beta: float) -> float:
        """All in the reward model's own unit; beta is above 0."""


def gibbs(*, reward: float, tau: float, beta: float) -> float:
    """min(1, exp((r - tau) / beta)) (arXiv 2511.03827, the acceptance step)."""
    return 1.0 if reward >= tau else math.exp((reward - tau) / beta)


def hard(*, reward: float, tau: float, beta: float) -> float:
    """1 if r >= tau, else 0."""
    return 1.0 if reward >= tau else 0.0


ACCEPTANCE: dict[str, AcceptanceRule] = {"gibbs": gibbs, "hard": hard}
