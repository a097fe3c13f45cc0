"""An acceptance rule without an edge."""

import math

from stars_guard.decoding import AcceptanceRule


class Logistic(AcceptanceRule):
    """1 / (1 + exp((tau - r) / beta)): half of the candidates at the threshold are accepted."""

    def chance(self, *, reward: float, tau: float, beta: float) -> float:
        return 0.5 * (1.0 + math.tanh(0.5 * (reward - tau) / beta))
