"""What a text reads like to a person or a model: without hidden characters, look-alikes and marks inside of words.

A reading is looked at besides the text itself, never instead of it. It knows for each of its characters which part of
the text it stands for.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from stars_guard.core.characters import (
    ACCENTS,
    ALWAYS,
    FOREIGN_MARKS,
    INVISIBLE,
    MIXED,
    ODD,
    SIGNS,
    SPACES,
    WORD,
    basic,
)

__all__ = ["Reading", "disguised", "encodable", "found", "opened", "readings"]

_PLAIN = bytes([*range(32, 127), 9, 10, 13]).translate(None, b"*_`~")
"""ASCII that reads as it is written."""

_PRINTED = bytes([*range(32, 127), 9, 10, 13])

_ODD = re.compile(ODD)
# each begins with a set of characters, for which the scan is fast; what is around is looked at afterwards
_RUNS = re.compile(
    rf"(?P<hidden>[{INVISIBLE}]+)|(?P<space>[{SPACES}]+)|(?P<marks>[{ACCENTS}{FOREIGN_MARKS}]+)"
    r"|(?P<pair>[\ud800-\udbff][\udc00-\udfff])|(?P<char>.)",
    re.DOTALL,
)
_ANSI = re.compile(r"\[[0-9;]{0,32}[A-Za-z]")
_MARKUP = re.compile("[*`~_]+")
_MASK = re.compile(r"[\d .-]")
_LETTER = r"[^\W\d_]"
_LOOKS_LATIN = re.compile(rf"[{''.join(WORD)}](?<!{_LETTER}.)[{''.join(WORD)}]*+(?!{_LETTER})")
_BEFORE = re.compile(r"\w+(?=\W*$)")
_AFTER = re.compile(r"\w+")
_SEAM = re.compile(rf"[{basic(*map(chr, MIXED))}](?:(?<=[A-Za-z0-9_].)|(?=[A-Za-z0-9_]))")
_MIXED_WORD = re.compile(r"(?<!\w)(?:[A-Za-z\d_]++[^\x00-\x7f\W]|[^\x00-\x7f\W]++[A-Za-z\d_])\w*+")
_SEPARATOR = r"[\xad\u200b-\u200f\u2060-\u2064\ufeff]"
_SEPARATORS = re.compile(rf"(?<!{_SEPARATOR}){_SEPARATOR}+(?=\w)")
_TAGS = re.compile("[\U000e0020-\U000e007e\ufe00-\ufe0f\U000e0100-\U000e01ef]{2,}")
_BACKWARDS = re.compile("\u202e([^\u202c\n]+)\u202c?")
_EVERYDAY = str.maketrans(
    {char: letter for char, letter in ALWAYS.items() if "\U0001f1e6" <= char <= "\U0001f1ff"}
    | {chr(code): unicodedata.normalize("NFKC", chr(code)) for code in range(0xFB00, 0xFB07)}
)
_SURROGATE = re.compile("[\ud800-\udfff]")
# what may yet turn out to stand inside of a word: the beginning of a terminal's code for colours too
_HIDDEN_END = re.compile(rf"(?:[{INVISIBLE}*_`~]|\x1b\[[0-9;]{{0,32}})+\Z")
_BACKWARDS_END = re.compile("\u202e[^\u202c\n]*\\Z")
_TAGS_END = re.compile("[\U000e0020-\U000e007e\U000e0100-\U000e01ef]+\\Z")
_LAST_WORD = re.compile(r"\w+\Z")
_CONTEXT = 200
"""Characters before a place that may say something about what begins there."""

_GENERAL = re.compile(f"[{ACCENTS}]")

_Edit = tuple[int, int, str]
"""Start and end of a part, and what comes in its place."""


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Where the parts of a text came from: part i begins at ``new[i]``, and came from ``old[i]`` on.

    A part is a copy, or as a whole stands for all that it came from.
    """

    new: Sequence[int]
    old: Sequence[int]
    copied: Sequence[bool]

    def span(self, start: int, end: int) -> tuple[int, int]:
        first = bisect_right(self.new, start) - 1
        last = bisect_right(self.new, end - 1) - 1
        begin = self.old[first] + (start - self.new[first] if self.copied[first] else 0)
        if self.copied[last]:
            return begin, self.old[last] + end - self.new[last]
        return begin, self.old[last + 1]


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of a text.

    Attributes:
        text: what it reads like.
    """

    text: str = field(repr=False)
    _layers: tuple[_Blocks, ...] = field(default=(), repr=False)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The part of the text as it was written that holds all characters from ``start`` to ``end`` of the reading."""
        for blocks in reversed(self._layers):
            start, end = blocks.span(start, end)
        return start, end

    def edited(self, edits: Iterable[tuple[int, int, str]]) -> Reading:
        """With other text in the place of parts: each edit has a start, an end and what comes there, in order."""
        pieces: list[str] = []
        new, old, copied = [0], [0], [True]
        at = length = 0
        for start, end, text in edits:
            pieces += (self.text[at:start], text)
            length += start - at
            new += (length, length + len(text))
            old += (start, end)
            copied += (False, True)
            length += len(text)
            at = end
        if not pieces:
            return self
        pieces.append(self.text[at:])
        return Reading("".join(pieces), (*self._layers, _Blocks(new, old, copied)))


