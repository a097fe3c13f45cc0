"""What others than the user have brought into a run, and how much of a value is made of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stars_guard.rules._indexed_text import IndexedText
from stars_guard.rules._normal_forms import (
    ADDRESS,
    URL,
    dates_in,
    folded,
    loose_forms,
    number_of,
    parts_of_url,
    skeleton,
    turned,
    words_in,
)
from stars_guard.rules._strict_value import code_of

__all__ = ["Strangers"]

_CODES = re.compile(r"(?<![A-Za-z0-9])[A-Za-z0-9]*\d[A-Za-z0-9]*(?:[ .\-/][A-Za-z0-9]*\d[A-Za-z0-9]*)*")
_SHORTEST_PART = 5
"""Letters and digits that are looked for inside of words; fewer are looked for as words."""
_SHORTEST_PIECE = 4
_LONGEST_PIECES = 160
"""Letters and digits of a value that is looked for in pieces; a longer one has words."""
_SENTENCE = 4
_LONGEST_VALUE = 20_000
"""Characters of a value that are looked at."""
_MOST_ADDRESSES = 64
_MOST_FORMS = 16
_ENOUGH = 0.5
_ALMOST_ALL = 0.8


@dataclass(frozen=True, slots=True)
class _Stranger:
    order: int
    tool: str | None
    text: IndexedText


_Found = tuple[str | None, float]
"""The tool, or None for the model, and the share of the value."""


class Strangers:
    """Texts of untrusted tools, and what the model wrote into calls, in the order of the run."""

    def __init__(self) -> None:
        self._all: list[_Stranger] = []

    def add(self, order: int, tool: str | None, text: IndexedText) -> None:
        """Take a text.

        Args:
            tool: whose result it is; None for the model's own.
        """
        self._all.append(_Stranger(order, tool, text))

    @property
    def first_tool(self) -> str | None:
        """An untrusted tool whose result was read; None where none was."""
        return next((one.tool for one in self._all if one.tool is not None), None)

    def find(self, value: str | float, *, known: Sequence[IndexedText]) -> _Found | None:
        """The untrusted tool that a value, or the greater part of it that the user did not write, came from.

        Args:
            known: the user's texts.
        """
        tools = [one for one in self._all if one.tool is not None]
        found = _find(value, tools, known, _ENOUGH) if tools else None
        if found is None and len(str(value)) > _LONGEST_VALUE and tools:
            return tools[0].tool, 0.0
        if found is None and (cut := next((one for one in tools if not one.text.is_whole), None)):
            return cut.tool, 0.0  # it may be in the part that nobody has looked at
        return found

    def before(self, order: int, value: str | float, *, known: Sequence[IndexedText]) -> _Found | None:
        """Who had a value before a place in the run. Too short a value is everybody's."""
        earlier = [one for one in self._all if one.order < order]
        if len(skeleton(str(value))) < _SHORTEST_PIECE:
            return None
        return _find(value, earlier, known, _ALMOST_ALL)


def _find(
    value: str | float, strangers: Sequence[_Stranger], known: Sequence[IndexedText], enough: float
) -> _Found | None:
    text = str(value)[:_LONGEST_VALUE]
    ways = loose_forms(text)[:_MOST_FORMS] if isinstance(value, str) else [text]
    forms = [form for form in dict.fromkeys(map(skeleton, ways)) if form]
    numbers = {number} if (number := number_of(value)) else dates_in(text) if len(text) < 48 else set()
    for one in strangers:
        if numbers & one.text.loose_numbers or any(_holds(one.text, form) for form in forms):
            return one.tool, 1.0
    if not forms:
        plain = folded(text, "NFC")
        return next(((one.tool, 1.0) for one in strangers if one.text.says(plain)), None)
    if not isinstance(value, str) or not strangers:
        return None
    for address in _addresses(ways):
        plain = skeleton(address)
        if plain and not _is_known(address, known):
            for one in strangers:
                if _holds(one.text, plain):
                    return one.tool, min(1.0, len(plain) / len(forms[0]))
    if len(text.split()) >= _SENTENCE or len(forms[0]) > _LONGEST_PIECES:
        return _in_phrases(words_in(text), strangers, known, enough)
    return next((found for form in forms if (found := _in_pieces(form, strangers, known, enough))), None)


