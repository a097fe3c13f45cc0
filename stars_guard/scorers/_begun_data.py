"""Where personal data may have begun at the end of a text that goes on."""

from __future__ import annotations

import re
from collections.abc import Collection

from stars_guard.core.personal_data import EMAIL_SHAPES
from stars_guard.scorers._unfinished_matches import UnfinishedMatches

__all__ = ["BegunData"]

_LONGEST = 96
"""Characters of a number with all that may stand between its parts."""

_WORDS = "zero|oh|one|two|three|four|five|six|seven|eight|nine|double|triple|dot|point"
_BEGUN_WORDS = "|".join(sorted({word[:length] for word in _WORDS.split("|") for length in range(1, len(word) + 1)}))
# parts of a number in groups, and what may stand between them
_PART = re.compile(rf"(?i)\S*\d\S*|[^\w\s]+|(?:{_WORDS})(?:-(?:{_WORDS}))*|[\[({{]?(?:dot|\.)[\])}}]?")
_BEGUN_PART = re.compile(
    rf"(?i)\S*[\d+(:]\S*|[^\w\s]+|[0-9a-f:]+%?\w*|(?:(?:{_WORDS})-)*(?:{_BEGUN_WORDS})?|[\[({{](?:d|do|dot)"
)
_ACCOUNT = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[ \-.]?\d{2}[A-Za-z0-9 \-.\n\t_/]{0,80}\Z")
_BEGUN_ACCOUNT = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{1,2}[ \-.]?\d?\Z")
_SPACED = re.compile(r"\S+|\s+")


class BegunData:
    """Finds the first place from which on more text could make an address or a number of somebody.

    E-mail addresses are followed exactly. Of numbers, all that is written like the parts of one counts as begun.

    Args:
        kinds: of personal data.
    """

    def __init__(self, kinds: Collection[str]) -> None:
        self._emails = [UnfinishedMatches(shape) for shape in EMAIL_SHAPES] if "email" in kinds else []
        self._numbers = any(kind != "email" for kind in kinds)
        self._accounts = "iban" in kinds

    def open_from(self, text: str, start: int = 0) -> int | None:
        """The first place, or None where nothing has begun.

        Args:
            start: what begins before this place is not looked for.
        """
        places = [one.open_from(text, start) for one in self._emails]
        cut = max(start, len(text) - _LONGEST)
        if self._numbers:
            places.append(_number(text, cut))
        if self._accounts:
            for shape in (_ACCOUNT, _BEGUN_ACCOUNT):
                found = shape.search(text, cut)
                places.append(found.start() if found else None)
        return min((place for place in places if place is not None), default=None)


def _number(text: str, start: int) -> int | None:
    """Where the parts of a number begin at the end of the text."""
    place: int | None = None
    parts = list(_SPACED.finditer(text, start))
    for index, part in enumerate(reversed(parts)):
        if part.group().isspace():
            continue
        shape = _BEGUN_PART if index == 0 else _PART
        if not shape.fullmatch(part.group()):
            break
        place = part.start()
    return place
