"""Globs of names of tools: ``*`` stands for any characters, ``?`` for one, and all else for itself."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["matches_any"]


def matches_any(name: str, globs: Iterable[str]) -> bool:
    """Whether one of the globs matches the whole name. Upper and lower case differ, as they do in names of tools."""
    return any(_matches(name, glob) for glob in globs)


def _matches(name: str, glob: str) -> bool:
    """In time name times glob at most, because only the last ``*`` is ever tried again."""
    if "*" not in glob and "?" not in glob:
        return name == glob
    at = place = 0
    star, tried = -1, 0
    while at < len(name):
        if place < len(glob) and glob[place] == "*":
            star, tried = place, at
            place += 1
        elif place < len(glob) and glob[place] in ("?", name[at]):
            at, place = at + 1, place + 1
        elif star >= 0:
            tried += 1
            at, place = tried, star + 1
        else:
            return False
    return all(part == "*" for part in glob[place:])
