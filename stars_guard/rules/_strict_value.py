"""A value, in all ways in which its writer may have written it, and no other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

from stars_guard.rules._indexed_text import LONGEST, IndexedText
from stars_guard.rules._normal_forms import URL, folded, moment_of, number_of, url_forms

__all__ = ["StrictValue", "code_of", "joined_values"]

_NAMED_ADDRESS = re.compile(r"[^<>@]{0,100}<([^<>\s]+@[^<>\s]+)>|mailto:(\S+)")
_CODE = re.compile(r"[A-Za-z0-9+(][A-Za-z0-9 .\-()/+]{5,63}")
_FEWEST_DIGITS = 6
_JOINED = re.compile(r"\s*[,;|\n]\s*")
_MOST_JOINED = 100
_MOST_WORDS = 4


class StrictValue:
    """A string or a number, to be looked for in texts of people who are trusted.

    Args:
        value: with a percent-encoding or an address's display name, which its tool takes off.
    """

    def __init__(self, value: str | float) -> None:
        self.text = str(value).strip()
        self._number = number_of(value)
        self._phrases: list[str] = []
        self._code = self._moment = None
        if isinstance(value, str) and len(value) <= LONGEST:
            named = _NAMED_ADDRESS.fullmatch(self.text) if len(self.text) < 400 else None
            texts = {self.text, unquote(self.text), *((named[1] or named[2],) if named else ())}
            if URL.fullmatch(self.text):
                texts |= {form for form in url_forms(self.text) if "://" in form or "://" not in self.text}
                if self.text.lower().startswith(("http://", "https://")):
                    texts.add(url_forms(self.text)[0])
            self._phrases = [folded(text, "NFC") for text in texts]
            self._code = code_of(self.text)
            self._moment = moment_of(self.text)
        elif isinstance(value, int):
            self._code = code_of(self.text)

    def is_in(self, texts: Sequence[IndexedText]) -> bool:
        """Whether one of the texts says the value, as a whole."""
        return any(self._is_in(text) for text in texts)

    def _is_in(self, text: IndexedText) -> bool:
        if any(phrase and text.says(phrase) for phrase in self._phrases):
            return True
        if self._number is not None and self._number in text.numbers:
            return True
        if self._code and text.says_code(self._code):
            return True
        if self._moment:
            days, times = self._moment
            return (not days or bool(days & text.days_and_times)) and times <= text.days_and_times
        return False


def code_of(text: str) -> str | None:
    """Letters and digits of a number such as an IBAN, a card's or a phone's. None where the text is something else."""
    if not _CODE.fullmatch(text) or sum(map(str.isdigit, text)) < _FEWEST_DIGITS:
        return None
    return "".join(filter(str.isalnum, text)).casefold()


def joined_values(text: str) -> list[str]:
    """The values that a text joins with commas, semicolons, bars or lines; empty where it is one, or a sentence."""
    parts = [part for part in _JOINED.split(text.strip(" ,;|\n")) if part]
    if not 2 <= len(parts) <= _MOST_JOINED or any(len(part.split()) > _MOST_WORDS for part in parts):
        return []
    return parts