def readings(text: str, *, markup: bool = True) -> tuple[Reading, ...]:
    """How else a text may be read. There is no reading of a text that reads as it is written, as plain ASCII does.

    The time is linear in the text.

    Args:
        markup: whether stars, underscores, backticks and tildes at words are markup, which is left out.
    """
    if text.isascii():
        if not text.encode().translate(None, _PLAIN if markup else _PRINTED):
            return ()
        return _others(text, [_plain(Reading(text), markup)])
    whole = Reading(text)
    if not _ODD.search(text):
        return _others(text, [_in_latin(whole.edited(_unmarked(text)) if markup else whole)])
    others = [whole.edited(edits(text)) for edits in (_separated, _decoded, _forwards)]
    return _others(text, [_plain(whole, markup), *(_plain(other, markup) for other in others if other is not whole)])


def disguised(text: str) -> tuple[str, ...]:
    """The readings of a text in which words are hidden or disguised. Empty for a text in which none are.

    Ordinary text in any language, with its accents, quotes, dashes and emoji, is not disguised.
    """
    others = readings(text)
    if not others:
        return ()
    # what people write every day: flags, ligatures, and words of another script that happen to look Latin
    bare = _LOOKS_LATIN.sub(
        lambda match: _latin(match) if len(match.group()) > 3 and _is_near_foreign(match) else match.group(), text
    )
    bare = bare.translate(_EVERYDAY)
    bare = Reading(bare).edited(_unmarked(bare)).text
    return tuple(reading.text for reading in others if _words(reading.text) != _words(bare))


def found(
    text: str, find: Callable[[str, int], Iterable[tuple[int, int, str]]], start: int = 0, *, markup: bool = True
) -> list[tuple[int, int, str]]:
    """All that ``find`` finds in a text and in its readings: start and end in the text, and a name, sorted.

    What is found several times, in several readings or in parts that overlap, is one find.

    Args:
        find: gives starts, ends and names of what it finds in a text from a position on.
        start: where in the text to begin.
        markup: as for `readings`.
    """
    finds = [*find(encodable(text), start)]
    for reading in readings(text, markup=markup):
        for begin, end, name in find(reading.text, min(start, len(reading.text))):
            if begin < end:
                finds.append((*reading.span(begin, end), name))
    return sorted(_merged(finds)) if len(finds) > 1 else finds


