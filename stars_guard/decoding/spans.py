"""Parts of an answer that must not be cut: where they begin and end in the text. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

__all__ = ["Found", "Span", "begun_at_end", "find_spans", "is_unfinished", "open_from"]


_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\[^\x00-\x1f])*+(?:"|\\?\Z)')
"""A string of JSON, which is complete or which the text's end cuts."""


@dataclass(frozen=True, slots=True)
class Span:
    """How such a part is marked.

    Attributes:
        begin: its opening marker.
        end: its closing marker; None when it goes on to the answer's end. In a part that is JSON, a marker inside a
            string is not one.
        leading: it counts only where the answer begins, white space aside.
    """

    begin: str
    end: str | None = None
    _: KW_ONLY
    leading: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A part of a text, ``text[start:stop]`` with its markers; ``closed`` once its end was met."""

    start: int
    stop: int
    span: Span
    closed: bool


def find_spans(text: str, spans: Sequence[Span], *, at_start: bool) -> list[Found]:
    """The marked parts of a text, in order; only the last can be open.

    Args:
        at_start: whether the answer begins with the text.
    """
    found: list[Found] = []
    at = 0
    while hits := [(start, span) for span in spans if (start := _begin(text, span, at, at_start)) >= 0]:
        start, span = min(hits, key=lambda hit: hit[0])
        close = _close(text, span.end, start + len(span.begin)) if span.end is not None else -1
        if close < 0 or span.end is None:
            found.append(Found(start=start, stop=len(text), span=span, closed=False))
            break
        at = close + len(span.end)
        found.append(Found(start=start, stop=at, span=span, closed=True))
    return found


def _close(text: str, end: str, start: int) -> int:
    """Where the closing marker is that comes first and not inside a string of JSON, or -1."""
    close = text.find(end, start)
    if close < 0 or text[start : start + 64].lstrip()[:1] not in ("{", "["):
        return close
    at = start
    while 0 <= (quote := text.find('"', at)) < close:
        string = _STRING.match(text, quote)
        if string is None:
            return text.find(end, at)  # not JSON, for no string has such characters
        at = string.end()
        if at > close:
            close = text.find(end, at)
    return close


def _begin(text: str, span: Span, at: int, at_start: bool) -> int:
    if not span.leading:
        return text.find(span.begin, at)
    start = len(text) - len(text.lstrip())
    return start if at_start and at == 0 and text.startswith(span.begin, start) else -1


def open_from(text: str, spans: Sequence[Span], *, at_start: bool) -> int | None:
    """Where a marked part begins that has not ended, or what may become an opening marker; None where neither is.

    No marker may be part of another.
    """
    found = find_spans(text, spans, at_start=at_start)
    if found and not found[-1].closed:
        return found[-1].start
    if at_start and not found and any(span.leading and span.begin.startswith(text.strip()) for span in spans):
        return 0
    rest = text[found[-1].stop :] if found else text
    begun = begun_at_end(rest, [span.begin for span in spans if not span.leading])
    return len(text) - begun if begun else None


def is_unfinished(text: str, spans: Sequence[Span], *, at_start: bool) -> bool:
    """Whether a text ends inside a marked part, or inside what may become an opening marker."""
    return open_from(text, spans, at_start=at_start) is not None


def begun_at_end(text: str, words: Sequence[str]) -> int:
    """How many characters at the text's end may be the beginning of one of the words, which is not complete."""
    for size in range(min(len(text), max(map(len, words), default=0)), 0, -1):
        tail = text[-size:]
        if any(len(word) > size and word.startswith(tail) for word in words):
            return size
    return 0
