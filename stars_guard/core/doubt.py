"""When an expensive judge is asked: where a cheap one is in doubt, and for a random share of the rest.

Pure, so that an auditor can do it again from the record.
"""

from __future__ import annotations

from dataclasses import dataclass

from stars_guard.core.vocabulary import AskedWhy, Side

__all__ = ["Doubt", "Unasked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unasked:
    """A judge that was not asked about a passage, because another one is sure.

    Attributes:
        judge: the one that was not asked.
        instead: the one whose score stands for its own.
        side: on which side of the band of doubt that score lies.
    """

    judge: str
    instead: str
    side: Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """The band of another judge's scores in which a judge is asked.

    Attributes:
        when: the other judge.
        above: the band begins above this score; None where it has no lower end.
        below: the band ends with this score, which belongs to it; None where it has no upper end.
        sample: the share of passages outside the band about which the judge is asked too.
    """

    when: str
    above: float | None = None
    below: float | None = None
    sample: float = 0.02

    def side(self, score: float) -> Side | None:
        """On which side of the band a score lies; None inside."""
        if self.above is not None and score <= self.above:
            return "below"
        return "above" if self.below is not None and score > self.below else None

    def of(self, judge: str, score: float | None, *, u: float, whole: bool) -> AskedWhy | Unasked:
        """Why a judge is asked about a passage, or that it is not.

        Args:
            judge: the one that has this band.
            score: the other judge's; None where it has none, because it failed or was not asked.
            u: the uniform number that ``sample`` is held against.
            whole: whether the passage holds a whole tool call or structured answer, about which every judge is asked.
        """
        if whole:
            return "whole"
        if score is None:
            return "unknown"
        side = self.side(score)
        if side is None:
            return "doubt"
        return "sample" if u < self.sample else Unasked(judge=judge, instead=self.when, side=side)
