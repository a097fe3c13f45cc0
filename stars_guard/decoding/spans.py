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
        leading: it counts only where the answer begins, white space and reasoning aside.
        reasoning: what the model writes before its answer. It may be cut, and is released bit by bit, without its
            markers. Other marked parts in it do not count.
    """

    begin: str
    end: str | None = None
    _: KW_ONLY
    leading: bool = False
    reasoning: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A part of a text, ``text[start:stop]`` with its markers; ``closed`` once its end was met."""

    start: int
    stop: int
    span: Span
    closed: bool


def find_spans(text: str, spans: Sequence[Span], *, at_start: bool, inside: Span | None = None) -> list[Found]:
    """The marked parts of a text, in order; only the last can be open.

    Args:
        at_start: whether the answer begins with the text, or only reasoning comes before it.
        inside: the part in which the text begins, so that its opening marker comes before the text.
    """
    found: list[Found] = []
    at, lead = 0, 0 if at_start else None
    while hits := [(0, inside)] if inside else _begun(text, spans, at, lead):
        start, span = min(hits, key=lambda hit: hit[0])
        body = start if inside else start + len(span.begin)
        close = _close(text, span.end, body, json=not span.reasoning) if span.end is not None else -1
        if close < 0 or span.end is None:
            found.append(Found(start=start, stop=len(text), span=span, closed=False))
            break
        at = close + len(span.end)
        found.append(Found(start=start, stop=at, span=span, closed=True))
        inside, lead = None, at if span.reasoning else None
    return found


def _close(text: str, end: str, start: int, *, json: bool) -> int:
    """Where the closing marker is that comes first and not inside a string of JSON, or -1."""
    close = text.find(end, start)
    if close < 0 or not json or text[start : start + 64].lstrip()[:1] not in ("{", "["):
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


def _begun(text: str, spans: Sequence[Span], at: int, lead: int | None) -> list[tuple[int, Span]]:
    """Where each of the spans begins next.

    Args:
        lead: where the answer begins, reasoning aside; None where that is before the text.
    """
    hits = [(text.find(span.begin, at), span) for span in spans if not span.leading]
    if lead == at:
        start = at + len(text[at:]) - len(text[at:].lstrip())
        hits += [(start, span) for span in spans if span.leading and text.startswith(span.begin, start)]
    return [(start, span) for start, span in hits if start >= 0]


def open_from(text: str, spans: Sequence[Span], *, at_start: bool, inside: Span | None = None) -> int | None:
    """Where a marked part begins that has not ended, or what may become an opening marker; None where neither is.

    In reasoning, where its closing marker may have begun. No marker may be part of another.
    """
    found = find_spans(text, spans, at_start=at_start, inside=inside)
    last = found[-1] if found else None
    if last is not None and not last.closed:
        if not last.span.reasoning:
            return last.start
        begun = begun_at_end(text, [last.span.end or ""])
        return len(text) - begun if begun else None
    rest = text[last.stop :] if last else text
    leads = at_start if last is None else last.span.reasoning
    if leads and any(span.leading and span.begin.startswith(rest.strip()) for span in spans):
        return len(text) - len(rest)
    begun = begun_at_end(rest, [span.begin for span in spans if not span.leading])
    return len(text) - begun if begun else None


def is_unfinished(text: str, spans: Sequence[Span], *, at_start: bool, inside: Span | None = None) -> bool:
    """Whether a text ends inside a marked part that must not be cut, or inside what may become a marker."""
    return open_from(text, spans, at_start=at_start, inside=inside) is not None


def begun_at_end(text: str, words: Sequence[str]) -> int:
    """How many characters at the text's end may be the beginning of one of the words, which is not complete."""
    for size in range(min(len(text), max(map(len, words), default=0)), 0, -1):
        tail = text[-size:]
        if any(len(word) > size and word.startswith(tail) for word in words):
            return size
    return 0
