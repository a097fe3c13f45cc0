"""Where phone numbers are in a text: found by shape and by a library that knows the numbering plans."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import ModuleType

import re2

from stars_guard.core.times_and_places import without_times_and_places

__all__ = ["phone_numbers"]

Span = tuple[int, int]

_SEVEN_DIGITS = re2.compile(r"\d(?:[^\d\n]{0,6}\d){6}")
_ABROAD = re.compile(r"(?<![\d.,-])(?:00|\(00\)) ?(?=[1-9])((?:[ ()./-]{0,3}\d){8,15})(?!\d)")
_SPREAD = re.compile(r"(?<![\d.])\+?\d(?:[ .\-_·]\d){9,14}(?![\d])")
_THREES = re.compile(
    r"(?<!\d)(?<!\d[-./])(?:1[ .-]{1,2})?(?:\(\d{3}\)[ -]{0,2}\d{3}[ .-]|\d{3}([-./])\d{3}(?:\1|-))\d{4}"
    r"(?!\d)(?![-./]\d)"
)
_WITH_CODE = re.compile(r"\+[1-9]\d{0,2}(?:[ ()./-]{1,3}\d{1,10}){2,8}")
_GROUP_END = re.compile(r"\d(?!\d)")
_WORD_BEFORE = re.compile(r"[A-Za-z0-9]+\Z")
_ABOUT_PHONE = re.compile(
    r"(?i)(?:phone|\btele?\b|mobil|\bcell|\bfax\b|\bcall|\bsms\b|\btext|whats ?app|signal|contact|\bdial|reach|\bring\b"
    r"|handy|telefon|numer|☎|📞)[^\d\n]{0,24}$"
)
_ABOUT_OTHERS = re.compile(
    r"(?i)(?:[=<>#_/\\$€£%&^]\s{0,3}|\b(?:order|id|ids|ticket|invoice|ref|reference|tracking|account|acct|sku|isbn|issn|upc"
    r"|ean|build|version|commit|timestamp|time|date|serial|case|zip|port|pid|uid|gid|size|bytes|max|min|count|total|sum"
    r"|population|offset|seed|hash|key|index|number of|product|item|part|model|batch|lot|rows?|lines?|items?|page"
    r"|int|value|epoch|receipt|booking|transaction|policy|patent|pmid|doi|imei|vin)\b[\s:.#=no-]{0,6}"
    r"|[\"'][\w .-]{1,40}[\"']\s?:\s?[\"']?|\w_\w{1,40}\s?:\s?)$"
)
_MORE = re.compile(
    r"(?i)\s?(?:bytes|[kmg]i?b\b|ms\b|us\b|ns\b|px\b|seconds|years|people|dollars|euros|%|[*/^<>=]\s?\w|,\d{3}\b)|\.\d"
)


def phone_numbers(text: str, library: ModuleType, region: str) -> Iterator[Span]:
    """Numbers that can be called: of the region, or of any with its code. Other numbers of ten digits are not taken."""
    if not _SEVEN_DIGITS.search(text):
        return
    plain = without_times_and_places(text)  # which a number may stand beside
    for match in library.PhoneNumberMatcher(plain, region):
        within_a_row = text[max(0, match.start - 2) : match.start].rstrip(" ")[-1:].isdigit()
        if within_a_row and not set(match.raw_string) - set("0123456789 "):
            continue
        if not match.raw_string.isdigit() or _is_phone(text, match.start, match.end):
            yield match.start, match.end
    for shape, index in ((_ABROAD, 1), (_SPREAD, 0)):
        for found in shape.finditer(text):
            digits = "".join(filter(str.isdigit, found.group(index)))
            plus = "+" if index or found.group().startswith("+") else ""
            if not _is_within_a_word(text, *found.span()) and _can_be_called(plus + digits, library, region):
                yield found.span()
    yield from _beside_others(plain, library, region)


def _beside_others(text: str, library: ModuleType, region: str) -> Iterator[Span]:
    """Numbers whose form says where they end, so that a number behind them is not taken for a part of them."""
    for match in _THREES.finditer(text):
        if _can_be_called(match.group(), library, region):
            yield match.span()
    for match in _WITH_CODE.finditer(text):
        for last in reversed(list(_GROUP_END.finditer(match.group()))):
            number = match.group()[: last.end()]
            if 8 <= sum(map(str.isdigit, number)) <= 15 and _can_be_called(number, library, region):
                yield match.start(), match.start() + last.end()
                break


def _is_within_a_word(text: str, start: int, end: int) -> bool:
    """Whether it is a part of letters and digits, such as a digest. One word may stand before a number."""
    before, after = _WORD_BEFORE.search(text[max(0, start - 12) : start]), text[end : end + 1]
    word = before.group() if before else ""
    return any(map(str.isdigit, word)) or (bool(word) and after.isascii() and after.isalpha())


def _is_phone(text: str, start: int, end: int) -> bool:
    """Whether digits in a row are a phone number, by what is before and behind."""
    before = text[max(0, start - 40) : start]
    if _ABOUT_PHONE.search(before):
        return True
    return not (_ABOUT_OTHERS.search(before) or _MORE.match(text, end) or text[start:end] == "2147483647")


def _can_be_called(number: str, library: ModuleType, region: str) -> bool:
    try:
        return bool(library.is_valid_number(library.parse(number, region)))
    except library.NumberParseException:
        return False
