"""What a child policy's rules about tool calls let through that its parent's do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf
from typing import Any, get_args

from stars_guard.core.vocabulary import RuleAction
from stars_guard.rules import Budget, ToolRule
from stars_guard.scorers.options import Loosening

__all__ = ["looser_budget", "looser_rule", "lowers_cost", "replaces_variable"]

_ACTIONS: tuple[RuleAction, ...] = get_args(RuleAction)
"""From the loosest to the strictest."""


def looser_rule(old: ToolRule, new: ToolRule, effective: bool) -> Iterator[Loosening]:
    """A rule that is changed: it must apply at least where it did, and be as strict.

    Args:
        effective: whether rules that allow matter, because the parent's default doesn't allow.
    """
    if old.action == new.action == "allow":
        if not effective:
            return
        if not {*new.tools} <= {*old.tools}:
            yield "tools", "it allows calls of other tools"
        if new.when != old.when and old.when is not None:
            yield "when", "another condition than the parent's"
        return
    if old.action == "allow":
        return
    if _ACTIONS.index(new.action) < _ACTIONS.index(old.action):
        yield "action", f"{old.action} -> {new.action}"
    if not {*old.tools} <= {*new.tools} and "*" not in new.tools:
        yield "tools", "it is not about all of the tools that the parent's is about"
    if new.when != old.when and new.when is not None:
        yield "when", "another condition than the parent's"
    yield from _optional(old, new)


def looser_budget(old: Budget, new: Budget) -> Iterator[Loosening]:
    """A budget that is changed."""
    for field in ("calls", "calls_each", "tokens", "seconds", "cost"):
        before, after = getattr(old, field), getattr(new, field)
        if _limit(after) > _limit(before):
            yield field, f"{before} -> {'no limit' if after is None else after}"
    if _ACTIONS.index(new.action) < _ACTIONS.index(old.action):
        yield "action", f"{old.action} -> {new.action}"
    if not {*old.tools} <= {*new.tools} and "*" not in new.tools:
        yield "tools", "it does not limit all of the tools that the parent's limits"
    yield from _optional(old, new)


def lowers_cost(old: Mapping[str, float], new: Mapping[str, float]) -> bool:
    """Whether a price is lower, or gone."""
    return any(new.get(glob, -inf) < price for glob, price in old.items())


def replaces_variable(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a variable has another value, which conditions of the parent read."""
    return any(name not in new or new[name] != value for name, value in old.items())


def _optional(old: ToolRule | Budget, new: ToolRule | Budget) -> Iterator[Loosening]:
    if new.optional and not old.optional:
        yield "optional", "a tool whose name is misspelt isn't reported"


def _limit(value: float | None) -> float:
    return inf if value is None else value