def opened(
    text: str, open_from: Callable[[str, int], int | None], start: int = 0, *, markup: bool = True
) -> int | None:
    """From where on something may have begun, in a text that goes on or in one of its readings; None: nowhere.

    Args:
        open_from: gives the place in one text, from a position on.
        start: where in the text to begin. What is before is context.
        markup: as for `readings`.
    """
    places = [open_from(encodable(text), start)]
    cut = max(0, start - _CONTEXT)
    near = text[cut:]
    # what comes next is read before what is shown backwards there
    backwards = _BACKWARDS_END.search(near, start - cut) if "\u202e" in near else None
    spelling = None if near[-1:] < "\U000e0020" else _TAGS_END.search(near, start - cut)
    places += [cut + begun.start() for begun in (backwards, spelling) if begun]
    ways = (near, _HIDDEN_END.sub("", near), *([near[: backwards.start()]] if backwards else ()))
    for way in dict.fromkeys(ways):
        whole = Reading(encodable(way))
        if way is not near:
            places.append(_moved(open_from(whole.text, min(start - cut, len(way))), cut))
        others = readings(way, markup=markup)
        for reading in (*others, *filter(None, map(_ending_in_latin, (whole, *others)))):
            place = open_from(reading.text, 0)
            if place is not None:
                places.append(max(start, cut + reading.span(place, place + 1)[0]))
    return min((place for place in places if place is not None), default=None)


def _ending_in_latin(reading: Reading) -> Reading | None:
    """With the last word in Latin, which it becomes if it goes on so. None where that makes no difference."""
    last = None if reading.text.isascii() else _LAST_WORD.search(reading.text)
    if last is None or last.group().isascii():
        return None
    text = reading.text[: last.start()] + last.group().translate(MIXED)
    return None if text == reading.text else Reading(text, reading._layers)


def _moved(place: int | None, by: int) -> int | None:
    return None if place is None else place + by


def _merged(finds: Iterable[tuple[int, int, str]]) -> Iterator[tuple[int, int, str]]:
    ends: dict[str, tuple[int, int]] = {}
    for begin, end, name in sorted(finds):
        before = ends.get(name)
        if before is not None and begin < before[1]:
            ends[name] = before[0], max(before[1], end)
            continue
        if before is not None:
            yield *before, name
        ends[name] = begin, end
    for name, (begin, end) in ends.items():
        yield begin, end, name


