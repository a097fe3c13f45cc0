"""Which of two sets of options of one judge lets more through, field by field."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from stars_guard.scorers.options import JudgeOptions, Loosening

__all__ = ["looser"]

_ORDER = ("allow", "ask", "forbid")


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
        levels: ``allow``, ``ask`` or ``forbid``, which may only become stricter.
    """
    for field in allowing:
        before, after = getattr(old, field), getattr(new, field)
        if before is not None and (after is None or not {*after} <= {*before}):
            yield field, "more than the parent's"
    for field in forbidding:
        if not {*getattr(old, field)} <= {*getattr(new, field)}:
            yield field, "less than the parent's"
    for field in levels:
        if _ORDER.index(getattr(new, field)) < _ORDER.index(getattr(old, field)):
            yield field, f"{getattr(old, field)} -> {getattr(new, field)}"
