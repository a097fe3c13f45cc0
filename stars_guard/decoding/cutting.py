"""Where a candidate ends: boundaries, stop strings, marked parts and entropy."""

from __future__ import annotations

from stars_guard.core.segments import Candidate, Token
from stars_guard.core.vocabulary import FinishReason
from stars_guard.decoding.spans import Span, find_spans, is_unfinished

__all__ = ["SegmentCutter"]

SHORTEST = 4
"""Tokens that a segment has at least before entropy cuts it, as in the published code of CARDS."""


class SegmentCutter:
    """Cuts one stream of tokens into a `Candidate`.

    Args:
        limit: the boundary, in tokens.
        stops: stop strings. The one that is complete first ends the answer; of those that are complete at the same
            character, the longest.
        held: the end of the answer so far that is not released, in which a stop string or a marked part may have begun.
        cut_entropy: in nats. The boundary is before the first token, from the fifth on, with at least this.
        spans: how parts are marked that must not be cut. A boundary inside one moves to its end, by ``stretch`` tokens
            at most.
        at_start: whether nothing but white space and reasoning is released of the answer.
        inside: the reasoning that ``held`` begins in.
        single: whether the answer ends with its first marked part.
    """

    def __init__(
        self,
        limit: int,
        *,
        stops: tuple[str, ...] = (),
        held: str = "",
        cut_entropy: float | None = None,
        spans: tuple[Span, ...] = (),
        stretch: int = 0,
        at_start: bool = False,
        inside: Span | None = None,
        single: bool = False,
    ) -> None:
        self._limit = limit
        self._most = limit + stretch
        self._spans = spans
        self._at_start = at_start
        self._inside = inside
        self._single = single
        self._stops = stops
        self._reach = max((len(stop) for stop in stops), default=1) - 1
        self._held = len(held)
        self._cut_entropy = cut_entropy
        self._tokens: list[Token] = []
        self._text = held
        self._end: int | None = None
        self._finish: FinishReason | None = None
        self.complete = False
        """Whether the boundary was met; no more tokens are taken."""

    def feed(self, token: Token) -> bool:
        """Take the next token; whether the boundary has been met."""
        if self.complete:
            return True
        if self._is_cut_by_entropy(token):
            self.complete = True
            return True
        self._tokens.append(token)
        before = len(self._text)
        self._text += token.text
        if token.text and (end := self._ended(before)) is not None:
            self._end, self._finish = end, "stop"
        elif token.last:
            self._finish = "eos"
        full = len(self._tokens) >= self._limit and not (len(self._tokens) < self._most and self._is_unfinished())
        self.complete = self._finish is not None or full
        return self.complete

    def _ended(self, before: int) -> int | None:
        """Where the answer ends, if a stop string or the one marked part is complete now.

        Args:
            before: length of the text before the token.
        """
        start = max(0, before - self._reach)
        places = [(stop, self._text.find(stop, start)) for stop in self._stops]
        # where it is complete, and where the answer ends then
        ends = [(at + len(stop), at) for stop, at in places if at >= 0]
        if self._single:
            found = find_spans(self._text, self._spans, at_start=self._at_start, inside=self._inside)
            marked = [part for part in found if not part.span.reasoning][:1]
            ends += [(part.stop, part.stop) for part in marked if part.closed]
        return min(ends)[1] if ends else None

    def _is_cut_by_entropy(self, token: Token) -> bool:
        if self._cut_entropy is None or len(self._tokens) < SHORTEST or (token.entropy or 0.0) < self._cut_entropy:
            return False
        return not self._is_unfinished()

    def _is_unfinished(self) -> bool:
        return bool(self._spans) and is_unfinished(
            self._text, self._spans, at_start=self._at_start, inside=self._inside
        )

    def candidate(self) -> Candidate:
        """What was cut."""
        end = len(self._text) if self._end is None else self._end
        return Candidate(
            tokens=tuple(self._tokens),
            text=self._text[self._held : max(end, self._held)],
            finish=self._finish,
            stop_overlap=max(0, self._held - end),
        )
