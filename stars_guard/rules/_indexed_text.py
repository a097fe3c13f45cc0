"""One text of a run, made ready to be searched for values. Every form is made when it is first asked for, and kept."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections import OrderedDict
from functools import cached_property
from itertools import pairwise
from threading import Lock

from stars_guard.rules._normal_forms import (
    ADDRESS,
    URL,
    WORD,
    dates_in,
    folded,
    loose_forms,
    numbers_in,
    parts_of_url,
    skeleton,
    times_in,
    url_forms,
    words_in,
)

__all__ = ["LONGEST", "IndexedText", "IndexedTexts"]

LONGEST = 200_000
"""Characters of one text that are looked at. What is behind them is known to be there, and no more."""

_JOINS = frozenset(".-@/\\+%~")
"""Characters that make one name of two words: what stands at one is part of a longer name."""

_MOST_TRIES = 10_000

_PATH = re.compile(r"(?<![\w.~-])[\w.~-]*(?:[/\\][\w.~-]+)+")
_CODE_GAP = re.compile(r"[ .\-()/+]{0,2}")
_ENDS = ".,;:!?)]}'\"»”’"


class IndexedText:
    """One text, in the forms in which values are looked for.

    Args:
        text: of which the first `LONGEST` characters count.
    """

    def __init__(self, text: str) -> None:
        self.is_whole = len(text) <= LONGEST
        self._text = text[:LONGEST]

    # --- strict: what is found here was written by whoever wrote the text

    @cached_property
    def _strict(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((folded(self._text), folded(self._text, "NFC"))))

    @cached_property
    def _parts(self) -> frozenset[str]:
        """Parts of addresses and paths that stand for something by themselves."""
        found: set[str] = set()
        for match in URL.finditer(self._text):
            url = match.group().rstrip(_ENDS)
            found |= {*parts_of_url(url), *url_forms(url)}
        for match in ADDRESS.finditer(self._text):
            found |= {*match.group().split("@")}
        for match in _PATH.finditer(self._text):
            found.add(re.split(r"[/\\]", match.group().rstrip(_ENDS))[-1])
        return frozenset(folded(part) for part in found if part)

    @cached_property
    def numbers(self) -> frozenset[str]:
        """As `stars_guard.rules._normal_forms.numbers_in` gives them."""
        return numbers_in(self._text)

    @cached_property
    def days_and_times(self) -> frozenset[str]:
        """As `dates_in` and `times_in` give them."""
        return dates_in(self._text) | times_in(self._text)

    def says(self, value: str) -> bool:
        """Whether a value stands in the text as it is: not as a part of a longer word, name or address.

        Args:
            value: folded.
        """
        return any(_stands_in(text, value) for text in self._strict) or value in self._parts

    @cached_property
    def _code(self) -> tuple[str, array[int]]:
        """Letters and digits in a row, and where each of them stands."""
        text = self._strict[0]
        places = array("l", (i for match in WORD.finditer(text) for i in range(*match.span())))
        return "".join(text[i] for i in places).casefold(), places

    def says_code(self, code: str) -> bool:
        """Whether the text has a number such as an IBAN or of a phone, however it is grouped.

        Args:
            code: its letters and digits, in lower case.
        """
        text, (row, places) = self._strict[0], self._code
        if len(row) != len(places):
            return False  # a letter whose lower case is two
        at = row.find(code)
        while at >= 0:
            spots = places[at : at + len(code)]
            whole = not (text[: spots[0]][-1:].isalnum() or text[spots[-1] + 1 : spots[-1] + 2].isalnum())
            gaps = (text[a + 1 : b] for a, b in pairwise(spots))
            if whole and all(_CODE_GAP.fullmatch(gap) for gap in gaps):
                return True
            at = row.find(code, at + 1)
        return False

    # --- loose: what is found here may have come from the text

    @cached_property
    def _ways(self) -> list[str]:
        return loose_forms(self._text)

    @cached_property
    def skeletons(self) -> str:
        """Letters and digits of the text in all its readings, one in each line."""
        return "\n".join(dict.fromkeys(skeleton(way) for way in self._ways))

    @cached_property
    def words(self) -> frozenset[str]:
        """The words in all readings."""
        return frozenset(word for way in self._ways for word in words_in(way))

    @cached_property
    def phrases(self) -> frozenset[int]:
        """Hashes of all three words in a row."""
        found: set[int] = set()
        for way in self._ways:
            words = words_in(way)
            found.update(map(hash, zip(words, words[1:], words[2:], strict=False)))
        return frozenset(found)

    @cached_property
    def loose_numbers(self) -> frozenset[str]:
        """The numbers and days in all readings."""
        return frozenset().union(*(numbers_in(way) | dates_in(way) for way in self._ways))


def _stands_in(text: str, value: str) -> bool:
    at, tries = text.find(value), 0
    while at >= 0 and tries < _MOST_TRIES:
        if not (_goes_on(text[max(0, at - 2) : at][::-1]) or _goes_on(text[at + len(value) : at + len(value) + 2])):
            return True
        at, tries = text.find(value, at + 1), tries + 1
    return False


def _goes_on(beside: str) -> bool:
    """Whether a name goes on, by the two characters beside it."""
    if not beside:
        return False
    if beside[0] in _JOINS:
        return len(beside) > 1 and (beside[1].isalnum() or beside[1] == "_" or beside[1] in _JOINS)
    if beside[0] == ":":
        return len(beside) > 1 and beside[1].isdigit()
    return beside[0].isalnum() or beside[0] == "_" or unicodedata.category(beside[0]) in ("Mn", "Mc", "Cf")


class IndexedTexts:
    """Texts that were indexed lately. An agent's history is read again before each of its calls.

    Args:
        most: characters of all texts that are kept.
    """

    def __init__(self, most: int = 2_000_000) -> None:
        self._most, self._size = most, 0
        self._kept: OrderedDict[str, IndexedText] = OrderedDict()
        self._lock = Lock()

    def of(self, text: str) -> IndexedText:
        """The text, indexed."""
        with self._lock:
            if text in self._kept:
                self._kept.move_to_end(text)
                return self._kept[text]
            found = self._kept[text] = IndexedText(text)
            self._size += len(text)
            while self._size > self._most and len(self._kept) > 1:
                gone, _ = self._kept.popitem(last=False)
                self._size -= len(gone)
            return found
