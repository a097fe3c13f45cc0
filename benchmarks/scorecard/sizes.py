"""How much each section measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["SIZES", "Size"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The size of a run.

    Attributes:
        secrets: made for each pattern and each kind of personal data.
        every: of long lists each so-manieth member is tried.
        pairs: of a user task and an injected one, at most, in each suite and attack of AgentDojo; 0 for all.
        minutes: how long the mixed load lasts.
        plan: of the alignment evaluation that the harm section shows.
        generates: whether answers that are not there yet are generated, which takes hours.
        models: whether small models are loaded and asked.
    """

    name: str
    secrets: int
    every: int
    pairs: int
    minutes: float
    plan: str
    generates: bool
    models: bool

    def few(self, found: Sequence[T]) -> list[T]:
        """What this size tries of a list whose members cost much: a tenth as rare as of others."""
        return list(found[:: max(1, self.every // 10)])

    def thinned(self, found: Sequence[T], turn: int = 0) -> list[T]:
        """What this size tries of a list, one member at least; in each turn others."""
        return list(found[turn % max(1, min(self.every, len(found))) :: self.every])


SIZES = {
    "full": Size(name="full", secrets=20, every=1, pairs=40, minutes=60, plan="full", generates=True, models=True),
    "quick": Size(name="quick", secrets=4, every=10, pairs=4, minutes=0.5, plan="full", generates=False, models=True),
    "smoke": Size(
        name="smoke", secrets=1, every=60, pairs=1, minutes=0.02, plan="smoke", generates=False, models=False
    ),
}
