"""Dates, times of day, coordinates, versions and UUIDs: numbers that are nobody's, and look like somebody's."""

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
    rf"|(?<![\d.+]){_DEGREES}°?\s?[NS]?(?:\s?[,;/]\s?|\s)(?:[\"']?\w{{1,9}}[\"']?\s?[:=]\s?)?{_DEGREES}(?!\.?\d)"
    r"|\b(?:v|ver|version|release|build)\.?\s?:?\s?\d+(?:\.\d+){2,}"
    r"|(?<![0-9a-z-])[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?![0-9a-z-])"
)


def without_times_and_places(text: str) -> str:
    """The text with line ends in their place, so that each character stays where it is."""
    return _SHAPES.sub(lambda match: "\n" * len(match.group()), text)
