"""Does what a record says of shadow policies follow from what their judges have said?

Their settings are not on record, so thresholds and where an answer parts are taken as given; `what_if` redoes them.
"""

from __future__ import annotations

from stars_guard.audit import CallRecord
from stars_guard.audit.record import ShadowEntry
from stars_guard.auditing._agreement import DoesNotHold, close, same
from stars_guard.auditing._asking import without_sure
from stars_guard.core.doubt import Unasked
from stars_guard.core.judging import Rule, Score, combine
from stars_guard.decoding.randomness import Place
from stars_guard.errors import ScorerError

__all__ = ["redo_shadows"]


def redo_shadows(record: CallRecord, place: list[str]) -> None:
    """Do what can be redone of every shadow.

    Args:
        place: where in the record we are, for the problem; this is changed.

    Raises:
        DoesNotHold: something does not follow from what is on record.
    """
    for entry in record.shadows:
        place[1:] = [f"shadow {entry.policy}"]
        _redo(record, entry, place)
    place[1:] = []


def _redo(record: CallRecord, entry: ShadowEntry, place: list[str]) -> None:
    rules = [rule.rule for rule in entry.rules]
    attempts = {(s.index, a.attempt): a for s in record.segments for a in s.attempts}
    counts = {"rejections": 0, "rejected": 0, "scorer_passages": len(entry.review or ())}
    for row in entry.candidates:
        place[2:] = [f"segment {row.segment}, attempt {row.attempt}"]
        attempt = attempts.get((row.segment, row.attempt))
        if attempt is None:
            raise DoesNotHold("it is about a candidate that is not on record")
        counts["scorer_passages"] += len(row.scores)
        rejected = row.verdict == "rejected" and attempt.verdict != "surplus"
        counts["rejections"] += rejected
        counts["rejected"] += attempt.tokens * rejected
        if not row.judged or row.verdict == "unknown":
            continue
        said = [Score(**score.model_dump()) for score in row.scores]
        at = Place(seed=record.seed, segment=row.segment, attempt=row.attempt)
        try:
            judgement = combine(*_of_policy(said, rules, at, whole=attempt.whole))
        except ScorerError as exc:
            raise DoesNotHold(exc.message) from exc
        same("veto", row.veto, judgement.veto)
        if row.reward is not None and row.veto is None:
            # after a veto it is the sum of those that were asked before
            close("reward", row.reward, judgement.reward)
    place[2:] = []
    for name, number in counts.items() if entry.totals else ():
        same(f"total of {name}", entry.totals.get(name, 0), number)


def _of_policy(
    scores: list[Score], rules: list[Rule], place: Place, *, whole: bool
) -> tuple[list[Score], list[Rule], list[Unasked]]:
    """What counts of a shadow's scores: each of its judges was asked, in doubt or not."""
    left, unasked = without_sure(rules, scores, place, whole=whole)
    return left, rules, unasked
