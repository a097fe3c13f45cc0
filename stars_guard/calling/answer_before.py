"""The answer of a record before one of its segments, as judges and caller had it then."""

from __future__ import annotations

from collections.abc import Sequence

from stars_guard.audit import CallRecord
from stars_guard.audit.record import Attempt, Rewind
from stars_guard.calling.answer_events import AnswerEvents, empty_answer
from stars_guard.calling.on_record import stops_of
from stars_guard.calling.readings import AnswerReadings
from stars_guard.core.events import Reasoned
from stars_guard.core.readings import encodable
from stars_guard.core.segments import Candidate, Token
from stars_guard.core.vocabulary import FinishReason
from stars_guard.errors import AuditError, ProtocolError
from stars_guard.prompting.reasoning import Reasoning
from stars_guard.prompting.tool_calls import FORMS

__all__ = ["Before", "candidate_of", "cuts_of", "delivered"]


class Before:
    """The answer on record before a segment, with what was released of it, as the caller of that time got it."""

    def __init__(self, record: CallRecord, stops: tuple[str, ...]) -> None:
        form = _FORMS[record.tool_form]() if record.tool_form in _FORMS else None
        marks = record.reasoning
        reasoning = Reasoning(begin=marks.begin, end=marks.end, begun=marks.begun) if marks else None
        self.text = empty_answer(stops, reasoning, form)
        self._events = AnswerEvents(record.call_id, form, single=False)
        self.readings = AnswerReadings(self.text, self._events)
        self._segments = 0
        self._newest = 0
        # by segment: what was held before it
        self._held = {segment.index: segment.held for segment in record.segments}

    @classmethod
    def of(cls, record: CallRecord) -> Before | None:
        """Of a record's first segment; None where the text is not on record."""
        try:
            return cls(record, stops_of(record))
        except AuditError:
            return None

    @property
    def parts(self) -> tuple[str, str]:
        """The answer before its newest segment, and that segment."""
        at = len(self.text.accepted) - self._newest
        return self.text.accepted[:at], self.text.accepted[at:]

    def accepted(self, attempt: Attempt) -> str:
        """The answer before a candidate, without what its stop string takes back."""
        return self.text.accepted[: len(self.text.accepted) - attempt.stop_overlap]

    def then(self, attempt: Attempt) -> Before | None:
        """The same after a candidate has become part of the answer."""
        if not attempt.text.whole:
            return None
        text = attempt.text.text or ""
        after = len(self.text.accepted) - attempt.stop_overlap + len(text)
        try:
            # what the next segment found held was not released
            pieces = self.text.accept(candidate_of(attempt, text), [after - self._held.get(self._segments + 1, 0)])
        except ProtocolError:
            return None  # no answer was ever cut like that
        self._events.release(self._segments, pieces)
        self._segments += 1
        self._newest = len(attempt.text.text or "")
        return self

    def delivered(self) -> tuple[str, str]:
        """The reasoning and the answer as the caller got them, if the answer ends here and is given out whole."""
        self._events.release(self._segments, self.text.end())
        given = self._events.released
        said = "".join(event.text for event in given if isinstance(event, Reasoned))
        return encodable(said), encodable("".join(event.text for event in given if not isinstance(event, Reasoned)))

    def back(self, rewind: Rewind) -> Before | None:
        """The same after the answer has gone back."""
        try:
            self.text.take_back(rewind.place)
        except ProtocolError:
            return None
        self._segments += 1
        self._newest = 0
        return self


def delivered(record: CallRecord) -> tuple[str, str] | None:
    """The reasoning and the answer that follow from the segments on record; None where their text is not there, or an
    answer that ended early was not given out whole."""
    is_known = record.tool_form is None or record.tool_form in _FORMS
    before = Before.of(record) if is_known and record.finish in ("eos", "stop", "length") else None
    for segment in record.segments:
        kept = segment.kept_attempt
        if before is not None and segment.rewound is not None:
            before = before.back(segment.rewound)
        elif before is not None and kept is not None:
            before = before.then(kept)
    return None if before is None else before.delivered()


_FORMS = {form.name: form for form in FORMS}


def cuts_of(record: CallRecord) -> dict[int, list[tuple[int, int]]]:
    """By segment, where it was cut when the answer went back: how many tokens stayed, and how many characters."""
    cuts: dict[int, list[tuple[int, int]]] = {}
    for segment, standing in record.growing():
        if segment.rewound is not None and segment.rewound.left:
            cut = segment.rewound.to
            cuts.setdefault(cut, []).append(standing[cut])
    return cuts


def candidate_of(attempt: Attempt, text: str = "", cuts: Sequence[tuple[int, int]] = ()) -> Candidate:
    """A candidate of the same length. No decoder looks at its text, but at how long its tokens are.

    Args:
        cuts: where tokens are known to begin, see `cuts_of`. Nothing else is known of tokens.
    """
    finish: FinishReason | None = attempt.finish  # type: ignore[assignment]  # the record takes any word
    sizes, before = [0] * attempt.tokens, (0, 0)
    for tokens_before, characters in [*sorted(cuts), (attempt.tokens, attempt.text.chars)]:
        if before[0] < attempt.tokens:
            sizes[before[0]] = characters - before[1]
        before = tokens_before, characters
    tokens = tuple(Token(0, "x" * size) for size in sizes)
    return Candidate(tokens=tokens, text=text, finish=finish, stop_overlap=attempt.stop_overlap, whole=attempt.whole)
