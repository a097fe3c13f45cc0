"""Globs of names of tools: ``*`` stands for any characters, ``?`` for one, and all else for itself."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

__all__ = ["is_plain", "matches_any"]


def matches_any(name: str, globs: Iterable[str]) -> bool:
    """Whether one of the globs matches the whole name. Upper and lower case differ, as they do in names of tools."""
    return any(_matches(name, glob) for glob in globs)


def is_plain(glob: str) -> bool:
    """Whether the glob is the name of one tool."""
    return "*" not in glob and "?" not in glob


def _matches(name: str, glob: str) -> bool:
    start = glob[:-1] if glob.endswith("*") else glob
    if is_plain(start):  # as nearly all globs are
        return name.startswith(start) if start is not glob else name == glob
    return _compiled(glob).fullmatch(name) is not None


@lru_cache(1024)
def _compiled(glob: str) -> re.Pattern[str]:
    import re2  # here, because a policy is read without it

    parts = re.split(r"([*?])", glob)
    shape = "".join({"*": ".*", "?": "."}.get(part) or re2.escape(part) for part in parts)
    found: re.Pattern[str] = re2.compile(f"(?s){shape}")  # in time linear in the name
    return found
