"""JMESPath expressions that find a score in a reply: their mistakes are found when a policy is read.

``jmespath.compile`` checks the grammar alone. Unknown functions, wrong numbers of arguments and the like raise only
when an expression meets a reply, which would fail every call.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jmespath
from jmespath.functions import Functions

from stars_guard.core.nearest import did_you_mean
from stars_guard.errors import ScorerError

__all__ = ["ReplyExpression"]

_LOOKS_AT = frozenset({"field", "current", "index", "slice", "identity"})
"""Kinds of nodes whose value depends on the reply."""

_NO_NUMBER = {
    "expref": "an expression",
    "multi_select_list": "a list",
    "multi_select_dict": "an object",
    "projection": "a list",
    "value_projection": "a list",
    "filter_projection": "a list",
    "flatten": "a list",
}
"""Kinds of nodes whose value is never a number, where an expression ends with them."""

_KINDS = (("boolean", bool), ("number", int | float), ("string", str), ("array", list), ("object", dict))


class ReplyExpression:
    """A checked expression.

    Raises:
        ValueError: it can't be used on any reply, or would give the same for every reply. The text says why.
    """

    def __init__(self, text: str) -> None:
        try:
            self._compiled = jmespath.compile(text)
        except jmespath.exceptions.JMESPathError as exc:
            raise ValueError(f"not a JMESPath expression: {type(exc).__name__}") from exc
        root: Any = self._compiled.parsed
        for node in _nodes(root):
            if problem := _problem(node):
                raise ValueError(problem)
        if root["type"] in _NO_NUMBER:
            raise ValueError(f"gives {_NO_NUMBER[root['type']]}, and a score is one number")
        if not any(node["type"] in _LOOKS_AT for node in _nodes(root)):
            raise ValueError("looks at no part of the reply, so every answer would get the same score")

    def number(self, reply: Any) -> float:
        """The score in a reply: a number, or true for 1 and false for 0.

        Raises:
            ScorerError: the reply has no number there.
        """
        try:
            value = self._compiled.search(reply)
        except jmespath.exceptions.JMESPathError as exc:
            raise ScorerError(
                f"the classifier's answer does not fit score: {type(exc).__name__}", hint="check score"
            ) from None
        if not isinstance(value, bool | int | float):
            raise ScorerError("the classifier's answer has no number where score says", hint="check score")
        return float(value)


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    if node["type"] == "slice":
        return  # its children are plain numbers
    for child in node["children"]:
        yield from _nodes(child)


def _problem(node: dict[str, Any]) -> str | None:
    if node["type"] == "slice":
        return "a slice cannot have the step 0" if node["children"][2] == 0 else None
    if node["type"] != "function_expression":
        return None
    name, given = node["value"], node["children"]
    known = Functions.FUNCTION_TABLE
    if name not in known:
        return f"there is no function {name}(); {did_you_mean(name, known, ', '.join(sorted(known)))}"
    wanted = known[name]["signature"]
    variadic = bool(wanted) and wanted[-1].get("variadic", False)
    if len(given) < len(wanted) or (len(given) > len(wanted) and not variadic):
        count = f"{'at least ' if variadic else ''}{len(wanted)} argument{'s' * (len(wanted) != 1)}"
        return f"{name}() takes {count}, not {len(given)}"
    for number, argument in enumerate(given):
        types = wanted[min(number, len(wanted) - 1)]["types"]
        if not _may_be(argument, types):
            return f"{name}() does not take what is written as argument {number + 1}; it takes {' or '.join(types)}"
    return None


def _may_be(argument: dict[str, Any], types: list[str]) -> bool:
    """Whether an argument can have one of the types. Only literals and ``&expressions`` are known without a reply."""
    if (argument["type"] == "expref") != ("expref" in types):
        return False
    if argument["type"] != "literal" or not types:
        return True
    kind = next((name for name, python in _KINDS if isinstance(argument["value"], python)), "null")
    return any(wanted == kind or wanted.startswith(f"{kind}-") for wanted in types)
