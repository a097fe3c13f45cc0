"""What a check of the audit log has found."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NotRedone", "Problem", "Report"]


@dataclass(frozen=True, slots=True)
class Problem:
    """What does not hold.

    Attributes:
        where: the entry, and the call, segment and attempt where it is about one.
    """

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text


@dataclass(frozen=True, slots=True)
class NotRedone(Problem):
    """What could not be redone here, because a part that decided isn't installed or failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found.

    Attributes:
        problem: the first thing that does not hold or could not be redone, or None.
        records: sealed records that hold, up to the problem; ``attempts`` decisions in them were redone.
        unsealed: records that no chain seals, of the time before there was one: only their decisions were redone.
        unsigned: entries that nobody signed with a key.
        purged: entries that a purge took out.
        torn: beginnings of lines that a crash has left.
        differing: calls of which lists, searches and counts show something else than their records say, and what:
            the first of them. ``differences`` is how many there are.
        not_redone: the first records whose decisions could not be redone here, and why; ``left`` is how many there are.
    """

    problem: Problem | None
    records: int = 0
    attempts: int = 0
    writers: int = 0
    unsealed: int = 0
    unsigned: int = 0
    purged: int = 0
    torn: int = 0
    differing: tuple[Problem, ...] = ()
    differences: int = 0
    not_redone: tuple[NotRedone, ...] = ()
    left: int = 0
