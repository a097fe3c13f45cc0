"""Write the table of look-alikes that `stars_guard.core.lookalikes` holds, from Unicode's confusables (TR39).

The data is that of the package confusable-homoglyphs, which keeps up with Unicode. Run it again after an update.
"""

from __future__ import annotations

import json
import re
import unicodedata
from importlib.resources import files

SCRIPTS = ("CYRILLIC", "GREEK", "ARMENIAN", "COPTIC", "CHEROKEE", "LISU")
"""Scripts of which a whole word may look like a Latin one."""

NAMES = re.compile(
    "(?:LATIN LETTER SMALL CAPITAL|NEGATIVE CIRCLED LATIN CAPITAL LETTER|NEGATIVE SQUARED LATIN CAPITAL LETTER"
    "|REGIONAL INDICATOR SYMBOL LETTER) ([A-Z])"
)


def tables() -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """By the ASCII letter: look-alikes that are Latin, those of `SCRIPTS`, and those of all other scripts."""
    data = json.loads((files("confusable_homoglyphs") / "confusables.json").read_text(encoding="utf-8"))
    latin: dict[str, str] = {}
    whole: dict[str, str] = {}
    other: dict[str, str] = {}
    for code in range(0x80, 0x20000):
        char = chr(code)
        name = unicodedata.name(char, "")
        if unicodedata.normalize("NFKC", char) != char or "TAG" in name.split():
            continue
        letter = letter_of(char, name, [near["c"] for near in data.get(char, ())])
        if not letter:
            continue
        # letters of everyday European languages stand for themselves
        if name.startswith("LATIN") and code < 0x250:
            continue
        is_latin = name.startswith(("LATIN", "NEGATIVE", "REGIONAL"))
        table = latin if is_latin else whole if name.startswith(SCRIPTS) else other
        table[letter] = table.get(letter, "") + char
    return latin, whole, other


def letter_of(char: str, name: str, near: list[str]) -> str:
    """The ASCII letter that a character looks like, or nothing."""
    if match := NAMES.fullmatch(name):
        return match.group(1).lower() if "SMALL" in name else match.group(1)
    if not unicodedata.category(char).startswith("L"):
        return ""
    letters = [other for other in near if re.fullmatch("[A-Za-z]", other)]
    if not letters:
        return ""
    return "I" if letters[0] == "l" and "CAPITAL" in name else letters[0]


if __name__ == "__main__":
    for title, table in zip(("LATIN", "WHOLE", "OTHER"), tables(), strict=True):
        print(f"{title} = {{")
        for letter, chars in sorted(table.items()):
            print(f'    "{letter}": "{chars.encode("unicode_escape").decode()}",')
        print("}")
