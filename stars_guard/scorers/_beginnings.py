"""From a regular expression to one that matches the beginnings of what it matches.

Each part of an expression is copied as it is written, so that it means what it meant: only sequences, choices and
repetitions are understood.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["beginnings"]

_REPEATED = re.compile(r"(?:[*+?]|\{(\d+)(?:(,)(\d*))?\})\??")
_GROUP = re.compile(r"\((?:\?(?:P?<\w+>|([imsU]*)(?:-([imsU]+))?(:|\))))?")
_ESCAPE = re.compile(r"\\(?:[pP](?:\{[^}]*\}|.)|x(?:\{[0-9A-Fa-f]+\}|[0-9A-Fa-f]{2})|[0-7]{1,3}|.)", re.DOTALL)
_CLASS = re.compile(
    r"\[\^?\]?(?:\[:\^?\w+:\]|\\(?:[pP](?:\{[^}]*\}|.)|x(?:\{[0-9A-Fa-f]+\}|[0-9A-Fa-f]{2})|.)|[^\]\\])*\]", re.DOTALL
)
_LONGEST = 200_000
"""Characters of the new expression. One that is longer takes too much to search for."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of an expression.

    Attributes:
        whole: an expression for all of it.
        begun: one for its beginnings, the empty one too, without itself.
    """

    whole: str
    begun: str = ""


class _Unknown(Exception):
    pass


def beginnings(expression: str) -> str | None:
    """An expression for every text with which a match of another may begin. None where that is not known.

    Whole matches are among them only where they are the beginning of a longer one, or end with an assertion.

    Args:
        expression: valid, in RE2 syntax.
    """
    try:
        reader = _Reader(expression)
        part = reader.choice("")
        if not reader.is_over:
            return None
    except _Unknown:
        return None
    return part.begun if len(part.begun) <= _LONGEST else None


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    @property
    def is_over(self) -> bool:
        return self._at >= len(self._text)

    def choice(self, flags: str) -> _Part:
        """Up to the end of the group."""
        branches: list[_Part] = []
        parts: list[_Part] = []
        while not self.is_over and not self._text.startswith(")", self._at):
            if self._text.startswith("|", self._at):
                self._at += 1
                branches.append(_sequence(parts))
                parts = []
                continue
            group = _GROUP.match(self._text, self._at)
            if group is None:
                parts += self._leaves(flags)
            elif group[3] == ")":
                # what comes after it in this group, in further branches too
                self._at = group.end()
                flags = _changed(flags, group)
            else:
                parts.append(self._repeated(self._group(flags, group)))
        branches.append(_sequence(parts))
        if len(branches) == 1:
            return branches[0]
        return _Part(_any(*(one.whole for one in branches)), _any(*(one.begun for one in branches)))

    def _group(self, flags: str, group: re.Match[str]) -> _Part:
        self._at = group.end()
        inner = self.choice(_changed(flags, group))
        if not self._text.startswith(")", self._at):
            raise _Unknown
        self._at += 1
        return _Part(f"(?:{inner.whole})", inner.begun)

    def _leaves(self, flags: str) -> list[_Part]:
        if self._text.startswith("\\Q", self._at):
            quoted, _, _ = self._text[self._at + 2 :].partition("\\E")
            self._at = min(len(self._text), self._at + len(quoted) + 4)
            parts = [_leaf(re.escape(char) if char.isascii() else char, flags) for char in quoted]
            return [*parts[:-1], self._repeated(parts[-1])] if parts else []
        shape = {"\\": _ESCAPE, "[": _CLASS}.get(self._text[self._at])
        found = shape.match(self._text, self._at) if shape else None
        if shape and found is None:
            raise _Unknown
        source = found.group() if found else self._text[self._at]
        if source in ("\\C", "\\E"):
            raise _Unknown
        self._at += len(source)
        return [self._repeated(_leaf(source, flags))]

    def _repeated(self, part: _Part) -> _Part:
        found = _REPEATED.match(self._text, self._at)
        if found is None:
            return part
        self._at = found.end()
        sign, least, comma, most = found.group()[0], found[1], found[2], found[3]
        whole = f"{part.whole}{found.group()}"
        if sign == "?":
            return _Part(whole, part.begun)
        if sign in "*+" or (comma and not most):
            return _Part(whole, f"{part.whole}*{_group(part.begun)}")
        times = int(most or least)
        if not times:
            return _Part(whole)
        return _Part(whole, f"{part.whole}{{0,{times - 1}}}{_group(part.begun)}")


def _changed(flags: str, group: re.Match[str]) -> str:
    return "".join(sorted({*flags, *(group[1] or "")} - {*(group[2] or ""), "U"}))


def _leaf(source: str, flags: str) -> _Part:
    return _Part(f"(?{flags}:{source})" if flags else source)


def _sequence(parts: Sequence[_Part]) -> _Part:
    """One after the other. It is cut in halves, so that nothing nests deeply."""
    if not parts:
        return _Part("")
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    left, right = _sequence(parts[:half]), _sequence(parts[half:])
    return _Part(left.whole + right.whole, _any(left.begun, left.whole + _group(right.begun)))


def _any(*expressions: str) -> str:
    return "|".join(dict.fromkeys(expressions))


def _group(expression: str) -> str:
    return f"(?:{expression})" if expression else ""
