"""Where personal data may have begun at the end of a text that goes on."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache

from stars_guard.core.personal_data import EMAIL_SHAPES, SPOKEN_PARTS
from stars_guard.scorers._unfinished_matches import UnfinishedMatches

__all__ = ["BegunData"]

_LONGEST = 600
"""Characters of one find."""

_DIGITS = 24
"""More digits than any number has, with what is dialled before it."""

_BETWEEN = 8
"""Characters that may stand between two parts of a number, and some more."""

_PART_LENGTH = 64
"""Characters of a name or a part of a domain."""

_WORDS = frozenset({*SPOKEN_PARTS, "dot"})
_BEGUN_WORDS = frozenset(word[:length] for word in _WORDS for length in range(1, len(word) + 1))
_PART = re.compile(r"(?P<digit>\d)|(?P<word>[A-Za-z]+)|(?P<between>[\W_]+)|(?P<letters>\w)")
_LEAD = re.compile(r"(?:[(\[+][^\w\n]{0,4}){1,3}\Z")

# a letter, as far as it matters here. The exact sets of Unicode make large expressions
_LETTERS = (
    r"A-Za-z\x{aa}-\x{1fff}\x{2070}-\x{2fff}\x{3005}-\x{3007}\x{3021}-\x{ff00}\x{ff10}-\x{ff19}\x{ff21}-\x{ff5a}"
    r"\x{ff66}-\x{10ffff}"
)
_ACCOUNT = r"(?:\b|_)[A-Za-z]{2}[ \-.]?\d{2}(?:[ \-.\n\t_/]{0,2}[A-Za-z0-9]){11,32}"
_COMPUTERS = (
    r"(?:\b[0-9A-Fa-f]{1,4}|:):[0-9A-Fa-f:]{0,38}(?:\d{1,3}(?:\.\d{1,3}){3})?(?:%\w{1,16})?",
    r"(?i)\b0x[0-9a-f]{8}",
)


class BegunData:
    """Finds the first place from which on more text could make an address or a number of somebody.

    E-mail addresses, accounts and addresses of computers are followed by their shapes. Of numbers, all that is written
    like the parts of one counts as begun, as far back as a number can be long.

    Args:
        kinds: of personal data.
    """

    def __init__(self, kinds: Collection[str]) -> None:
        shapes = [
            *(map(_simple, EMAIL_SHAPES) if "email" in kinds else ()),
            *([_ACCOUNT] if "iban" in kinds else ()),
            *(_COMPUTERS if "ip_address" in kinds else ()),
        ]
        self._shapes = [_unfinished(shape) for shape in shapes]
        self._numbers = any(kind not in ("email", "iban") for kind in kinds)

    def open_from(self, text: str, start: int = 0) -> int | None:
        """The first place, or None where nothing has begun.

        Args:
            start: what begins before this place is not looked for.
        """
        places = [one.open_from(text, start) for one in self._shapes]
        if self._numbers:
            places.append(_number(text, start))
        return min((place for place in places if place is not None), default=None)


@lru_cache
def _unfinished(shape: str) -> UnfinishedMatches:
    return UnfinishedMatches(shape)


def _simple(shape: str) -> str:
    """A shape with fewer sets of characters, and no part that is longer than an address allows: in a script without
    spaces, all that comes before an address looks like a part of it."""
    shape = shape.replace("._%+'-]*", f"._%+'-]{{0,{_PART_LENGTH - 1}}}").replace(
        r"\pM-]*", rf"\pM-]{{0,{_PART_LENGTH - 1}}}"
    )
    return shape.replace(r"\pL[", r"[\pL][").replace(r"\pL", _LETTERS).replace(r"\pN", "0-9").replace(r"\pM", "")


def _number(text: str, start: int) -> int | None:
    """Where the parts of a number begin at the end of the text."""
    cut = max(start, len(text) - _LONGEST)
    place: int | None = None
    count = 0
    for part in reversed(list(_PART.finditer(text, cut))):
        kind, said = part.lastgroup, part.group().lower()
        if kind == "between":
            if len(said) > _BETWEEN:
                break
            continue
        if kind == "letters":
            break
        at_end = part.end() == len(text)
        if kind == "word" and said not in (_BEGUN_WORDS if at_end else _WORDS):
            break
        count += kind == "digit" or said != "dot"
        if count > _DIGITS:
            break
        place = part.start()
    # what may stand before the first digit
    lead = _LEAD.search(text, cut, len(text) if place is None else place)
    return lead.start() if lead else place
