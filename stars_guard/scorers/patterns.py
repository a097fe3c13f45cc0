"""Regular expressions as a judge: linear time (RE2), so that no pattern can hang."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

import re2
from pydantic import Field, field_validator, model_validator

from stars_guard.core.readings import found, opened
from stars_guard.core.segments import Passage
from stars_guard.scorers._newest import Search
from stars_guard.scorers._unfinished_matches import UnfinishedMatches
from stars_guard.scorers.base import Find, Rating, Scorer
from stars_guard.scorers.options import JudgeOptions, Loosening, Strict, no_twins

__all__ = ["Pattern", "PatternScorer", "PatternsOptions"]

_LONGEST = 2000


def _compiled(regex: str) -> Any:
    """A compiled expression.

    Raises:
        ValueError: the expression is not valid RE2; the text says why.
    """
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(regex, options)
    except re2.error as exc:
        text = exc.args[0] if exc.args else ""
        reason = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
        raise ValueError(f"not a valid RE2 expression: {reason}") from exc


def _compiles(regex: str) -> bool:
    try:
        _compiled(regex)
    except ValueError:
        return False
    return True


class Pattern(Strict):
    """A named regular expression in RE2 syntax.

    ``flags`` is written into ``regex`` as ``(?flags:regex)``, so that whoever compiles ``regex`` alone gets what was
    meant.
    """

    name: str = Field(min_length=1, description="reasons and records name the pattern so")
    regex: str = Field(min_length=1, description="a regular expression of RE2")
    flags: str = Field("", pattern="^[ims]*$", description="i: ignore case; m: ^, $ at line ends; s: . is also \\n")

    @model_validator(mode="before")
    @classmethod
    def _fold_flags(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        regex, flags = data.get("regex"), data.get("flags")
        foldable = isinstance(regex, str) and isinstance(flags, str) and re.fullmatch("[ims]+", flags)
        # a broken regex stays as it was written: wrapped, "a)(b" would compile
        if foldable and regex and _compiles(regex):
            return {**data, "regex": f"(?{flags}:{regex})", "flags": ""}
        return data

    @field_validator("regex")
    @classmethod
    def _is_re2(cls, regex: str) -> str:
        _compiled(regex)
        return regex


class PatternsOptions(JudgeOptions):
    """Regular expressions; a match scores 1 and, by default, vetoes."""

    free: ClassVar[frozenset[str]] = frozenset({"patterns"})
    by_name: ClassVar[frozenset[str]] = frozenset({"patterns"})

    patterns: tuple[Pattern, ...] = Field(min_length=1, strict=False, description="any match counts as 1")
    reject_above: float | None = Field(0.0, description="a score above this vetoes the segment")

    @field_validator("patterns")
    @classmethod
    def _names_differ(cls, patterns: tuple[Pattern, ...]) -> tuple[Pattern, ...]:
        no_twins("patterns", [pattern.name for pattern in patterns])
        return patterns

    def loosenings(self, child: Self) -> Iterator[Loosening]:
        kept = {pattern.name: pattern.regex for pattern in child.patterns}
        for pattern in self.patterns:
            if kept.get(pattern.name) != pattern.regex:
                yield "patterns", f"pattern {pattern.name!r} is not the parent's"

    async def load(self) -> Scorer:
        return PatternScorer(self.patterns)


class PatternScorer(Scorer):
    """1.0 when a pattern is found in the answer, else 0.0; the detail is the pattern's name.

    A pattern is looked for in the text as it is and in its readings (`stars_guard.core.readings`): without hidden
    characters, with look-alikes of Latin letters as what they look like. A match that is longer than 2,000 characters
    is found at the last segment.
    """

    cost = 0.01
    waits = False

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        digest = hashlib.sha256("\n".join(p.regex for p in patterns).encode()).hexdigest()
        self.identity = {"kind": "patterns", "patterns": ", ".join(p.name for p in patterns), "sha256": digest}
        self._compiled = [(pattern.name, _compiled(pattern.regex)) for pattern in patterns]
        self._search = Search(self._find, _LONGEST)
        self._unfinished = [UnfinishedMatches(pattern.regex) for pattern in patterns]

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        return [self._score(passage) for passage in passages]

    def find(self, text: str) -> Sequence[Find]:
        return [find for find in self._find(text, 0) if find[0] < find[1]]

    async def forget(self, call_id: str) -> None:
        self._search.forget(call_id)

    def open_from(self, text: str, start: int = 0) -> int | None:
        return opened(text, self._first_open, start)

    def _first_open(self, text: str, start: int) -> int | None:
        places = [one.open_from(text, start) for one in self._unfinished]
        return min((place for place in places if place is not None), default=None)

    def _score(self, passage: Passage) -> Rating:
        names = {name for _, _, name in self._search.finds(passage)}
        first = next((name for name, _ in self._compiled if name in names), None)
        return Rating(0.0 if first is None else 1.0, first)

    def _find(self, text: str, start: int) -> Sequence[Find]:
        return found(text, self._matches, start)

    def _matches(self, text: str, start: int) -> Iterator[Find]:
        for name, compiled in self._compiled:
            for match in compiled.finditer(text, start):
                yield *match.span(), name
