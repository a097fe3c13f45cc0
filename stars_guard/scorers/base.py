"""The seam to whatever judges text: a scorer has one required method, and `JudgeOptions` say how a policy names it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from types import TracebackType
from typing import Self

from stars_guard.core.directions import Directions
from stars_guard.core.segments import Passage

__all__ = ["Find", "Rating", "Scorer"]


@dataclass(frozen=True, slots=True)
class Rating:
    """What a scorer says of one passage.

    Attributes:
        value: the score. What it means is the scorer's to say: a reward, a logit, a probability of harm.
        detail: a reason in a few words (a label, a pattern's name), without user text.
        cached: tokens that were not read again; None where the scorer does not know.
    """

    value: float
    detail: str | None = None
    _: KW_ONLY
    cached: int | None = None


Find = tuple[int, int, str]
"""Start and end in a text, and the name of what is there."""


class Scorer(ABC):
    """Gives each passage a number. `stars_guard.testing.ScorerTests` has what every scorer must keep to, as tests.

    Attributes:
        identity: what goes into the audit record: kind, model, revision or digest.
        cost: the rough time of one passage in milliseconds; cheap scorers are asked first.
        reads_turns: whether it reads the passage's messages by itself. For one that does not, ``scope: conversation``
            puts their texts before the answer.
        reads_calls: whether it reads the passage's parsed tool calls by itself. It is then asked about the passage
            alone, and not about the other forms and readings in which the text of the calls may be read.
        waits: whether `score` or `forget` may ever wait for something. One that only computes, and for less than a
            millisecond or so, says False. It is then asked at once, where others are asked in a task of their own.
        directions: what it reads of the generator's hidden states in place of the text. It then finds the averages in
            the passage's ``projections``, and is not asked about other forms of the text. None for all others.
    """

    identity: dict[str, str]
    cost: float = 1.0
    reads_turns: bool = False
    reads_calls: bool = False
    waits: bool = True

    @property
    def directions(self) -> Directions | None:
        """What it reads of the generator's hidden states; None for a scorer that reads the text."""
        return None

    @abstractmethod
    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        """Score passages of any number of calls in one batch, in order.

        Called on one event loop, never twice at once for one scorer; must not block it. The call is cancelled when
        nobody waits for its result any more: then end soon, or the next batch begins beside you.

        Raises:
            ScorerInputError: the scorer cannot take one of the texts. That call fails, and it is no outage.
            ScorerError: the scorer failed. Any other exception is taken as a failure too.
        """

    def find(self, text: str) -> Sequence[Find]:
        """Where in a text the parts are for which it has a score above 0. Empty for a scorer that does not know."""
        return ()

    def find_above(self, text: str, above: float) -> Sequence[Find]:
        """Where in a text the parts are for which it has a score above a value. Write it where scores are by degrees,
        so that a policy's own threshold says what is taken out of a text; else everything that `find` gives is."""
        return self.find(text)

    def open_from(self, text: str, start: int = 0) -> int | None:
        """From which character on something may have begun that the scorer would score above 0 once it is complete.

        The text goes on. What is open isn't released, so that the beginning of what is vetoed is never out. Must be
        fast, because it is asked after each segment.

        Args:
            start: nothing before this place matters, but it is context.

        Returns:
            The place, or None where nothing is open. A scorer that can't tell gives None; ``decoding.hold_tokens`` is
            there for such scorers.
        """
        return None

    async def forget(self, call_id: str) -> None:
        """Drop what is kept for a call that is over."""

    async def aclose(self) -> None:
        """Free what the scorer holds: a model, a thread, connections. May be called twice; `forget` may come after."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
