"""The text of an answer's segments as its events show it where texts are redacted.

An e-mail address, a card number or an IP address may begin in one segment and end in the next. Each half looks harmless
alone, so an event shows only what no later text can complete. The rest is shown by the next event, or not at all.
"""

from __future__ import annotations

from stars_guard.audit import redact

__all__ = ["SettledText"]

_CONTEXT = 256
"""Characters of what was shown before, which `redact` reads beside a text."""

_WITHIN_NUMBERS = "()./+-_,:"
"""What stands within phone and card numbers, besides digits and spaces."""


class SettledText:
    """For one answer."""

    def __init__(self) -> None:
        self._shown = ""
        self._held = ""

    def accepted(self, segment: str, *, last: bool) -> str:
        """What the event of an accepted segment shows: what is settled now and was not shown before.

        Args:
            last: whether the answer ends with the segment.
        """
        text = self._held + segment
        end = len(text) if last else _settled(text)
        new, self._held = text[:end], text[end:]
        found = redact(new, before=self._shown, after=self._held)
        self._shown = (self._shown + new)[-_CONTEXT:]
        return found

    def rejected(self, segment: str) -> str:
        """What the event of a rejected segment shows. Nothing follows it, so its end is not shown at all."""
        before = self._shown + self._held
        end = max(0, _settled(self._held + segment) - len(self._held))
        return redact(segment[:end], before=before, after=segment[end:])

    def took_back(self, characters: int) -> None:
        """Take note that the answer went back by so many characters. What was shown stays shown."""
        shown = max(0, characters - len(self._held))
        self._held = self._held[: max(0, len(self._held) - characters)]
        self._shown = self._shown[: max(0, len(self._shown) - shown)]

    def kept(self, segment: str) -> None:
        """Take note of a segment that was not accepted, but has become part of the answer all the same."""
        self._shown, self._held = (self._shown + self._held + segment)[-_CONTEXT:], ""


def _settled(text: str) -> int:
    """Where the last word begins, or the last row of numbers: what follows the text may go on with it."""
    at = len(text)
    while at and (text[at - 1].isdigit() or text[at - 1].isspace() or text[at - 1] in _WITHIN_NUMBERS):
        at -= 1
    while at and not text[at - 1].isspace():
        at -= 1
    return at
