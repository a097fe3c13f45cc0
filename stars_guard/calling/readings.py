"""The other ways in which somebody reads an answer than as it is written: what judges must see too.

Tool calls reach their tools with parsed arguments, the text around calls and after reasoning reaches the caller
without them, and JSON is read by a parser. All of it is what `stars_guard.core.segments.Passage` calls forms and
readings.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace

from stars_guard.calling.answer_events import AnswerEvents
from stars_guard.core.events import Called, Reasoned, Released
from stars_guard.core.messages import ToolCall
from stars_guard.core.segments import Candidate, Passage
from stars_guard.decoding import AnswerText, Piece
from stars_guard.prompting.call_rendering import render_call
from stars_guard.prompting.json_reading import Unescaper, readable, values_of

__all__ = ["AnswerReadings", "of_a_text"]


class AnswerReadings:
    """Those of one answer, while it grows.

    Args:
        text: the answer so far.
        events: what has been released of it.
    """

    def __init__(self, text: AnswerText, events: AnswerEvents) -> None:
        self._text = text
        self._events = events
        self._written = Unescaper()
        self._plain = Unescaper()
        self._thought = Unescaper()

    def of(self, candidate: Candidate, passage: Passage) -> Passage:
        """The passage of a candidate with its forms and readings.

        Args:
            passage: as the candidate is written.
        """
        begun = self._text.begun_stop(passage.answer) if candidate.finish is None else 0
        if not self._text.spans:
            return self._with(passage, (), begun=begun)
        return self._with(passage, copy(self._text).accept(replace(candidate, finish="stop")), begun=begun)

    def at_end(self, passage: Passage) -> Passage:
        """The passage of the last segment, which the answer has already, if the answer ends there."""
        return self._with(passage, copy(self._text).end())

    def _with(self, passage: Passage, pieces: Sequence[Piece], *, begun: int = 0) -> Passage:
        """
        Args:
            pieces: what would be released if the answer ended there; of an answer alone that may have marked parts.
            begun: characters at the end that are no part of the answer if a stop string ends it.
        """
        written = (passage.accepted, passage.segment)
        ways = [written, *_unescaped(self._written, written)]
        if begun:
            ways.append(_without_end(written, begun))
        forms: list[str] = []
        made: tuple[ToolCall, ...] = ()
        plain = written
        if self._text.spans:
            before, given = self._events.released, self._events.preview(pieces)
            calls = [event for event in given if isinstance(event, Called)]
            made = tuple(one for event in calls for one in event.tool_calls)
            forms = [readable(render_call(one.name, one.arguments)) for one in made]
            if any(not isinstance(event, Released) for event in (*before, *given)):
                plain = (_text(before), _text(given))
                ways += [plain, *_unescaped(self._plain, plain)] if any(plain) else []
            if any(isinstance(event, Reasoned) for event in given):
                thought = self._thoughts(before, given)
                ways += [thought, *_unescaped(self._thought, thought)]
        if passage.last:
            forms += values_of("".join(plain))
        readings = tuple(way for way in dict.fromkeys(ways) if way != written)
        return replace(passage, forms=tuple(forms), readings=readings, tool_calls=made)

    def _thoughts(self, before: Sequence[_Given], given: Sequence[_Given]) -> tuple[str, str]:
        """The reasoning as its reader gets it, and what comes after it, which tells that it has ended: without its
        markers, and several blocks in one."""
        said, now = (
            "".join(event.text for event in events if isinstance(event, Reasoned)) for events in (before, given)
        )
        rest = "".join(event.text for event in given if not isinstance(event, Reasoned))
        has_ended = not any(begin.startswith(rest.strip()) for begin in self._text.begins_reasoning)
        return said, f"{now}\n</>\n{rest}" if has_ended else now


_Given = Released | Reasoned | Called


def _without_end(parts: tuple[str, str], count: int) -> tuple[str, str]:
    before, last = parts
    return (before, last[:-count]) if count <= len(last) else (before[: len(last) - count], "")


def _text(events: Sequence[Released | Reasoned | Called]) -> str:
    return "".join(event.text for event in events if isinstance(event, Released))


def _unescaped(unescaper: Unescaper, parts: tuple[str, str]) -> list[tuple[str, str]]:
    found = unescaper.split(*parts)
    return [] if found is None else [found]


def of_a_text(passage: Passage) -> Passage:
    """The passage of one text that is judged whole, with its forms and readings."""
    # escapes in a tool call, which is rendered as its tool gets it, are the tool's to read
    readings = () if passage.is_call else tuple(_unescaped(Unescaper(), ("", passage.segment)))
    return replace(passage, forms=(*passage.forms, *values_of(passage.segment)), readings=readings)
