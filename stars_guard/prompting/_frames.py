"""The plain-text frame of a guard model's question, and texts that imitate it.

Many formats mark turns with ordinary words, such as ``Agent:`` or ``<END CONVERSATION>``. A text that holds these words
could end its own turn and begin another. So a backslash is put into each imitation, as in ``Agent\\:`` and
``<\\END CONVERSATION>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["Frame"]

_MARKER = re.compile(r"[<\[]/?[^\W\d_][^<>\[\]|\n\x02]{1,60}[>\]]")
_LABEL = re.compile(r"^[ \t]*([^\n:\x02]{1,160}):[ \t]*(?:$|\x02)", re.MULTILINE)
_RULE = re.compile(r"^([=#*_~-])\1{2,}[ \t]*$", re.MULTILINE)
_WORD = re.compile(r"\w+|[^\w\s]")

_LINE = r"(?:\A|(?<=[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]))"
_LINE_END = r"(?:\Z|[\n\r\v\f\x85\u2028\u2029])"
_OPEN, _CLOSE, _COLON = "[<\\[＜［‹〈⟨《「【]", "[>\\]＞］›〉⟩》」】]", "[:：﹕꞉]"
# on the same line: a line of dashes before it is an imitation of its own
_BEFORE = r"(?:[^\S\n\r\v\f\x1c-\x1e\x85\u2028\u2029]|[>*#_\u200b-\u200d\ufeff-])"
_GAP = r"[\s_\u200b-\u200d\ufeff-]*"


class Frame:
    """What a text must not say as it stands, because the question around it says it.

    Args:
        own: the template's own text, with marks where texts come.
    """

    def __init__(self, own: Iterable[str]) -> None:
        ways: set[str] = set()
        for text in own:
            for marker in _MARKER.findall(text):
                ways.add(f"{_OPEN}(?={_GAP}{_words(marker[1:-1])}{_GAP}{_CLOSE})")
            for label in _LABEL.findall(text):
                if words := _words(label):
                    # a list, a quotation or bold type may stand before it
                    ways.add(rf"{_LINE}{_BEFORE}{{0,16}}{words}[\s*_]{{0,8}}(?={_COLON})")
            for rule in map(re.escape, _RULE.findall(text)):
                ways.add(rf"{_LINE}[ \t]{{0,16}}{rule}(?={rule}{{2,}}[ \t]*{_LINE_END})")
        longest_first = sorted(ways, key=lambda way: (-len(way), way))
        self._imitated = re.compile("|".join(longest_first), re.IGNORECASE) if ways else None

    def plain(self, text: str) -> str:
        """The text with a backslash in each part that imitates the frame."""
        return text if self._imitated is None else self._imitated.sub(lambda match: match[0] + "\\", text)


def _words(text: str) -> str:
    return _GAP.join(re.escape(word) for word in _WORD.findall(text.replace("_", " ")))