def encodable(text: str) -> str:
    """The text with U+FFFD in the place of each lone surrogate, so that it has a UTF-8 form. No place changes."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _others(text: str, candidates: Iterable[Reading]) -> tuple[Reading, ...]:
    apart = {reading.text: reading for reading in candidates if reading.text != text}
    return tuple(Reading(encodable(reading.text), reading._layers) for reading in apart.values())


def _plain(reading: Reading, markup: bool) -> Reading:
    if not reading.text.isascii() or reading.text.encode().translate(None, _PRINTED):
        reading = reading.edited(_written_out(reading.text))
    if markup:
        reading = reading.edited(_unmarked(reading.text))
    return reading if reading.text.isascii() else _in_latin(reading)


def _in_latin(reading: Reading) -> Reading:
    # one for one, so that no place changes
    text = _LOOKS_LATIN.sub(_latin_unless_foreign, reading.text)
    if _SEAM.search(text):
        text = _MIXED_WORD.sub(_all_latin, text)
    return reading if text == reading.text else Reading(text, reading._layers)


def _written_out(text: str) -> Iterator[_Edit]:
    """Each odd character as ASCII, where it has such a form, and nothing in the place of hidden ones."""
    after = 0
    for odd in _ODD.finditer(text):
        for run in _RUNS.finditer(text, *odd.span()):
            start, end = run.span()
            if start < after:
                continue
            kind = run.lastgroup
            if kind == "space" or (kind == "hidden" and text[start - 1 : start] == text[end : end + 1] == " "):
                # one space, with those around
                while start > after and text[start - 1] == " ":
                    start -= 1
                while text[end : end + 1] == " ":
                    end += 1
                after = end
                yield start, end, " "
            elif kind == "hidden":
                ansi = _ANSI.match(text, end) if text[end - 1] == "\x1b" else None
                after = ansi.end() if ansi else end
                yield start, after, ""
            elif kind == "marks":
                yield from _without_marks(text, start, end)
            elif (new := _one(run.group())) != run.group():
                yield start, end, new


def _without_marks(text: str, start: int, end: int) -> Iterator[_Edit]:
    before = text[max(0, start - 1) : start]
    if before.isascii():
        if before.isprintable():
            yield start, end, ""
    elif (before.isalnum() or _ODD.match(before)) and _GENERAL.match(text, start):
        base = unicodedata.normalize("NFKD", before)[0]
        if base == before or _ODD.match(before):
            yield start, end, ""
        else:
            yield start - 1, end, base


@lru_cache(4096)
def _one(char: str) -> str:
    if char in SIGNS:
        return SIGNS[char]
    if char in ALWAYS:
        return ALWAYS[char]
    if len(char) == 2:
        char = char.encode("utf-16", "surrogatepass").decode("utf-16")
    digit = unicodedata.decimal(char, None)
    if digit is not None:
        return str(digit)
    whole = unicodedata.normalize("NFKC", char)
    return SIGNS.get(whole, ALWAYS.get(whole, whole))


def _unmarked(text: str) -> Iterator[_Edit]:
    """Nothing in the place of markup at words. Four and more stars, or three between digits, hide something else."""
    if not any(mark in text for mark in "*`~_"):
        return
    for match in _MARKUP.finditer(text):
        (start, end), mark = match.span(), match.group()
        before, after = text[max(0, start - 1) : start], text[end : end + 1]
        if (
            len(mark) > 6
            or (len(mark) > 3 and len({*mark}) == 1)
            or not (before.isalnum() or after.isalnum())
            or (mark[0] == "~" and len(mark) != 2)
        ):
            continue
        if mark == "***" and _MASK.match(before) and _MASK.match(after):
            continue
        yield start, end, ""


def _latin(match: re.Match[str]) -> str:
    return match.group().translate(MIXED)


def _latin_unless_foreign(match: re.Match[str]) -> str:
    """A word that looks Latin as it looks. Short ones are everyday words in the midst of their own script."""
    return match.group() if len(match.group()) < 4 and _is_foreign(match) else _latin(match)


def _is_foreign(match: re.Match[str]) -> bool:
    """Whether a word beside it is of a script that is not Latin, and does not look so."""
    text, (start, end) = match.string, match.span()
    beside = (_BEFORE.search(text[max(0, start - 24) : start]), _AFTER.search(text, end, end + 24))
    return any(word and not all(c.isascii() or c in WORD for c in word.group()) for word in beside)


def _is_near_foreign(match: re.Match[str]) -> bool:
    text, (start, end) = match.string, match.span()
    around = text[max(0, start - 40) : start] + text[end : end + 40]
    return any(char.isalpha() and not char.isascii() and char not in WORD for char in around)


def _all_latin(match: re.Match[str]) -> str:
    word = match.group()
    return word.translate(MIXED) if re.search("[A-Za-z]", word) else word


def _separated(text: str) -> Iterator[_Edit]:
    """A space in the place of hidden characters between words."""
    for match in _SEPARATORS.finditer(text):
        if text[max(0, match.start() - 1) : match.start()].isalnum():
            yield *match.span(), " "


def _decoded(text: str) -> Iterator[_Edit]:
    """What tag characters or variation selectors spell."""
    for match in _TAGS.finditer(text):
        if len(match.group()) <= 7 and text[max(0, match.start() - 1)] == "\U0001f3f4":
            continue  # the flag of a part of a country
        tags = "".join(chr(ord(char) - 0xE0000) for char in match.group() if "\U000e0020" <= char <= "\U000e007e")
        data = bytes(
            ord(char) - (0xFE00 if char <= "\ufe0f" else 0xE00F0)
            for char in match.group()
            if char <= "\ufe0f" or char >= "\U000e0100"
        )
        yield *match.span(), tags + data.decode(errors="ignore")


def _forwards(text: str) -> Iterator[_Edit]:
    """What is shown from right to left, as it is shown."""
    if "\u202e" in text:
        for match in _BACKWARDS.finditer(text):
            yield *match.span(), match.group(1)[::-1]


def _words(text: str) -> list[str]:
    return re.findall("[A-Za-z]{3,}", text)
