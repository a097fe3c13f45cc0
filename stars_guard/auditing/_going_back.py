"""Does it follow from a record that its answer went back there, and nowhere else?

Taken as given are how much of the answer was held, and where the match of a veto begins. No record says where tokens
begin, so how many of them stay is checked against the totals.
"""

from __future__ import annotations

from collections.abc import Sequence

from stars_guard.audit import CallRecord
from stars_guard.audit.record import Attempt, Rewind, Segment
from stars_guard.auditing._agreement import DoesNotHold, holds, same
from stars_guard.auditing._standing import StoodSegments
from stars_guard.decoding import Settings, decoder_of
from stars_guard.decoding.ledger import may_go_back
from stars_guard.decoding.rewinding import reason_to_go_back

__all__ = ["GoingBack"]


class GoingBack:
    """The part of redoing a record that follows its answer back.

    Args:
        settings: of the decoder; None where nothing was generated.
    """

    def __init__(self, record: CallRecord, settings: Settings | None) -> None:
        self.standing = StoodSegments()
        self.rewinds = 0
        self._record = record
        self._settings = settings
        self._open = record.finish in ("failed", "cancelled")
        self.released = 0

    @property
    def _can(self) -> bool:
        """Whether the method ever goes back."""
        return self._settings is not None and decoder_of(self._settings.method).decides == "each"

    def held(self, segment: Segment) -> None:
        """What was not released before a segment: it was there, and what is released once stays so."""
        released = self.standing.characters - segment.held
        if self._settings is not None and self._record.schema_version > 4:
            holds(segment.held >= 0 and released >= self.released, "more was held than was not released")
            self.released = released

    def origin(self, segment: Segment, attempt: Attempt) -> None:
        """Which conversation a candidate was generated under, and whether a match can begin before it."""
        recovery = self._settings is not None and self._settings.is_recovery(attempt.attempt)
        same("whether it came from the recovery instruction", attempt.recovery, recovery)
        begins = attempt.match_before
        allowed = attempt.veto is not None and self._settings is not None and self._settings.rewinds > 0
        holds(begins == 0 or (allowed and 0 < begins <= segment.held), "its match cannot begin there")

    def must_go_back(self, attempt: Attempt) -> bool:
        """Whether the answer goes back because of a candidate, if it can be paid for."""
        if not attempt.match_before or attempt.verdict == "surplus" or self._open or self._settings is None:
            return False
        settings = self._settings
        paid = settings.budget_tokens is None
        return paid and not settings.monitor and self.rewinds < settings.rewinds

    def rewound(self, segment: Segment, back: Rewind, looked_at: Sequence[Attempt]) -> float | None:
        """The answer went back. Gives the reward of the answer before the first segment of which something was taken.

        Args:
            looked_at: the segment's candidates without surplus ones.
        """
        settings, standing = self._settings, self.standing
        if settings is None or not self._can:
            raise DoesNotHold("the answer went back, and its method never does")
        holds(all(attempt.verdict == "rejected" for attempt in looked_at), "it went back from what was accepted")
        if problem := standing.problem(back):
            raise DoesNotHold(problem)
        holds(back.place >= standing.characters - segment.held, "what was released was taken back")
        if back.why == "match":
            same("where the answer went back to", back.place, standing.characters - looked_at[-1].match_before)
        else:
            by_match = not settings.budget_tokens and looked_at[-1].match_before > 0
            holds(not by_match, "the match of its last candidate was the reason")
            holds(len(segment.attempts) >= settings.attempts_at(self.standing.tokens), "attempts had not run out")
            assert standing.last is not None  # noqa: S101
            same("the segment that was taken back", (back.to, back.left), (standing.last.index, 0))
        vetoes = [attempt.veto for attempt in looked_at if attempt.veto is not None]
        why = reason_to_go_back(back.why, attempts=len(segment.attempts), veto=vetoes[-1] if vetoes else None)
        same("reason", back.reason, why)
        # what was generated past the end of this segment was not counted yet
        generated = self.generated(segment) - sum(attempt.overrun for attempt in segment.attempts)
        holds(self._may_go_back(back.tokens, generated), "the answer could not go back any more")
        self.rewinds += 1
        return standing.cut(back)

    def _may_go_back(self, tokens: int, generated: int) -> bool:
        assert self._settings is not None  # noqa: S101
        left = self.standing.tokens - tokens
        limit = decoder_of(self._settings.method).limit(self._settings, left)
        return may_go_back(self._settings, rewinds=self.rewinds, limit=limit, generated=generated, left=left)

    def no_way_back(self, segment: Segment) -> None:
        """That the answer could not go back when the attempts of a segment ran out."""
        last, settings = self.standing.last, self._settings
        if settings is None or last is None or not self._can or self._open:
            return
        if last.characters <= segment.held and len(segment.attempts) >= settings.attempts_at(self.standing.tokens):
            could = self._may_go_back(last.tokens, self.generated(segment))
            holds(not could, "the answer could have gone back, and did not")

    def generated(self, segment: Segment) -> int:
        """Tokens that were generated up to the end of a segment, all counted."""
        return sum(a.tokens + a.overrun for s in self._record.segments[: segment.index + 1] for a in s.attempts)
