"""Sets of characters that a reading replaces: hidden ones, spaces, marks, and what stands for ASCII."""

from __future__ import annotations

import re

from stars_guard.core.lookalikes import LATIN, OTHER, WHOLE

__all__ = [
    "ACCENTS",
    "ALWAYS",
    "FOREIGN_MARKS",
    "INVISIBLE",
    "MIXED",
    "ODD",
    "SIGNS",
    "SPACES",
    "WORD",
    "basic",
]

INVISIBLE = (
    "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff"
)
SPACES = "\x0b\x0c\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u2800\u3000"
ACCENTS = "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
"""Combining marks that go with letters of any script."""

FOREIGN_MARKS = (
    "\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0900-\u0902\u093c\u0941-\u094d"
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u3099\u309a"
)
"""Vowel and other signs of Hebrew, Arabic, Hindi and Thai, which no Latin letter has."""

_COMPATIBLE = (
    "\xaa\xb2\xb3\xb5\xb9\xba\xbc-\xbe\u0132\u0133\u0149\u017f\u01c4-\u01cc\u01f1-\u01f3\u02b0-\u02b8\u02e0-\u02e4"
    "\u1d2c-\u1d6a\u1d78\u1d9b-\u1dbf\u2024-\u2026\u2070-\u209c\u2100-\u218b\u2460-\u24ff\u2c7c\u2c7d\u3200-\u33ff"
    "\ua69c\ua69d\ua770\ua7f2-\ua7f4\ua7f8\ua7f9\uab5c-\uab5f\ufb00-\ufb06\ufe50-\ufe6b\uff01-\uffef"
    "\U0001d400-\U0001d7ff\U0001f100-\U0001f12e\U0001f130-\U0001f14f\U0001fbf0-\U0001fbf9"
)
_ZEROS = (
    0x660,
    0x6F0,
    0x7C0,
    0x966,
    0x9E6,
    0xA66,
    0xAE6,
    0xB66,
    0xBE6,
    0xC66,
    0xCE6,
    0xD66,
    0xDE6,
    0xE50,
    0xED0,
    0xF20,
    0x1040,
    0x1090,
    0x17E0,
    0x1810,
    0x1946,
    0x19D0,
    0x1A80,
    0x1A90,
    0x1B50,
    0x1BB0,
    0x1C40,
    0x1C50,
    0xA620,
    0xA8D0,
    0xA900,
    0xA9D0,
    0xA9F0,
    0xAA50,
    0xABF0,
    0x104A0,
    0x10D30,
    0x11066,
    0x110F0,
    0x11136,
    0x111D0,
    0x112F0,
    0x11450,
    0x114D0,
    0x11650,
    0x116C0,
    0x11730,
    0x118E0,
    0x11950,
    0x11C50,
    0x11D50,
    0x11DA0,
    0x16A60,
    0x16AC0,
    0x16B50,
    0x1E140,
    0x1E2F0,
    0x1E950,
)
"""The zeros of other scripts. Their other digits follow."""

_DIGITS = "".join(chr(zero) + "-" + chr(zero + 9) for zero in _ZEROS)
SIGNS = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u2212\ufe58\ufe63\uff0d", "-"),
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u2032", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033", '"'),
    **dict.fromkeys("\u3002\uff61\u2024\uff0e", "."),
    **dict.fromkeys("\u2044\u2215\u29f8", "/"),
    **dict.fromkeys("\u2236\ua789\u02d0", ":"),
    **dict.fromkeys("\u2217\u204e", "*"),
}


def _by_letter(*tables: dict[str, str]) -> dict[str, str]:
    return {char: letter for table in tables for letter, chars in table.items() for char in chars}


def basic(*sets: str) -> str:
    """A set of characters in which those beyond U+FFFF are two wide ranges: so many single ones would make it slow."""
    basic = re.sub("[\U00010000-\U000fffff](-[\U00010000-\U000fffff])?", "", "".join(sets))
    return f"{basic}\ud800-\udfff\U00010000-\U0001f2ff\U000e0000-\U000e0fff"


ALWAYS = _by_letter(LATIN)
WORD = _by_letter(WHOLE) | {"\u04cf": "l"}  # TR39 has an i, but it is seen as an l
MIXED = str.maketrans(
    {
        **_by_letter(OTHER),
        # what TR39 maps to small capitals, and what is close enough among Latin letters
        **dict(
            zip("вкмнптшщєёїзбКМТВНПэκητχωεβμπτςάέήίόύώЄЇЁ", "bkmhntwweei3bKMTBHnekntxwebuntcaeniouwEIE", strict=True)
        ),
        **WORD,
    }
)

ODD = f"[{basic(INVISIBLE, SPACES, ACCENTS, FOREIGN_MARKS, _COMPATIBLE, _DIGITS, *SIGNS, *ALWAYS)}]+"
