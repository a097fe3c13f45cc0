"""What another policy decides about a call on record, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stars_guard.core.vocabulary import OtherOutcome, OtherVerdict, Verdict

__all__ = ["Answered", "Outcome", "Parting", "Redecided", "Source"]

Outcome = OtherOutcome

Source = Literal["record", "judged", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Redecided:
    """One candidate under the other policy, after the prefix that it was generated from.

    Attributes:
        before: the verdict on record; ``after`` is the other policy's, or ``unknown`` where a judge's score is not on
            record and the text was not kept.
        source: where the scores are from; ``none`` also where the other policy judges nothing.
    """

    segment: int
    attempt: int
    before: Verdict
    after: OtherVerdict
    source: Source
    reward: float | None = None
    threshold: float | None = None
    probability: float | None = None
    veto: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parting:
    """Where the other policy leaves the answer on record, and what it does there.

    Attributes:
        segment: may be one more than there are on record, where the other policy would have gone on.
        kept: the attempt that it keeps, if any.
        seen: how many candidates of the segment it looks at before.
    """

    segment: int
    outcome: Outcome
    kept: int | None = None
    seen: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The other policy's decisions.

    Attributes:
        candidates: all on record, in order.
        parting: None where the other policy gives the same answer.
    """

    candidates: tuple[Redecided, ...]
    parting: Parting | None
