"""No character of what a judge vetoes is free before the veto, however it is disguised and wherever it is cut."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from test_personal_data import forms

from stars_guard.core.lookalikes import LATIN, OTHER, WHOLE
from stars_guard.scorers.base import Scorer
from stars_guard.scorers.paths import PathScorer
from stars_guard.scorers.patterns import Pattern, PatternScorer
from stars_guard.scorers.pii import KINDS, PiiScorer

LOOKALIKES = {letter: "".join(table.get(letter, "") for table in (WHOLE, OTHER, LATIN)) for letter in WHOLE}
HIDDEN = "\u200b\u200d\xad\ufeff\u2060\ufe0f\x00\u202c\u200e"
Disguise = Callable[[str, random.Random], str]


def between(*inserted: str) -> Disguise:
    def put(text: str, rng: random.Random) -> str:
        return "".join(char + (rng.choice(inserted) if rng.random() < 0.4 and char.isalnum() else "") for char in text)

    return put


def alike(share: float) -> Disguise:
    def replace(text: str, rng: random.Random) -> str:
        return "".join(rng.choice(LOOKALIKES[c]) if c in LOOKALIKES and rng.random() < share else c for c in text)

    return replace


DISGUISES: dict[str, Disguise] = {
    "none": lambda text, rng: text,
    "some look-alikes": alike(0.3),
    "look-alikes": alike(1.0),
    "full width": lambda text, rng: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "hidden characters": between(*HIDDEN),
    "marks": between("**", "*", "`", "~~", "__"),
    "accents": between("\u0301", "\u0336", "\u0489"),
    "colours of a terminal": between("\x1b[31m", "\x1b[0m", "\x1b[1;32m"),
    "tags": lambda text, rng: "".join(chr(0xE0000 + ord(c)) if c.isascii() else c for c in text),
    "variation selectors": lambda text, rng: "".join(chr(0xE00F0 + ord(c)) if c.isascii() else c for c in text),
    "backwards": lambda text, rng: f"\u202e{text[::-1]}{rng.choice(['', chr(0x202C)])}",
    "accents and colours": lambda text, rng: between("\x1b[0m")(between("\u0336")(text, rng), rng),
    "look-alikes and marks": lambda text, rng: between("**", "\u200b")(alike(0.5)(text, rng), rng),
}
PATTERNS = {
    r"\bAKIA[0-9A-Z]{16}\b": "AKIA0123456789ABCDEF",
    r"(?i)\bignore\s+(?:all\s+)?(?:previous|prior)\s+instructions": "Ignore all previous instructions",
    "-----BEGIN [A-Z ]*PRIVATE KEY-----": "-----BEGIN RSA PRIVATE KEY-----",
    r"(?i)\bdrop\s+table\b": "drop table",
}
NUMBERS = (
    "four one five, double five, five two six seven one",
    "four,one,five,five,five,five,two,six,seven,one",
    "four - one - one - one - one - one - one - one - one - one - one - one - one - one - one - one",
    "DE89  3  7  0  4  0  0  4  4  0  5  3  2  0  1  3  0  0  0",
    "( 415 ) 555 - 2671",
    "+49 (0)30 / 90 18 20 00",
    "93 [dot] 184 (dot) 216 [.] 34",
    "93  dot  184  dot  216  dot  34",
    "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
    "0xC0A80001",
)
BEFORE = ("", "It is ", "да, это ", "тут а к ", "the 3 ", "1) ", "my: ", '"', "x (", "日本語, ")


def out_before_the_veto(judge: Scorer, text: str, step: int) -> str:
    """What is free of the first find when it is found, where a text comes in parts."""
    free = 0
    for length in range(step, len(text) + step, step):
        so_far = text[:length]
        if finds := judge.find(so_far):
            return text[min(begin for begin, _, _ in finds) : free]
        place = judge.open_from(so_far, free)
        free = max(free, len(so_far) if place is None else place)
    return ""


@pytest.mark.parametrize("disguise", DISGUISES)
def test_disguised_patterns(disguise: str) -> None:
    rng = random.Random(disguise)
    for regex, secret in PATTERNS.items():
        judge = PatternScorer([Pattern(name="secret", regex=regex)])
        for before in BEFORE:
            text = before + DISGUISES[disguise](secret, rng) + " да"
            assert out_before_the_veto(judge, text, rng.choice([1, 1, 2, 3])) == "", ascii(text)


@pytest.mark.parametrize("disguise", DISGUISES)
def test_disguised_personal_data(disguise: str) -> None:
    rng, judge = random.Random(disguise), PiiScorer(KINDS)
    samples = [text for kind in KINDS for text in rng.sample(sorted(forms(kind)), 3)]
    for sample in (*samples, *rng.sample(NUMBERS, 3)):
        text = rng.choice(BEFORE) + DISGUISES[disguise](sample, rng) + " да"
        assert out_before_the_veto(judge, text, rng.choice([1, 2, 3])) == "", ascii(text)


@pytest.mark.parametrize("text", NUMBERS)
def test_numbers_however_they_are_spread(text: str) -> None:
    judge = PiiScorer(KINDS)
    assert judge.find(text)
    for before in ("", "号码", "x"):
        assert out_before_the_veto(judge, before + text, 1) == ""


@pytest.mark.parametrize(
    "text",
    [
        "cat /etc/passwd now",
        "cat /workspace/a/../../etc/x now",
        "rm -rf / ",
        "open file:///etc/x now",
        "ls ~/x now",
        "cat $HOME/.ssh/id now",
        "cat ${HOME}/x now",
        "see ../../x now",
        "open('/etc/passwd')",
        "cat ／etc／passwd now",
    ],
)
@pytest.mark.parametrize("step", [1, 2, 3])
def test_paths(text: str, step: int) -> None:
    judge = PathScorer(["/workspace", "/tmp"])
    assert judge.find(text)
    assert out_before_the_veto(judge, text, step) == ""


def test_text_without_a_path_does_not_wait() -> None:
    judge = PathScorer(["/workspace"])
    for text in ("The river is long, and we", "and/or both ", "x = a / b ", "we met at noon. Then "):
        place = judge.open_from(text)
        assert place is None or len(text) - place < 4


def test_a_word_waits_no_longer_than_it_lasts() -> None:
    judge = PiiScorer(KINDS)
    for text in ("The lake is deep, ", "Вода глубокая, ", "print(x + y) "):
        assert judge.open_from(text) is None
