"""The forms in which two values are compared: what is one value to a tool is written in many ways.

There are strict forms and loose ones. A strict form keeps what may change a value's meaning, so that nothing passes for
what the user wrote but what the user wrote. A loose form drops all that an attacker may vary.
"""

from __future__ import annotations

import codecs
import html
import re
import unicodedata
from collections.abc import Iterator
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Literal
from urllib.parse import unquote, urlsplit

from stars_guard.core.encoded_text import encoded_parts
from stars_guard.core.readings import readings

__all__ = [
    "ADDRESS",
    "URL",
    "WORD",
    "dates_in",
    "decoded",
    "folded",
    "loose_forms",
    "moment_of",
    "number_of",
    "numbers_in",
    "parts_of_url",
    "skeleton",
    "times_in",
    "turned",
    "url_forms",
    "words_in",
]

_OPAQUE = re.compile(r"(?<!\S)\S*[/\\]\S*|\b(?=\w*\d)(?=\w*[a-z])(?=\w*[A-Z])\w+")
"""Text whose upper and lower case may tell one thing from another: paths, and names of letters of both and digits."""

WORD = re.compile(r"[^\W_]+")
_NOT_WORDS = re.compile(r"[\W_]+")

URL = re.compile(r"(?i)\b(?:[a-z][a-z0-9+.-]{1,15}://|www\.)[^\s<>\"'`]+|(?<![\w@./-])[\w-]+(?:\.[\w-]+)+/[^\s<>\"'`]*")
ADDRESS = re.compile(r"[\w.+%'-]{1,64}@[\w-]+(?:\.[\w-]+)+")
_SCHEME = re.compile(r"(?i)[a-z][a-z0-9+.-]{1,15}://")


def folded(text: str, form: Literal["NFC", "NFKC"] = "NFKC") -> str:
    """The strict form: one space for several, and lower case where case says nothing."""
    text = " ".join(unicodedata.normalize(form, text).split())
    pieces: list[str] = []
    at = 0
    for opaque in _OPAQUE.finditer(text):
        pieces += (text[at : opaque.start()].casefold(), opaque.group())
        at = opaque.end()
    return "".join([*pieces, text[at:].casefold()])


def skeleton(text: str) -> str:
    """The loose form: letters and digits alone, in lower case."""
    return _NOT_WORDS.sub("", unicodedata.normalize("NFKC", text).casefold())


def words_in(text: str) -> list[str]:
    """The words of the loose form, in their order."""
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


# --- numbers, dates and times

_CURRENCY = r"(?:usd|eur|gbp|chf|jpy|[$€£¥])"
_NUMBER = re.compile(
    rf"(?i)(?:(?<![\w.,:/\\@+%-])|(?<=\s[-+])|(?<![\w]){_CURRENCY}\s?)(-?)"
    r"(\d{1,3}(?:[ \u00a0\u202f,.'\u2019]\d{3}(?!\d))++(?:[.,]\d{1,9})?|\d++(?:[.,]\d++)?)"
    rf"(\s?%)?(?:\s?{_CURRENCY})?(?![\w@%])(?![.,:/\\+-]\w)"
)
_WORDS = {
    word: str(value)
    for value, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    )
}
_NUMBER_WORD = re.compile(rf"(?i)\b(?:{'|'.join(_WORDS)})\b")
_GROUPING = re.compile(r"[ \u00a0\u202f'\u2019]")


def number_of(value: float | str) -> str | None:
    """A number as it is compared: 1250.0, "1,250.00" and 1250 are one. None where the text is no number."""
    if isinstance(value, str):
        found = _NUMBER.fullmatch(value.strip()) if len(value) <= 64 else None
        return next(iter(_written(found)), None) if found else None
    return _canonical(str(value) if abs(value) < 1e300 else "")


def numbers_in(text: str) -> frozenset[str]:
    """The numbers that a text writes, each in all ways in which it can be read ("1.250" in two)."""
    found = {number for match in _NUMBER.finditer(text) for number in _written(match)}
    return frozenset(found | {_WORDS[match.group().lower()] for match in _NUMBER_WORD.finditer(text)})


def _written(match: re.Match[str]) -> list[str]:
    sign, digits, percent = match.groups()
    digits = _GROUPING.sub("", digits)
    marks = [char for char in digits if char in ",."]
    if not marks:
        ways = [digits]
    elif len({*marks}) == 2:
        decimal = marks[-1]
        ways = [digits.replace("," if decimal == "." else ".", "").replace(decimal, ".")]
    elif len(marks) > 1:
        ways = [digits.replace(marks[0], "")]
    else:
        head, _, tail = digits.partition(marks[0])
        ways = [f"{head}.{tail}", head + tail] if len(tail) == 3 and len(head) <= 3 else [f"{head}.{tail}"]
        if marks[0] == ",":
            ways.reverse()
    numbers = [number for way in ways if (number := _canonical(sign + way))]
    return [*numbers, *(_canonical(f"{number}e-2") or "" for number in numbers)] if percent else numbers


