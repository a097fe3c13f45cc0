"""What a child policy's rules about tool calls let through that its parent's do not, field by field.

As elsewhere, a field without an entry counts as loosened by any change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import inf
from typing import Any, get_args

from stars_guard.core.vocabulary import RuleAction
from stars_guard.rules import Budget, Price, ToolRule
from stars_guard.scorers.options import Loosening

__all__ = ["ALLOWING", "BUDGETS", "STOPPING", "looser_budget", "looser_rule", "lowers_cost", "replaces_variable"]

_ACTIONS: tuple[RuleAction, ...] = get_args(RuleAction)
"""From the loosest to the strictest."""

Words = Callable[[Any, Any], str]
"""What is looser about a part whose field has changed, in words; empty for nothing. It gets the parts."""


def _free(old: Any, new: Any) -> str:
    return ""


def _closed(old: Any, new: Any) -> str:
    return "it is not the parent's"


def _less_strict(old: Any, new: Any) -> str:
    is_looser = _ACTIONS.index(new.action) < _ACTIONS.index(old.action)
    return f"{old.action} -> {new.action}" if is_looser else ""


def _fewer_tools(old: Any, new: Any) -> str:
    fewer = not {*old.tools} <= {*new.tools} and "*" not in new.tools
    return "it is not about all of the tools that the parent's is about" if fewer else ""


def _more_tools(old: Any, new: Any) -> str:
    return "" if {*new.tools} <= {*old.tools} or "*" in old.tools else "it allows calls of other tools"


def _less_often(old: Any, new: Any) -> str:
    return "another condition than the parent's" if new.when is not None else ""


def _more_often(old: Any, new: Any) -> str:
    return "another condition than the parent's" if old.when is not None else ""


def _unreported(old: Any, new: Any) -> str:
    return "a tool whose name is misspelt isn't reported" if new.optional else ""


def _higher(field: str) -> Words:
    def words(old: Any, new: Any) -> str:
        before, after = getattr(old, field), getattr(new, field)
        is_higher = (inf if after is None else after) > (inf if before is None else before)
        return f"{before} -> {'no limit' if after is None else after}" if is_higher else ""

    return words


STOPPING: Mapping[str, Words] = {
    "name": _free,
    "tools": _fewer_tools,
    "when": _less_often,
    "action": _less_strict,
    "message": _free,
    "optional": _unreported,
}
"""Of a rule that asks or rejects: it must apply at least where it did, and be as strict."""

ALLOWING: Mapping[str, Words] = {
    "name": _free,
    "tools": _more_tools,
    "when": _more_often,
    "action": _free,
    "message": _free,
    "optional": _free,
}
"""Of a rule that allows: it must apply at most where it did."""

BUDGETS: Mapping[str, Words] = {
    **{field: _higher(field) for field in ("calls", "calls_each", "tokens", "seconds", "cost")},
    "name": _free,
    "tools": _fewer_tools,
    "action": _less_strict,
    "message": _free,
    "optional": _unreported,
}


def looser_rule(old: ToolRule, new: ToolRule, effective: bool) -> Iterator[Loosening]:
    """A rule that is changed.

    Args:
        effective: whether rules that allow matter, because the parent's default doesn't allow.
    """
    if old.action != "allow":
        yield from _looser(old, new, STOPPING)
    elif new.action == "allow" and effective:
        yield from _looser(old, new, ALLOWING)


def looser_budget(old: Budget, new: Budget) -> Iterator[Loosening]:
    """A budget that is changed."""
    yield from _looser(old, new, BUDGETS)


def lowers_cost(old: Mapping[str, Price], new: Mapping[str, Price]) -> bool:
    """Whether a price is lower, or gone. One that is computed can't be compared, so any other may be lower."""
    return any(_is_lower(price, new.get(glob, -inf)) for glob, price in old.items())


def _is_lower(old: Price, new: Price) -> bool:
    return new != old if isinstance(old, str) or isinstance(new, str) else new < old


def replaces_variable(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a variable has another value, which conditions of the parent read."""
    return any(name not in new or new[name] != value for name, value in old.items())


def _looser(old: ToolRule | Budget, new: ToolRule | Budget, fields: Mapping[str, Words]) -> Iterator[Loosening]:
    for field in type(old).model_fields:
        if getattr(old, field) != getattr(new, field) and (text := fields.get(field, _closed)(old, new)):
            yield field, text
