"""From the pieces of an answer to events: text, reasoning, and tool calls with their numbers."""

from __future__ import annotations

from collections.abc import Sequence

from stars_guard.core.events import Called, Reasoned, Released
from stars_guard.core.messages import InvalidCall, ToolCall
from stars_guard.decoding import AnswerText, Piece
from stars_guard.prompting.reasoning import Reasoning
from stars_guard.prompting.tool_calls import ToolForm, Written

__all__ = ["AnswerEvents", "empty_answer"]


class AnswerEvents:
    """What the caller of one call has been given.

    Args:
        form: how the model writes tool calls; None when it has no tools.
        single: the answer has one tool call at most.

    Attributes:
        form: see above.
        released: all of it, in order.
    """

    def __init__(self, call_id: str, form: ToolForm | None, *, single: bool) -> None:
        self.released: list[Released | Reasoned | Called] = []
        self._call_id = call_id
        self.form = form
        self._single = single
        self._calls = 0

    def release(self, segment: int, pieces: Sequence[Piece]) -> list[Released | Reasoned | Called]:
        """Give out the next pieces of the answer.

        Args:
            segment: index of the segment with which they are released.
        """
        events = [self._event(segment, piece) for piece in pieces]
        self.released += events
        return events

    def preview(self, pieces: Sequence[Piece]) -> list[Released | Reasoned | Called]:
        """What these pieces would be given out as. Nothing is given out."""
        given = [self._event(0, piece) for piece in pieces]
        self._calls -= sum(
            len(event.tool_calls) + len(event.invalid_tool_calls) for event in given if isinstance(event, Called)
        )
        return given

    def _event(self, segment: int, piece: Piece) -> Released | Reasoned | Called:
        calls = None
        if piece.marked is not None and piece.marked.span.reasoning:
            return Reasoned(segment=segment, text=piece.text)
        if self.form is not None and piece.marked is not None:
            calls = self.form.calls(piece.text, piece.marked)
        if calls is None:
            return Released(segment=segment, text=piece.text)
        return self._called(segment, piece.text, calls)

    def _called(self, segment: int, text: str, written: Sequence[Written]) -> Called:
        first = self._calls
        calls: list[ToolCall] = []
        invalid: list[InvalidCall] = []
        for one in written[:1] if self._single else written:
            tool_call_id = f"call_{self._call_id[:12]}_{self._calls}"
            self._calls += 1
            if one.name is not None and one.arguments is not None:
                calls.append(ToolCall(id=tool_call_id, name=one.name, arguments=one.arguments))
            else:
                invalid.append(InvalidCall(id=tool_call_id, name=one.name, arguments=text, error=one.error))
        return Called(
            segment=segment, text=text, index=first, tool_calls=tuple(calls), invalid_tool_calls=tuple(invalid)
        )


def empty_answer(
    stops: tuple[str, ...], reasoning: Reasoning | None, form: ToolForm | None, *, whole_tokens: bool = False
) -> AnswerText:
    """The text of an answer before its first segment. The arguments that are not here are those of `AnswerText`.

    Args:
        reasoning: how the model marks its reasoning, and ``form`` how it writes tool calls; None where it does neither.
    """
    thought = reasoning.span if reasoning is not None else None
    spans = (*((thought,) if thought is not None else ()), *(form.spans if form is not None else ()))
    inside = thought if reasoning is not None and reasoning.begun else None
    return AnswerText(stops, spans, inside=inside, whole_tokens=whole_tokens)
