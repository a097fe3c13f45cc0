"""Whether rules fit an agent's tools: a misspelt tool or argument would make a rule that never does what it says."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stars_guard.core.schemas import self_contained
from stars_guard.core.tools import Tool
from stars_guard.errors import InputError, PolicyError
from stars_guard.rules._cel_tree import Path
from stars_guard.rules._condition import Condition
from stars_guard.rules.globs import matches_any
from stars_guard.rules.model import Budget, ToolRule

__all__ = ["check"]

Schema = Mapping[str, Any]


def check(
    rules: Sequence[tuple[ToolRule, Condition | None]],
    budgets: Sequence[Budget],
    cost: Mapping[str, float],
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
    for budget in budgets:
        if not budget.optional:
            problems += (
                f"rails.tool_call.budgets: {budget.name!r}: {text}" for text in _unmatched(budget.tools, names)
            )
    if problems:
        raise PolicyError("\n".join(problems))


def _unmatched(globs: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    for glob in globs:
        if glob != "*" and not any(matches_any(name, [glob]) for name in names):
            near = difflib.get_close_matches(glob, names, 1) or difflib.get_close_matches(glob.strip("*?_"), names, 1)
            meant = f"did you mean `{near[0]}`?" if near else f"the agent has {', '.join(names) or 'none'}"
            yield f"tools: no tool matches `{glob}`; {meant} Write `optional: true` if there may be none"


def _misspelt(condition: Condition, tools: Sequence[Tool]) -> Iterator[str]:
    """Arguments that the condition reads, and that none of the tools has."""
    schemas = [_resolved(tool) for tool in tools]
    for path in dict.fromkeys(path[1:] for path in condition.paths if path[0] == "args" and len(path) > 1):
        for end in range(1, len(path) + 1):
            known: list[str] = []
            if not any(_has(schema, schema, path[:end], known) for schema in schemas):
                near = difflib.get_close_matches(str(path[end - 1]), known, 1)
                options = f"there are {', '.join(dict.fromkeys(known))}" if known else "there are no fields"
                meant = f"did you mean `{_written(('args', *path[: end - 1], near[0]))}`?" if near else options
                yield f"when: no tool that the rule is about has `{_written(('args', *path[:end]))}`; {meant}"
                break


def _written(path: Path) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)[1:]


def _resolved(tool: Tool) -> Schema:
    try:
        return self_contained(tool.parameters)
    except InputError:
        return {}  # nothing is known about it


def _has(schema: Any, root: Schema, path: Path, known: list[str], depth: int = 0) -> bool:
    """Whether a value that the schema allows may have a part at a path.

    Args:
        known: names of the fields at the path's last step are added to it.
    """
    if not path or schema is True or depth > 64:
        return True
    if not isinstance(schema, Mapping):
        return False
    if isinstance(ref := schema.get("$ref"), str):
        return _has(_definition(root, ref), root, path, known, depth + 1)
    branches = [one for key in ("anyOf", "oneOf", "allOf") for one in schema.get(key) or ()]
    found = [_has(one, root, path, known, depth + 1) for one in branches]
    first, rest = path[0], path[1:]
    fields = schema.get("properties")
    if isinstance(fields, Mapping) and isinstance(first, str):
        if first in fields:
            return _has(fields[first], root, rest, known, depth + 1)
        if not rest:
            known += map(str, fields)
    if any(found):
        return True
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if isinstance(first, int):
        return not branches and (kinds is None or "array" in kinds)
    if kinds is not None and "object" not in kinds:
        return False
    others = schema.get("additionalProperties", None if isinstance(fields, Mapping) else not branches)
    return (bool(others) and _has(others, root, rest, known, depth + 1)) or bool(schema.get("patternProperties"))


def _definition(root: Schema, ref: str) -> Any:
    defined = root.get("$defs")
    return defined.get(ref.rpartition("/")[2], True) if isinstance(defined, Mapping) else True
