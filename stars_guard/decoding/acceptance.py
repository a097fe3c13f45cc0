"""Acceptance rules: how a candidate's reward and the threshold give the chance that it is accepted.

To add a rule, derive a class from `AcceptanceRule` and name it in the entry points ``stars_guard.acceptance`` of its
package. Ours are named in the same way. Policy, schema and record take the names from there.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, cast

from stars_guard.decoding.parts import PartOptions, Parts, is_abstract

__all__ = ["ACCEPTANCE", "AcceptanceRule", "Gibbs", "Hard", "acceptance_rule"]


class AcceptanceRule(PartOptions):
    """An acceptance rule with its options, which are its fields."""

    @abstractmethod
    def chance(self, *, reward: float, tau: float, beta: float) -> float:
        """The chance that an unvetoed candidate is accepted, from 0 to 1. The same numbers must always give the same
        chance, because the audit redoes it.

        Args:
            reward: r(x, y + s), in the reward model's own unit like the others.
            tau: the threshold.
            beta: the policy's; above 0.
        """


class Gibbs(AcceptanceRule):
    """min(1, exp((r - tau) / beta)) (arXiv 2511.03827, the acceptance step)."""

    def chance(self, *, reward: float, tau: float, beta: float) -> float:
        return 1.0 if reward >= tau else math.exp((reward - tau) / beta)


class Hard(AcceptanceRule):
    """1 if r >= tau, else 0."""

    def chance(self, *, reward: float, tau: float, beta: float) -> float:
        return 1.0 if reward >= tau else 0.0


def _problem(part: Any) -> str | None:
    if not (isinstance(part, type) and issubclass(part, AcceptanceRule)):
        return "it is not a subclass of stars_guard.decoding.AcceptanceRule"
    return "it has no method chance" if is_abstract(part) else None


ACCEPTANCE: Parts[type[AcceptanceRule]] = Parts("acceptance rule", _problem, group="stars_guard.acceptance")
"""Every acceptance rule that is installed."""


def acceptance_rule(said: str | PartOptions) -> AcceptanceRule:
    """The rule that a policy names. Raises what `Parts.get` does."""
    return cast("AcceptanceRule", ACCEPTANCE.made(said))
