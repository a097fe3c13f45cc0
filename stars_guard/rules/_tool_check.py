"""Whether rules fit an agent's tools: a misspelt tool or argument would make a rule that never does what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from stars_guard.core.nearest import did_you_mean, nearest
from stars_guard.core.tools import Tool
from stars_guard.errors import PolicyError
from stars_guard.rules._budgets import Cost
from stars_guard.rules._cel_tree import Path
from stars_guard.rules._condition import Amount, Condition
from stars_guard.rules._schemas import Part
from stars_guard.rules.globs import matches_any
from stars_guard.rules.model import Budget, ToolRule

__all__ = ["check"]


def check(
    rules: Sequence[tuple[ToolRule, Condition | None]],
    budgets: Sequence[Budget],
    cost: Cost,
    tools: Sequence[Tool],
) -> None:
    """Raises as `RuleSet.check_tools` does."""
    names = [tool.name for tool in tools]
    problems: list[str] = []
    for rule, condition in rules:
        where = f"rails.tool_call.rules: {rule.name!r}"
        if not rule.optional:
            problems += (f"{where}: {text}" for text in _unmatched(rule.tools, names))
        about = [tool for tool in tools if matches_any(tool.name, rule.tools)]
        if condition is not None and about:
            problems += (f"{where}: {text}" for text in _misspelt(condition, about))
            problems += (f"{where}: {text}" for text in _never_equal(condition, about))
    for budget in budgets:
        if not budget.optional:
            problems += (
                f"rails.tool_call.budgets: {budget.name!r}: {text}" for text in _unmatched(budget.tools, names)
            )
    for glob, price in cost.items():
        about = [tool for tool in tools if matches_any(tool.name, [glob])]
        if isinstance(price, Amount) and about:
            problems += (f"rails.tool_call.cost: {glob!r}: {text}" for text in _misspelt(price, about, "args"))
    if problems:
        raise PolicyError("\n".join(problems))


def _unmatched(globs: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    for glob in globs:
        if glob != "*" and not any(matches_any(name, [glob]) for name in names):
            there_are = f"the agent has {', '.join(names) or 'no tools'}"
            meant = did_you_mean(glob, names) or did_you_mean(glob.strip("*?_"), names, there_are)
            yield f"tools: no tool matches `{glob}`; {meant}; write `optional: true` if there may be none"


def _misspelt(condition: Condition | Amount, tools: Sequence[Tool], what: str = "when") -> Iterator[str]:
    """Arguments that the condition or cost reads, and that none of the tools has."""
    for path in dict.fromkeys(path[1:] for path in condition.paths if path[0] == "args"):
        parts = [Part(tool.parameters, tool.parameters) for tool in tools]
        for end, step in enumerate(path):
            below = [found for part in parts for found in part.below(step)]
            if not below:
                known = list(dict.fromkeys(name for part in parts for name in part.fields()))
                near = nearest(str(step), known)
                options = f"there are {', '.join(known)}" if known else "it has no fields"
                meant = options if near is None else f"did you mean `{_written(('args', *path[:end], near))}`?"
                yield f"{what}: no tool that the rule is about has `{_written(('args', *path[: end + 1]))}`; {meant}"
                break
            parts = below


def _never_equal(condition: Condition, tools: Sequence[Tool]) -> Iterator[str]:
    """Literals that none of the tools takes for the argument that they are compared with."""
    for path, value in condition.comparisons:
        parts = [Part(tool.parameters, tool.parameters) for tool in tools] if path[0] == "args" else []
        for step in path[1:]:
            parts = [found for part in parts for found in part.below(step)]
        why = [part.why_never(value) for part in parts]
        if why and all(why):
            shown = json.dumps(value, default=str)
            yield f"when: `{_written(path)}` is compared with {shown}, which no tool takes; {why[0]}"


def _written(path: Path) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)[1:]
