"""Were those judges asked about a candidate on record that had to be, and were others left out for the reason given?

Taken as given are the scores themselves, and the bands of doubt in the record's rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stars_guard.auditing._agreement import holds, same
from stars_guard.core.doubt import Unasked
from stars_guard.core.judging import Judgement, Rule, Score
from stars_guard.decoding.randomness import Place

__all__ = ["asking", "is_asked_at", "scored_fully", "without_sure"]


def is_asked_at(identity: Mapping[str, str], *, index: int, last: bool, whole: bool) -> bool:
    """Whether a judge is asked at a segment at all, by what the record says of when it is asked.

    Args:
        index: of the segment in the answer.
        last: whether the answer would end with it.
        whole: whether it holds a whole tool call or structured answer.
    """
    every = int(identity.get("every", "1"))
    if whole or (last and identity.get("final") == "True"):
        return True
    return every > 0 and (index + 1) % every == 0


def asking(rules: Sequence[Rule], judgement: Judgement, place: Place, *, whole: bool, due: Mapping[str, bool]) -> None:
    """Check which judges were asked.

    Args:
        judgement: with the scores on record.
        whole: whether every judge is asked, whoever is sure.
        due: by judge, whether it is asked at this segment at all.
    """
    _once(judgement)
    unasked = {one.judge: one for one in judgement.unasked}
    values = {score.judge: score.value for score in judgement.scores}
    reasons = {score.judge: score.asked for score in judgement.scores}
    for rule in rules:
        name, doubt = rule.judge, rule.doubt
        if doubt is None:
            holds(name not in unasked, f"judge {name!r} was not asked, and it is always asked")
            same(f"why judge {name!r} was asked", reasons.get(name), None)
            continue
        why = doubt.of(name, values.get(doubt.when), u=place.share(name), whole=whole)
        if isinstance(why, Unasked):
            holds(name not in reasons, f"judge {name!r} was asked, though {doubt.when!r} is sure and chance says no")
            if name in unasked:
                same(f"why judge {name!r} was not asked", unasked[name], why)
        else:
            holds(name not in unasked, f"judge {name!r} was not asked, and should have been: {_WHY[why]}")
            if name in reasons:
                same(f"why judge {name!r} was asked", reasons[name], why)
        there = name in reasons or name in unasked
        # after a veto no further judge is asked
        holds(there or judgement.veto is not None or not due[name], f"judge {name!r} is missing, and nothing says why")


def scored_fully(rules: Sequence[Rule], judgement: Judgement, due: Mapping[str, bool]) -> None:
    """Check that no judge was left out because another one is sure.

    Args:
        due: as in `asking`.
    """
    _once(judgement)
    holds(not judgement.unasked, "a judge was not asked, and every judge is")
    scored = {score.judge for score in judgement.scores}
    for score in judgement.scores:
        same(f"why judge {score.judge!r} was asked", score.asked, None)
    for rule in rules:
        missing = rule.doubt is not None and rule.judge not in scored and due[rule.judge]
        holds(not missing or judgement.veto is not None, f"judge {rule.judge!r} is missing, and nothing says why")


def without_sure(
    rules: Sequence[Rule], scores: Sequence[Score], place: Place, *, whole: bool
) -> tuple[list[Score], list[Unasked]]:
    """The scores that count where every judge was asked, and the judges that would not have been asked in doubt alone.

    Args:
        scores: of all judges.
        whole: as in `asking`.
    """
    values = {score.judge: score.value for score in scores}
    unasked: dict[str, Unasked] = {}
    for rule in rules:
        name, doubt = rule.judge, rule.doubt
        if doubt is not None and name in values:
            why = doubt.of(name, values.get(doubt.when), u=place.share(name), whole=whole)
            unasked |= {name: why} if isinstance(why, Unasked) else {}
    return [score for score in scores if score.judge not in unasked], list(unasked.values())


def _once(judgement: Judgement) -> None:
    names = [score.judge for score in judgement.scores] + [one.judge for one in judgement.unasked]
    holds(len(names) == len(set(names)), "a judge is there twice")


_WHY = {
    "doubt": "the other judge is in doubt",
    "sample": "chance says so",
    "whole": "it is a whole tool call or structured answer",
    "unknown": "the other judge has no score",
}
