"""What the judges of a policy say of a passage, as far as it follows from scores on record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from stars_guard.audit import CallRecord
from stars_guard.audit.record import ScoreEntry
from stars_guard.core.doubt import Unasked
from stars_guard.core.judging import Judgement, Score, combine
from stars_guard.core.segments import Passage
from stars_guard.decoding.randomness import Place
from stars_guard.scorers.cascade import Cascade, Judge

__all__ = ["from_record", "is_on_record", "is_unseen", "known_scores"]


def is_on_record(judge: Judge, record: CallRecord) -> bool:
    """Whether the judge that scored under this name on record was the same one, and saw the same."""
    return record.scorers.get(judge.rule.judge) == judge.identity


def known_scores(cascade: Cascade, record: CallRecord, entries: Iterable[ScoreEntry]) -> dict[str, Score]:
    """By judge, the scores on record that these judges would give too."""
    known = {judge.rule.judge for judge in cascade.judges if is_on_record(judge, record)}
    return {entry.judge: Score(**entry.model_dump()) for entry in entries if entry.judge in known}


def is_unseen(cascade: Cascade, passage: Passage, known: Mapping[str, Score]) -> bool:
    """Whether a judge is missing that reads the generator's hidden states, which are not on record."""
    reading = [judge for judge in cascade.judges if judge.scorer.directions is not None]
    return any(judge.rule.judge not in known and judge.view(passage) is not None for judge in reading)


def from_record(
    cascade: Cascade, passage: Passage, place: Place, known: Mapping[str, Score], *, is_all: bool = False
) -> Judgement | None:
    """The judgement that follows; None where a judge would have to be asked whose score is not on record.

    Args:
        known: by judge, the scores on record that these judges would give too.
        is_all: whether all of these judges were asked, as far as they are asked at this segment and before a veto.
    """
    scores: dict[str, Score] = {}
    unasked: list[Unasked] = []
    missing = False
    due = {judge.rule.judge: judge.view(passage) is not None for judge in cascade.judges}
    for judge in cascade.judges:
        name, doubt = judge.rule.judge, judge.rule.doubt
        if doubt is not None and doubt.when not in known and due[doubt.when]:
            # nobody knows whether it would be asked
            missing = missing or due[name]
            continue
        why = cascade.why_asked(judge, passage, list(known.values()), place)
        if isinstance(why, Unasked):
            unasked.append(why)
        elif name in known:
            scores[name] = replace(known[name], asked=why)
        else:
            missing = missing or due[name]
    in_order = [scores[name] for name in known if name in scores]
    judgement = combine(in_order, cascade.rules, unasked)
    if is_all:
        # only a veto of a judge that would not be asked can have kept others from being asked
        missing = missing and combine(list(known.values()), cascade.rules).veto is not None
    return judgement if judgement.veto is not None or not missing else None
