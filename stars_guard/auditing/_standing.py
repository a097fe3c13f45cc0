"""The segments that stand in the answer of a record, while the record is redone from its beginning."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stars_guard.audit.record import Rewind

__all__ = ["Stood", "StoodSegments"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stood:
    """One of them.

    Attributes:
        reward_before: r(x, y) of the answer before it.
    """

    index: int
    tokens: int
    characters: int
    reward_before: float | None


class StoodSegments:
    """They, in order."""

    def __init__(self) -> None:
        self._all: list[Stood] = []

    def __len__(self) -> int:
        return len(self._all)

    @property
    def tokens(self) -> int:
        """Length of the answer."""
        return sum(stood.tokens for stood in self._all)

    @property
    def characters(self) -> int:
        """Length of the answer."""
        return sum(stood.characters for stood in self._all)

    @property
    def last(self) -> Stood | None:
        """The last one."""
        return self._all[-1] if self._all else None

    def add(self, stood: Stood) -> None:
        """Append one."""
        self._all.append(stood)

    def problem(self, back: Rewind) -> str | None:
        """Why the answer cannot have gone back like that, or None."""
        first = next((stood for stood in self._all if stood.index == back.to), None)
        if first is None:
            return f"segment {back.to} was not in the answer"
        later = [stood for stood in self._all if stood.index > back.to]
        start = sum(stood.characters for stood in self._all if stood.index < back.to)
        if not 0 <= back.left < first.tokens:
            return f"segment {back.to} had {first.tokens} tokens, and {back.left} stayed"
        taken = first.tokens - back.left + sum(stood.tokens for stood in later)
        if back.tokens != taken:
            return f"{back.tokens} tokens were taken back on record, and there were {taken}"
        fits = start < back.place <= start + first.characters if back.left else back.place == start
        return None if fits else f"{back.place} characters stayed on record, and that is not where a token begins"

    def cut(self, back: Rewind) -> float | None:
        """Go back, and give the reward of the answer before the first segment of which something was taken."""
        first = next(stood for stood in self._all if stood.index == back.to)
        self._all = [stood for stood in self._all if stood.index < back.to]
        if back.left:
            self._all.append(replace(first, tokens=back.left, characters=back.place - self.characters))
        return first.reward_before
