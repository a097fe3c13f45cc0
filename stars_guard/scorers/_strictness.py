"""The levels of judges that parse tool calls, and which of two sets of options of one lets more through."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from stars_guard.core.vocabulary import CallLevel
from stars_guard.scorers.options import JudgeOptions, Loosening

__all__ = ["SCORES", "looser"]

SCORES: Mapping[CallLevel, float] = {"allow": 0.0, "ask": 0.5, "forbid": 1.0}
"""What a call of each level scores."""


def looser(
    old: JudgeOptions,
    new: JudgeOptions,
    *,
    allowing: Collection[str] = (),
    forbidding: Collection[str] = (),
    levels: Collection[str] = (),
) -> Iterator[Loosening]:
    """What the new options let through that the old ones don't.

    Args:
        allowing: lists that may only lose items. Where the old one is None, any new one is stricter.
        forbidding: lists that may only gain items.
        levels: fields that hold a level, which may only become stricter.
    """
    for field in allowing:
        before, after = getattr(old, field), getattr(new, field)
        if before is not None and (after is None or not {*after} <= {*before}):
            yield field, "more than the parent's"
    for field in forbidding:
        if not {*getattr(old, field)} <= {*getattr(new, field)}:
            yield field, "less than the parent's"
    for field in levels:
        if SCORES[getattr(new, field)] < SCORES[getattr(old, field)]:
            yield field, f"{getattr(old, field)} -> {getattr(new, field)}"
