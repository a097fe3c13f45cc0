"""Going back: which accepted segments are taken back, down to the token, and when there is enough left to do so. Pure.

A match may begin in text that is accepted but held, and be complete in the next segment. Then the segment that
completes it isn't at fault alone, so the answer goes back to the token with which the match begins. A segment whose
attempts run out may owe that to the segment before it, so the answer goes back over that segment if it is still held.
What comes next is a segment with a number of its own, and so with attempts and random numbers of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from stars_guard.core.segments import Candidate
from stars_guard.core.vocabulary import RewindWhy

__all__ = ["Back", "Standing", "reason_to_go_back"]


def reason_to_go_back(why: RewindWhy, *, attempts: int, veto: str | None) -> str:
    """In words.

    Args:
        attempts: how many the segment has had.
        veto: the last one of the segment.
    """
    if why == "match":
        return f"vetoed by {veto}"
    tries = f"no acceptable segment in {attempts} attempts"
    return f"{tries}; last veto: {veto}" if veto else tries


@dataclass(frozen=True, slots=True, kw_only=True)
class Back:
    """How far the answer goes back.

    Attributes:
        to: index of the first segment of which something is taken back.
        left: how many of its tokens stay.
        place: how many characters of the answer stay.
        tokens: how many are taken back.
    """

    to: int
    left: int
    place: int
    tokens: int


@dataclass(frozen=True, slots=True)
class _Segment:
    index: int
    # characters of each token
    sizes: tuple[int, ...]
    reward_before: float | None

    @property
    def characters(self) -> int:
        return sum(self.sizes)


class Standing:
    """The segments of the answer that stand, each token with its characters."""

    def __init__(self) -> None:
        self._segments: list[_Segment] = []

    def __len__(self) -> int:
        return len(self._segments)

    @property
    def characters(self) -> int:
        """Length of the answer."""
        return sum(segment.characters for segment in self._segments)

    def add(self, index: int, candidate: Candidate, reward_before: float | None) -> None:
        """Append a segment.

        Args:
            reward_before: r(x, y) of the answer before it; None when it is not known.
        """
        sizes = tuple(len(token.text) for token in candidate.tokens)
        self._segments.append(_Segment(index, sizes, reward_before))

    def before(self, characters: int) -> Back | None:
        """How to take back the last characters; None where no token begins there.

        Tokens without text that come right before the place are taken back too, because they are the beginning of the
        character there.
        """
        at = self.characters
        place = at - characters
        back: Back | None = None
        taken = 0
        for segment in reversed(self._segments):
            left = len(segment.sizes)
            while left and at - segment.sizes[left - 1] >= place:
                left, taken = left - 1, taken + 1
                at -= segment.sizes[left]
                back = Back(to=segment.index, left=left, place=at, tokens=taken)
            if left:
                break
        return back if at == place else None

    def last(self) -> Back | None:
        """How to take back the last segment, if there is one."""
        if not self._segments:
            return None
        last = self._segments[-1]
        place = self.characters - last.characters
        return Back(to=last.index, left=0, place=place, tokens=len(last.sizes))

    def cut(self, back: Back) -> float | None:
        """Take back, and give the reward of the answer before the first segment of which something was taken."""
        taken: _Segment | None = None
        while self._segments and self._segments[-1].index >= back.to:
            taken = self._segments.pop()
        assert taken is not None  # noqa: S101
        if back.left:
            self._segments.append(_Segment(taken.index, taken.sizes[: back.left], taken.reward_before))
        return taken.reward_before
