"""Long texts in overlapping windows: which there are, and how the settled ones were rated, so none is read twice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from stars_guard.core.messages import Message
from stars_guard.errors import ScorerInputError
from stars_guard.scorers._per_call import PerCall
from stars_guard.scorers.base import Rating

__all__ = ["MOST_WINDOWS", "Settled", "check_count", "starts_of", "worst"]

MOST_WINDOWS = 256
"""Windows of one text where the policy does not say."""

T = TypeVar("T")


def starts_of(length: int, width: int, most: int) -> range:
    """Where windows of ``width`` begin in ``length`` tokens; each has a quarter of the one before it.

    A window that is full stays the same when the text grows.

    Raises:
        ScorerInputError: there would be more than ``most``.
    """
    step = max(1, width - width // 4)
    count = 1 + max(0, -(-(length - width) // step))
    check_count(count, most)
    return range(0, count * step, step)


def check_count(count: int, most: int) -> None:
    """Raise ScorerInputError for more windows than the policy allows, so that a judge that cannot read all fails."""
    if count > most:
        raise ScorerInputError(
            f"the text has more than {most} windows of the judge", hint="raise max_length or max_windows"
        )


def worst(ratings: Sequence[Rating], *, cached: Sequence[int] | None = None) -> Rating:
    """The rating of a text by those of its windows: the highest, and which window that is.

    What is not a number counts most.

    Args:
        cached: tokens that were not read again, of all windows; None takes those of the ratings.
    """
    number = max(range(len(ratings)), key=lambda i: (ratings[i].value != ratings[i].value, ratings[i].value))
    if cached is None:
        cached = [rating.cached for rating in ratings if rating.cached is not None]
    found = replace(ratings[number], cached=sum(cached) if cached else None)
    if len(ratings) == 1:
        return found
    place = f"window {number + 1} of {len(ratings)}"
    return replace(found, detail=f"{found.detail}, {place}" if found.detail else place)


class Settled(Generic[T]):
    """What is known of the windows of each call, by anything that tells them apart."""

    def __init__(self) -> None:
        self._calls: PerCall[tuple[tuple[Message, ...], OrderedDict[Any, T]]] = PerCall()

    def of(self, call_id: str, messages: tuple[Message, ...]) -> OrderedDict[Any, T]:
        """What is kept for a call, to be read and added to. It is empty if the conversation is another one."""
        before, known = self._calls.take(call_id) or (messages, OrderedDict())
        if before is not messages and before != messages:
            known = OrderedDict()
        self._calls.put(call_id, (messages, known))
        return known

    def keep(self, call_id: str, messages: tuple[Message, ...], key: Any, value: T, most: int) -> None:
        """Keep one more, and at most twice ``most`` of a call: candidates that were rejected had windows too."""
        known = self.of(call_id, messages)
        known[key] = value
        while len(known) > 2 * most:
            known.popitem(last=False)

    def forget(self, call_id: str) -> None:
        """Drop what is kept for a call."""
        self._calls.forget(call_id)
