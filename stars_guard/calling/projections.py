"""Averages of what judges read of the generator's hidden states, kept while an answer grows.

A token carries the values on the state before it, so the last token of a text has its state's values with the token
after it. The sums are kept by the number of tokens, up to the last token but one, which needs no token after it. So a
rejected candidate changes nothing, an answer may go back to any token, and no work grows with the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stars_guard.core.directions import Directions
from stars_guard.core.segments import Candidate

__all__ = ["Projections"]

Values = tuple[float, ...]


class Projections:
    """Those of one call.

    Args:
        directions: that its tokens carry the values of, in this order.
    """

    def __init__(self, directions: Sequence[Directions]) -> None:
        self._directions = tuple(directions)
        nothing = (0.0,) * sum(len(one) for one in self._directions)
        # by number of tokens: the sum over the states after each of them but the last
        self._sums: list[Values] = [nothing]
        # of the state after the prompt, once the answer has a token
        self._start = nothing

    def __bool__(self) -> bool:
        return bool(self._directions)

    def of(self, candidate: Candidate, kept: int) -> Mapping[str, Values]:
        """By digest, the averages over an answer of ``kept`` tokens with a candidate after them.

        Where no token came after the candidate they are about the text without its last token. An end of sequence is
        no text, and has no state. Without any token of text, it is the state after the prompt.
        """
        if not self._directions:
            return {}
        tokens = candidate.tokens
        ended = tokens[-1].last
        total = self._after(candidate, kept)[-1]
        count = kept + len(tokens) - 1
        if not ended and candidate.beyond is not None:
            total, count = _added(total, candidate.beyond), count + 1
        if count == 0:
            total, count = tokens[0].projections, 1
        return self._split(total, count)

    def at_start(self, values: Values) -> Mapping[str, Values]:
        """By digest, those of an empty answer.

        Args:
            values: that came with its first token.
        """
        return self._split(values, 1)

    def up_to(self, kept: int) -> Mapping[str, Values]:
        """By digest, those of the first ``kept`` tokens of the answer, without the state after the last of them."""
        if not self._directions:
            return {}
        return self._split(self._sums[kept], kept - 1) if kept > 1 else self._split(self._start, 1)

    def keep(self, candidate: Candidate, kept: int) -> None:
        """A candidate has become part of an answer of ``kept`` tokens. What had come after these is forgotten."""
        if self._directions:
            self._start = self._start if kept else candidate.tokens[0].projections
            self._sums[kept + 1 :] = self._after(candidate, kept)

    def _after(self, candidate: Candidate, kept: int) -> list[Values]:
        """The sums after each of the candidate's tokens."""
        total, found = self._sums[kept], []
        for number, token in enumerate(candidate.tokens, start=kept):
            # the first token of an answer carries the prompt's state
            total = _added(total, token.projections) if number else total
            found.append(total)
        return found

    def _split(self, total: Values, count: int) -> dict[str, Values]:
        found, start = {}, 0
        for one in self._directions:
            found[one.digest] = tuple(value / count for value in total[start : start + len(one)])
            start += len(one)
        return found


def _added(first: Values, second: Values) -> Values:
    return tuple(a + b for a, b in zip(first, second, strict=True))
