"""Dates, times of day, coordinates, versions and UUIDs: numbers that are nobody's, and look like somebody's.

Most are known by their shape. A count of seconds since 1970 is known by the word before it too, because a phone number
or an id may be as long.
"""

from __future__ import annotations

import re

__all__ = ["without_times_and_places"]

_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_DEGREES = r"-?(?:1[0-7]\d|\d{1,2})\.\d{3,15}"  # no area code of a phone number is as small
_ALONE = r"(?![\d:]|[./-]\d)"
_SHAPES = re.compile(
    rf"(?i)(?<![\w.+:])(?<!\d[/-])(?:{_DAY}([./-]){_DAY}\1(?:(?:19|20)\d\d|\d\d|(?:19|20)\d\Z)"
    rf"|(?:19|20)\d\d([./-]){_DAY}\2{_DAY}){_ALONE}"
    r"|(?<![\w.+:-])(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d)?(?![\w:]|[.-]\d)"
    r"|(?<![\d.+-])(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:[01]\d|2[0-3])[0-5]\d[0-5]\d(?![\d.-])"
    r"|(?<![\d.+-])\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])-(?:[01]\d|2[0-3])[0-5]\d[0-5]\d(?!\d|[.-]\d)"
    r"|(?<![\d.+-])(?P<day_of_year>(?:19|20)\d\d-(?:00[1-9]|0[1-9]\d|[12]\d\d|3[0-5]\d|36[0-6]))(?!\d|[.-]\d)"
    rf"|(?<![\d.+]){_DEGREES}°?\s?[NS]?(?:\s?[,;/]\s?|\s)(?:[\"']?\w{{1,9}}[\"']?\s?[:=]\s?)?{_DEGREES}(?!\.?\d)"
    r"|\b(?:v|ver|version|release|build)\.?\s?:?\s?\d+(?:\.\d+){2,}"
    r"|(?<![0-9a-z-])[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?![0-9a-z-])"
    r"|(?<![\d.,+-])(?P<epoch>\d{9,19})(?:\.\d{1,9})?(?!\d|-|\.\d)"
)
_EPOCH_UNITS = {0: 1, 3: 10**3, 6: 10**6, 9: 10**9}
"""Digits beyond those of seconds: milliseconds, microseconds, nanoseconds."""
_LAST_SECOND = 2**31

_BETWEEN = (
    r"(?:[ _-]?(?:ms|us|ns|milli\w{0,8}|micro\w{0,8}|nano\w{0,8}|sec\w{0,5}|s|utc|gmt))?[\"'`\])*_~]{0,4}"
    r"\s{0,3}(?:[:=|]{1,2}|=>|->|\bis\b|\bwas\b|\bof\b)?\s{0,3}[\"'`\[(*_~]{0,4}\Z"
)
# marks such as underscores may have been taken out of a text, so that words stand together
_ABOUT_MOMENTS = re.compile(
    r"(?i)(?:time[ _-]?stamp|epoch(?:[ _-]?time)?|(?:unix|posix)[ _-]?time|datetime"
    r"|\b_{0,2}(?:ts|[amc]time|iat|nbf|exp)|_(?:at|ts)|(?:ed|es|en|rt|nd|ng)at|(?:event|message|thread|start|end)ts)"
    + _BETWEEN
)
_ABOUT_TIME = re.compile(
    r"(?i)(?:time|(?<!candi)date|created|updated|modified|changed|expires|expiry|\bsince|\buntil|\bstarts?|started|\bends?"
    r"|\bended|deadline|\bseen)" + _BETWEEN
)
_ABOUT_PHONES = re.compile(
    r"(?i)(?:(?<!\[)phone|\btel\b|mobil|\bcell|\bfax|\bcall|\bdial|\bring\b|\btext|reach)[^\d\n]{0,24}\Z"
)


def without_times_and_places(text: str) -> str:
    """The text with line ends in their place, so that each character stays where it is."""
    return _SHAPES.sub(lambda match: match.group() if _is_doubtful(match) else "\n" * len(match.group()), text)


def _is_doubtful(match: re.Match[str]) -> bool:
    """Whether what it looks like is not enough, and nothing before it says what it is."""
    before = match.string[max(0, match.start() - 48) : match.start()]
    if match["day_of_year"]:
        return bool(_ABOUT_PHONES.search(before))
    if digits := match["epoch"]:
        return not _is_a_moment(digits, before)
    return False


def _is_a_moment(digits: str, before: str) -> bool:
    """Whether digits in a row count from 1970, by the word before them.

    A word such as ``date`` can be about another number, so after it only what no phone number of ten digits is passes:
    a moment after 2001, of which the first digit is 1. Cards of 12 digits and more may begin with 3, 5 and 6.
    """
    for more, unit in _EPOCH_UNITS.items():
        if more and digits[0] in "356":
            return False
        if len(digits) - more in (9, 10) and int(digits) < _LAST_SECOND * unit:
            weak = len(digits) - more == 10 and digits[0] == "1"
            return bool(_ABOUT_MOMENTS.search(before) or (weak and _ABOUT_TIME.search(before)))
    return False
