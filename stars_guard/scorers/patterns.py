"""Regular expressions as a judge: linear time (RE2), so that no pattern can hang."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import re2

from stars_guard.core.segments import Passage
from stars_guard.errors import ScorerError
from stars_guard.scorers.base import Find, Rating, Scorer

__all__ = ["Pattern", "PatternScorer"]

_TAIL = 2000


@dataclass(frozen=True, slots=True)
class Pattern:
    """A named regular expression in RE2 syntax; put ``(?i)`` first to ignore case."""

    name: str
    regex: str


class PatternScorer(Scorer):
    """1.0 when a pattern is found in the answer, else 0.0; the detail is the pattern's name.

    A match may begin up to 2,000 characters before the segment; only at the last segment the whole answer is read.

    Raises:
        ScorerError: a pattern is not valid RE2.
    """

    cost = 0.01

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        digest = hashlib.sha256("\n".join(p.regex for p in patterns).encode()).hexdigest()
        self.identity = {"kind": "patterns", "patterns": ", ".join(p.name for p in patterns), "sha256": digest}
        self._compiled = []
        options = re2.Options()
        options.log_errors = False
        for pattern in patterns:
            try:
                self._compiled.append((pattern.name, re2.compile(pattern.regex, options)))
            except re2.error as exc:
                raise ScorerError(f"pattern {pattern.name!r} is not a valid RE2 expression: {exc}") from exc

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        return [self._score(passage) for passage in passages]

    def find(self, text: str) -> Sequence[Find]:
        return [(*match.span(), name) for name, compiled in self._compiled for match in compiled.finditer(text)]

    def _score(self, passage: Passage) -> Rating:
        if not passage.segment:
            return Rating(0.0)
        text = passage.answer if passage.last else passage.accepted[-_TAIL:] + passage.segment
        for name, compiled in self._compiled:
            if compiled.search(text):
                return Rating(1.0, name)
        return Rating(0.0)
