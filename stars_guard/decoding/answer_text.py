"""The text of an answer: what was accepted, and how much of it has been released."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate

from stars_guard.core.segments import Candidate
from stars_guard.decoding.spans import Found, Span, begun_at_end, find_spans, open_from
from stars_guard.errors import ProtocolError

__all__ = ["AnswerText", "Piece"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of the answer that is released.

    Attributes:
        text: never empty; of a marked part with its markers, but of reasoning without them.
        marked: how it was found in the answer; None for plain text.
    """

    text: str = field(repr=False)
    marked: Found | None = None


class AnswerText:
    """The accepted text has two parts: what is released, and after it what is held and must not be shown yet.

    Text is held from the first place that one of these sources names:

    - a stop string may have begun there;
    - a marked part (a tool call) or its opening marker begins there and has not ended: a marked part is released whole;
    - white space begins there that may turn out to lie beside a marked part, where it is dropped;
    - the marker that ends the reasoning may have begun there;
    - whoever calls `accept` names it in ``holds``;
    - the answer may go back to the end of a segment after it, where something had begun there.

    Where the answer was cut into candidates makes no difference to the pieces, except that plain text and reasoning may
    come in more or fewer of them.

    Args:
        stops: stop strings, none of them empty.
        spans: how marked parts are marked.
        inside: the reasoning that the answer begins in, because the prompt ends with its opening marker.
        whole_tokens: release no token in parts, so that what is held can be taken back and generated again.

    Attributes:
        spans: see above.
        inside: the reasoning that what is held begins in.
    """

    def __init__(
        self,
        stops: tuple[str, ...] = (),
        spans: tuple[Span, ...] = (),
        *,
        inside: Span | None = None,
        whole_tokens: bool = False,
    ) -> None:
        self.inside = inside
        self._stops = stops
        self.spans = spans
        self._whole_tokens = whole_tokens
        # where each token of the accepted text begins, in order
        self._starts: list[int] = []
        # the places to which the answer may go back, in order, and from where on it waits if it ends there
        self._backs: list[tuple[int, int]] = []
        self._accepted = ""
        self._released = 0
        # where the answer begins, reasoning aside
        self._start = 0
        # whether some of the reasoning that is open has been released
        self._has_reasoned = False
        # whether reasoning has ended, and nothing but white space was written since then
        self._follows_reasoning = False
        # whether white space that comes next is text: it is not beside a marked part, or there are none
        self._in_text = not spans
        self._has_marked = False

    @property
    def accepted(self) -> str:
        """All of the answer so far."""
        return self._accepted

    @property
    def released(self) -> str:
        """Its beginning, which is out, or was dropped."""
        return self._accepted[: self._released]

    @property
    def held(self) -> str:
        """Its end, which is not."""
        return self._accepted[self._released :]

    @property
    def is_at_start(self) -> bool:
        """Whether nothing is released yet but white space and reasoning."""
        return not self._accepted[self._start : self._released].strip()

    @property
    def begins_reasoning(self) -> tuple[str, ...]:
        """The markers with which reasoning begins."""
        return tuple(span.begin for span in self.spans if span.reasoning)

    def is_marked(self, text: str) -> bool:
        """Whether the held text with a candidate's after it contains a marked part, if only the beginning of one.

        Reasoning does not count.
        """
        return any(not part.span.reasoning for part in self._parts(self.held + text))

    def unfinished_from(self, candidate: Candidate) -> int | None:
        """Where in the accepted text, with a candidate's after it, a marked part begins that has not ended."""
        held = self.held[: len(self.held) - candidate.stop_overlap] + candidate.text
        place = open_from(held, self.spans, at_start=self.is_at_start, inside=self.inside)
        return None if place is None else self._released + place

    def begun_stop(self, text: str) -> int:
        """How many characters at the end of a text are held because a stop string may have begun there."""
        return begun_at_end(text, self._stops)

    def accept(self, candidate: Candidate, holds: Iterable[int] = (), tail: int | None = None) -> list[Piece]:
        """Append a candidate, and take back the characters before it that belong to a stop string which it completed.

        Args:
            holds: places in the accepted text, the candidate included, from which on it must not be released yet.
            tail: another one. It is of no matter after the answer went back.

        Returns:
            What is released now: all if the answer ends with the candidate.

        Raises:
            ProtocolError: characters that are released would be taken back. Nothing is changed then.
        """
        if candidate.stop_overlap > len(self.held):
            raise ProtocolError(f"{candidate.stop_overlap} characters are taken back, and {len(self.held)} are held")
        self._accepted = self._accepted[: len(self._accepted) - candidate.stop_overlap]
        if self._whole_tokens:
            sizes = (len(token.text) for token in candidate.tokens)
            # a list of its own, because copies of this text share the old one
            self._starts = [*self._starts, *accumulate(sizes, initial=len(self._accepted))]
        self._accepted += candidate.text
        return self.end() if candidate.finish is not None else self._release(self._free(holds, tail))

    def take_back(self, place: int, begun: int | None = None) -> None:
        """Drop what is held from a place on.

        Args:
            begun: from where on the answer waits if it ends there; None where that is known.

        Raises:
            ProtocolError: characters that are released would be taken back.
        """
        if place < self._released:
            raise ProtocolError(f"the text from {place} on is taken back, and {self._released} characters are released")
        self._accepted = self._accepted[:place]
        self._starts = [start for start in self._starts if start <= place]
        self._backs = [back for back in self._backs if back[0] <= place]
        if begun is not None:
            self._backs.append((place, begun))

    def begun(self) -> int:
        """Where a stop string or a marker may have begun that the answer's end cuts, if that is out already too."""
        marks = [mark for span in self.spans for mark in (span.begin, span.end) if mark]
        return len(self._accepted) - begun_at_end(self._accepted, [*self._stops, *marks])

    def fault(self, place: int) -> int | None:
        """From where on to generate the answer again if it is at fault from a place on: where the token or the
        marked part there begins. None where some of that is released, and where tokens are released in parts."""
        if not self._whole_tokens or not self._released <= place < len(self._accepted):
            return None
        found = self._released + self._uncut(place - self._released)
        return found if found == self._token_start(found) else None

    def end(self) -> list[Piece]:
        """Release what is held, because nothing comes after it."""
        return self._release(len(self._accepted), last=True)

    def _parts(self, text: str) -> list[Found]:
        return find_spans(text, self.spans, at_start=self.is_at_start, inside=self.inside)

    def _free(self, holds: Iterable[int], tail: int | None) -> int:
        """The place up to which text may be released now."""
        held = self.held
        opened = open_from(held, self.spans, at_start=self.is_at_start, inside=self.inside)
        places = [len(held) - begun_at_end(held, self._stops), len(held) if opened is None else opened]
        begun = max(0, min([*places, *(hold - self._released for hold in holds)]))
        free = self._settled(begun if tail is None else max(0, min(begun, tail - self._released)))
        if self._whole_tokens:
            # what was released before a place has no matter there
            backs = [back for back in self._backs if back[0] >= self._released]
            self._backs = [*backs, (len(self._accepted), self._released + begun)]
        for place, waits in reversed(self._backs):
            if place >= self._released + free > waits:
                free = self._settled(max(0, waits - self._released))
        return self._released + free

    def _settled(self, place: int) -> int:
        """The last place in the held text, up to a given one, up to which it may be released as it is."""
        held = self.held
        free = self._uncut(place)
        begun = max((part.stop for part in self._parts(held) if part.stop <= free), default=0)
        return begun if not held[begun:free].strip() and (begun > 0 or not self._in_text) else free

    def _free_in(self, part: Found, text: str) -> int:
        """As `_free`, for a part that the text has the beginning of. It waits as a whole, except reasoning, of which
        only a marker and the white space beside it wait."""
        if not part.span.reasoning:
            return part.start
        said = text[part.start :]
        begin, end = "" if self._begins_inside(part) else part.span.begin, part.span.end or ""
        said = said[: len(said) - begun_at_end(said, [end])].rstrip()
        return part.start + len(said) if len(said) > len(begin) else part.start

    def _begins_inside(self, part: Found) -> bool:
        return self.inside is not None and part.start == 0

    def _uncut(self, place: int) -> int:
        """The last place in the held text, up to a given one, that is not inside what waits as a whole: a marked part,
        and a token if tokens are released whole."""
        held = self.held
        marked = self._parts(held)
        while True:
            at = place
            for part in marked:
                if part.start < at and (at < part.stop or not part.closed):
                    at = self._free_in(part, held[:at])
            if not self._whole_tokens:
                return at
            at = max(0, self._token_start(self._released + at) - self._released)
            if at == place:
                return at
            place = at

    def _token_start(self, place: int) -> int:
        """The last place, up to a given one, where a token begins."""
        before = bisect_right(self._starts, place)
        return self._starts[before - 1] if before else 0

    def _release(self, until: int, *, last: bool = False) -> list[Piece]:
        text = self._accepted[self._released : until]
        pieces: list[Piece] = []
        at = 0
        for part in self._parts(text):
            pieces += self._plain(text[at : part.start])
            pieces += self._reasoning(text, part, last=last) if part.span.reasoning else self._marked(text, part)
            at = part.stop
        self._in_text = self._in_text or (last and not self._has_marked)
        pieces += self._plain(text[at:])
        self._released = until
        return pieces

    def _marked(self, text: str, part: Found) -> list[Piece]:
        self._in_text, self._has_marked, self._follows_reasoning = False, True, False
        return [Piece(text=text[part.start : part.stop], marked=part)]

    def _reasoning(self, text: str, part: Found, *, last: bool) -> list[Piece]:
        """A bit of the reasoning, without its markers and the white space beside them."""
        said = text[part.start : part.stop]
        said = said if self._begins_inside(part) else said.removeprefix(part.span.begin)
        said = said.removesuffix(part.span.end or "") if part.closed else said
        said = said if self._has_reasoned else said.lstrip()
        said = said.rstrip() if part.closed or last else said
        if part.closed:
            self.inside, self._has_reasoned, self._start = None, False, self._released + part.stop
            self._in_text, self._has_marked, self._follows_reasoning = False, True, True
        else:
            self.inside, self._has_reasoned = part.span, self._has_reasoned or bool(said)
        return [Piece(text=said, marked=part)] if said else []

    def _plain(self, text: str) -> list[Piece]:
        """Text between marked parts. It is dropped if all of it is white space, as white space after reasoning is."""
        text = text.lstrip() if self._follows_reasoning else text
        self._in_text = self._in_text or bool(text.strip())
        self._follows_reasoning = self._follows_reasoning and not text
        return [Piece(text=text)] if text and self._in_text else []
