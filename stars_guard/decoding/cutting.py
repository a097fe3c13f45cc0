"""Where a proposal ends, and which text may go out: boundaries, stop strings, entropy cuts."""

from __future__ import annotations

from stars_guard.core.segments import Candidate, Token
from stars_guard.core.vocabulary import FinishReason
from stars_guard.decoding.spans import Span, find_spans, is_unfinished

__all__ = ["SegmentCutter", "releasable"]

SHORTEST = 4
"""Tokens that a segment has at least before entropy cuts it, as in the published code of CARDS."""


class SegmentCutter:
    """Cuts one proposal's stream of tokens into a `Candidate`.

    Args:
        limit: the boundary, in tokens.
        stops: stop strings; the earliest in the text wins.
        carry: the end of the answer so far that may be the beginning of a stop string (see `releasable`).
        cut_entropy: in nats; the boundary is before the first token, from the fifth on, with at least this.
        spans: what must not be cut: a boundary inside one moves to its end, by ``stretch`` tokens at most.
        at_start: whether the answer begins with ``carry`` and this segment.
        single: the answer ends with its first span.
    """

    def __init__(
        self,
        limit: int,
        *,
        stops: tuple[str, ...] = (),
        carry: str = "",
        cut_entropy: float | None = None,
        spans: tuple[Span, ...] = (),
        stretch: int = 0,
        at_start: bool = False,
        single: bool = False,
    ) -> None:
        self._limit = limit
        self._most = limit + stretch
        self._spans = spans
        self._at_start = at_start
        self._single = single
        self._stops = stops
        self._reach = max((len(stop) for stop in stops), default=1) - 1
        self._carry = len(carry)
        self._cut_entropy = cut_entropy
        self._tokens: list[Token] = []
        self._text = carry
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
        start = max(0, len(self._text) - self._reach)
        self._text += token.text
        if token.text and self._stops:
            hits = [at for stop in self._stops if (at := self._text.find(stop, start)) >= 0]
            if hits:
                self._end, self._finish, self.complete = min(hits), "stop", True
        if self._single and token.text and self._finish is None:
            found = find_spans(self._text, self._spans, at_start=self._at_start)
            if found and found[0].closed:
                self._end, self._finish, self.complete = found[0].stop, "stop", True
        if token.last and self._finish is None:
            self._finish = "eos"
        full = len(self._tokens) >= self._limit and not (len(self._tokens) < self._most and self._is_unfinished())
        self.complete = self.complete or token.last or full
        return self.complete

    def _is_cut_by_entropy(self, token: Token) -> bool:
        if self._cut_entropy is None or len(self._tokens) < SHORTEST or (token.entropy or 0.0) < self._cut_entropy:
            return False
        return not self._is_unfinished()

    def _is_unfinished(self) -> bool:
        return bool(self._spans) and is_unfinished(self._text, self._spans, at_start=self._at_start)

    def candidate(self) -> Candidate:
        """What was cut."""
        end = len(self._text) if self._end is None else self._end
        return Candidate(
            tokens=tuple(self._tokens),
            text=self._text[self._carry : max(end, self._carry)],
            finish=self._finish,
            stop_overlap=max(0, self._carry - end),
        )


def releasable(text: str, stops: tuple[str, ...]) -> int:
    """How many characters of ``text`` cannot be part of a stop string that is still incomplete."""
    for held in range(min(len(text), max((len(stop) for stop in stops), default=1) - 1), 0, -1):
        tail = text[-held:]
        if any(len(stop) > held and stop.startswith(tail) for stop in stops):
            return len(text) - held
    return len(text)