def _canonical(number: str) -> str | None:
    try:
        return f"{Decimal(number).normalize():f}" if number and len(number) <= 64 else None
    except (InvalidOperation, ValueError):
        return None


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = r"(jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)[a-z]{0,6}\.?"
_ISO = re.compile(r"(?<![\w])(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?!\d)")
_SHORT = re.compile(r"(?<![\w])(\d{1,2})([-/.])(\d{1,2})\2(\d{4})(?!\d)")
_DAY_FIRST = re.compile(rf"(?i)\b(\d{{1,2}})(?:st|nd|rd|th)?(?:\s+of)?[\s-]+{_MONTH},?[\s-]+(\d{{4}})\b")
_MONTH_FIRST = re.compile(rf"(?i)\b{_MONTH}\s+(\d{{1,2}})(?:st|nd|rd|th)?,?\s+(\d{{4}})\b")
_TIME = re.compile(
    r"(?i)(?<![\d:.])(\d{1,2})(?::([0-5]\d)(?::[0-5]\d)?)?\s?([ap])\.?m\b|(?<![\d:])(\d{1,2}):([0-5]\d)(?::[0-5]\d)?(?![\d:])"
)


def dates_in(text: str) -> frozenset[str]:
    """The days that a text names, as 2024-05-15. "3/4/2024" is read in both ways."""
    found = [_day(*match.groups()) for match in _ISO.finditer(text)]
    for match in _SHORT.finditer(text):
        one, _, other, year = match.groups()
        found += (_day(year, one, other), _day(year, other, one))
    found += [_day(year, _month(month), day) for day, month, year in _DAY_FIRST.findall(text)]
    found += [_day(year, _month(month), day) for month, day, year in _MONTH_FIRST.findall(text)]
    return frozenset(day for day in found if day)


def times_in(text: str) -> frozenset[str]:
    """The times that a text names, as 15:30."""
    found = set()
    for hour, minute, half, hour24, minute24 in _TIME.findall(text):
        at = int(hour24) if hour24 else int(hour) % 12 + (12 if half.lower() == "p" else 0)
        if at < 24:
            found.add(f"{at:02}:{minute24 or minute or '00'}")
    return frozenset(found)


_MOMENT = re.compile(
    r"(?i)(?P<day>\d[\w/.-]{7,9}|[\w ,.-]{10,24}?)"
    r"(?:(?:T|,? (?:at )?)(?P<time>[\d:]{4,8} ?(?:[ap]\.?m\.?)?)(?:Z|[+-]00:?00)?)?"
)


def moment_of(text: str) -> tuple[frozenset[str], frozenset[str]] | None:
    """The day that a text is, in all ways in which it can be read, and the time; None where it is something else."""
    if len(text) > 48:
        return None
    if _TIME.fullmatch(text):
        return frozenset(), times_in(text)
    found = _MOMENT.fullmatch(text)
    if not found or not any(form.fullmatch(found["day"]) for form in (_ISO, _SHORT, _DAY_FIRST, _MONTH_FIRST)):
        return None
    if found["time"] and not times_in(found["time"]):
        return None
    return dates_in(found["day"]), times_in(found["time"] or "")


def _month(name: str) -> str:
    return str(_MONTHS.index(name[:3].lower()) + 1)


def _day(year: str, month: str, day: str) -> str:
    try:
        return date(int(year), int(month), int(day)).isoformat()
    except ValueError:
        return ""


# --- addresses


def parts_of_url(url: str) -> Iterator[str]:
    """What a URL names on the way: its host, its path, and the last part of it, each as it would be written alone."""
    try:
        split = urlsplit(url if _SCHEME.match(url) else f"//{url}")
        host, port = split.hostname or "", split.port
    except ValueError:
        return
    if not host:
        return
    yield host
    if port:
        yield f"{host}:{port}"
    if len(split.path) > 1:
        yield split.path
        yield split.path.rstrip("/").rpartition("/")[2]
        if split.query:
            yield f"{split.path}?{split.query}"


def url_forms(url: str) -> tuple[str, ...]:
    """A URL with its host in lower case and no slash at the end: as it is, and without its scheme."""
    scheme = _SCHEME.match(url)
    rest = url[scheme.end() :] if scheme else url
    host, slash, path = rest.partition("/")
    plain = (host.lower() + slash + path).rstrip("/")
    return (plain, scheme.group().lower() + plain) if scheme else (plain,)


# --- encodings

_ESCAPE = re.compile(r"\\u([0-9A-Fa-f]{4})|\\x([0-9A-Fa-f]{2})")
_DEEPEST = 2


def decoded(text: str) -> list[str]:
    """What a text says where it is encoded: percent signs, HTML, escapes, base64 and hexadecimal, nested too."""
    found: list[str] = []
    level, left = [text], 4 * len(text) + 64
    for _ in range(_DEEPEST):
        new = [way for one in level for way in _decoded_once(one) if way not in found and way != text]
        level = []
        for way in new:
            left -= len(way)
            if left >= 0:
                level.append(way)
        found += level
    return found


def _decoded_once(text: str) -> Iterator[str]:
    if "%" in text and (plain := unquote(text)) != text:
        yield plain
    if "&" in text and (plain := html.unescape(text)) != text:
        yield plain
    if "\\" in text and (plain := _ESCAPE.sub(lambda match: chr(int(match[1] or match[2], 16)), text)) != text:
        yield plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    for _, _, said in encoded_parts(text):
        yield said


def loose_forms(text: str) -> list[str]:
    """A text in all ways in which it may be read or decoded, as it is first."""
    ways = dict.fromkeys([text, *decoded(text)])
    return [*dict.fromkeys(form for way in ways for form in (way, *(one.text for one in readings(way))))]


def turned(plain: str) -> tuple[str, ...]:
    """A skeleton backwards, and in ROT13."""
    return (plain[::-1], codecs.encode(plain, "rot13"))
