"""Attempts by position: as many as are seen to pay.

Segments that fail are not alike: where the first candidates are rejected, the next ones usually are too. So what the
n-th attempt brings is counted over the segments that had one. Going on from it is worth the best share of accepted
candidates among the attempts n to m, over all m, and attempts end before the first n from which it is worth too little.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stars_guard.decoding import Settings
from stars_guard.decoding.settings import UpTo

__all__ = ["Tries", "attempts_by_position", "worth"]

FEWEST = 24
"""Segments with a second attempt that a position needs to have a number of its own."""

SEEN = 8
"""Attempts that must have been made before it is said that they don't pay."""


@dataclass(frozen=True, slots=True)
class Tries:
    """One segment of a guarded answer.

    Attributes:
        index: of the segment, from 0.
        made: candidates that were decided on.
        accepted: whether the last of them was.
    """

    index: int
    made: int
    accepted: bool


def worth(tries: Sequence[Tries], n: int) -> float | None:
    """The share of accepted candidates that going on from the n-th attempt is worth; None where too few were made."""
    made = accepted = 0
    best: float | None = None
    for attempt in range(n, max((each.made for each in tries), default=0) + 1):
        made += sum(each.made >= attempt for each in tries)
        accepted += sum(each.made == attempt and each.accepted for each in tries)
        if made >= SEEN:
            best = max(accepted / made, best or 0.0)
    return best


def attempts_by_position(tries: Sequence[Tries], settings: Settings, least: float) -> tuple[UpTo, ...]:
    """The attempts of the settings, without those that are worth less than ``least``.

    Args:
        tries: of answers under these settings.
        least: the share of accepted candidates from which an attempt pays, between 0 and 1.
    """
    steps: list[UpTo] = []
    for end, group in _positions(tries):
        most = settings.attempts_at((end - 1) * settings.segment_tokens)
        found = ((n, worth(group, n)) for n in range(2, most + 1))
        stop = next((n for n, share in found if share is not None and share < least), most + 1)
        step = UpTo(tokens=end * settings.segment_tokens, attempts=stop - 1)
        if steps and steps[-1].attempts == step.attempts:
            steps.pop()
        steps.append(step)
    return tuple(steps)


def _positions(tries: Sequence[Tries]) -> Iterator[tuple[int, Sequence[Tries]]]:
    """Segments that follow each other, together until enough of them had a second attempt, with the index behind."""
    last = max((each.index for each in tries), default=-1)
    groups: list[tuple[int, list[Tries]]] = []
    group: list[Tries] = []
    for index in range(last + 1):
        group += [each for each in tries if each.index == index]
        if sum(each.made > 1 for each in group) >= FEWEST:
            groups.append((index + 1, group))
            group = []
    if group and groups:
        groups[-1] = (last + 1, groups[-1][1] + group)
    elif group:
        groups = [(last + 1, group)]
    return iter(groups)
