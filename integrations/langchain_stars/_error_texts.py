"""Every text that an error holds, so that it can be judged before somebody reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_stars._graphs import GraphInterrupt, Interrupt
from stars_guard.errors import Refused

__all__ = ["texts_of_error", "withheld_error"]


def withheld_error(failure: BaseException, whose: str, reason: str, audit_id: str | None) -> Refused:
    """What is raised in the place of an error whose text may not be shown.

    Args:
        whose: added to what it is, such as `` of a tool``.
    """
    what = "a question" if isinstance(failure, GraphInterrupt) else "an error"
    error = Refused(f"the text of {what}{whose} was withheld: {reason}", hint=f"record {audit_id}")
    error.audit_id = audit_id
    return error


def texts_of_error(failure: BaseException) -> str:
    """The texts of an error and of the errors behind it, as they are and as they are shown."""
    return "\n".join(dict.fromkeys(_texts(failure, set())))


def _texts(value: Any, seen: set[int]) -> list[str]:
    if value is None or isinstance(value, (bool, int, float)) or id(value) in seen:
        return []
    seen.add(id(value))
    parts: list[Any]
    match value:
        case str():
            return [value]
        case bytes():
            return [value.decode(errors="replace")]
        case BaseException():
            parts = [type(value).__name__, *_printed(value), value.args, vars(value), value.__cause__]
            parts += [value.__context__, getattr(value, "exceptions", ()), getattr(value, "__notes__", ())]
        case Interrupt():
            parts = [value.value, *_printed(value.value)]
        case Mapping():
            parts = [*value.keys(), *value.values()]
        case list() | tuple() | set() | frozenset():
            parts = list(value)
        case _:
            parts = _printed(value)
    return [text for part in parts for text in _texts(part, seen)]


def _printed(value: Any) -> list[str]:
    return [str(value), repr(value)]