def _holds(text: IndexedText, form: str) -> bool:
    if len(form) < _SHORTEST_PART or (len(form) < 8 and form.isalpha()):
        return form in text.words
    return form in text.skeletons or any(turn in text.skeletons for turn in turned(form))


def _is_known(part: str, known: Sequence[IndexedText]) -> bool:
    plain, code = folded(part, "NFC"), code_of(part)
    return any(text.says(plain) or (code is not None and text.says_code(code)) for text in known)


def _addresses(ways: Sequence[str]) -> Iterator[str]:
    """What names a person, place or account in a value, and what these are made of."""
    seen = 0
    for way in ways:
        for match in URL.finditer(way):
            yield match.group()
            yield from parts_of_url(match.group())
            yield from re.split(r"[/?&=#]", match.group().partition("://")[2])[1:16]
        for match in ADDRESS.finditer(way):
            yield match.group()
            yield match.group().partition("@")[2]
        for match in _CODES.finditer(way):
            if len(skeleton(match.group())) >= _SHORTEST_PART:
                yield match.group()
            if (seen := seen + 1) > _MOST_ADDRESSES:
                return


def _in_phrases(
    words: list[str], strangers: Sequence[_Stranger], known: Sequence[IndexedText], enough: float
) -> _Found | None:
    """How many words of a sentence came from a stranger, three in a row or such as nobody has by chance."""
    own = [any(word in text.words for text in known) for word in words]
    left = sum(len(word) for word, mine in zip(words, own, strict=True) if not mine)
    triples = [hash(triple) for triple in zip(words, words[1:], words[2:], strict=False)]
    taken = [False] * len(words)
    most: tuple[int, str | None] = (0, None)
    for one in strangers:
        mine = [_is_rare(word) and word in one.text.words for word in words]
        for at, triple in enumerate(triples):
            if triple in one.text.phrases:
                mine[at : at + 3] = [True] * 3
        size = sum(len(word) for word, hit, user in zip(words, mine, own, strict=True) if hit and not user)
        if size > most[0]:
            most = (size, one.tool)
        taken = [a or b for a, b in zip(taken, mine, strict=True)]
    share = sum(len(word) for word, hit, user in zip(words, taken, own, strict=True) if hit and not user) / (left or 1)
    return (most[1], share) if share >= enough else None


def _is_rare(word: str) -> bool:
    return len(word) >= 12 or (len(word) >= 5 and any(map(str.isdigit, word)))


def _in_pieces(form: str, strangers: Sequence[_Stranger], known: Sequence[IndexedText], enough: float) -> _Found | None:
    """How much of a value is made of pieces of what strangers wrote, of that which the user did not write."""
    if not _SHORTEST_PIECE < len(form) <= _LONGEST_PIECES:
        return None
    at = theirs = own = 0
    most: dict[str | None, int] = {}
    while at < len(form):
        mine = max((_longest(form, at, text) for text in known), default=0)
        size, tool = max(((_longest(form, at, one.text), one.tool) for one in strangers), key=lambda found: found[0])
        if mine and mine >= size:
            own += mine
        elif size:
            theirs += size
            most[tool] = most.get(tool, 0) + size
        at += max(mine, size, 1)
    share = theirs / max(1, len(form) - own)
    return (max(most, key=lambda tool: most[tool]), share) if theirs and share >= enough else None


def _longest(form: str, at: int, text: IndexedText) -> int:
    """Letters and digits from a place on that a text has in a row, or as a word; 0 where they say nothing."""
    size, step = 0, _SHORTEST_PIECE
    while step:  # longer and longer, then back to the longest
        if at + size + step <= len(form) and form[at : at + size + step] in text.skeletons:
            size += step
            step *= 2
        else:
            step //= 2
    piece = form[at : at + size]
    if size >= 6 or (size >= _SHORTEST_PIECE and any(map(str.isdigit, piece))):
        return size
    return max((n for n in range(2, min(len(form) - at, 24) + 1) if form[at : at + n] in text.words), default=0)
