"""Conditions in CEL, compiled once and evaluated for each call.

The library is ``cel-expr-python``, the wrapper of Google's own implementation in C++. It has wheels for Python 3.11 to
3.13 and needs no other package. Compared with ``cel-python``, which is written in Python, on one machine: 17 instead of
480 microseconds an evaluation, compilation limited to 32 levels instead of a `RecursionError`, and an evaluation that
stops after 10,000 iterations of comprehensions (4 milliseconds) where the other has no limit (10,000 took 3 seconds).
Regular expressions are RE2's in both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cache
from typing import Any, ClassVar

from cel_expr_python import cel

from stars_guard.core.nearest import did_you_mean
from stars_guard.rules._cel_tree import Call, Expr, Path, comparisons, parse, paths, walk
from stars_guard.rules._functions import DECLARATIONS, FUNCTIONS, MEMBERS
from stars_guard.rules._values import TooLarge, plain_values, readable

__all__ = ["VARIABLES", "Amount", "Condition", "ConditionError", "Unknown", "activation"]

_MAPPING = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
VARIABLES: Mapping[str, Any] = {
    "args": _MAPPING,
    "tool": cel.Type.STRING,
    "user": cel.Type.List(cel.Type.STRING),
    "run": _MAPPING,
    "vars": _MAPPING,
    "context": _MAPPING,
}
"""What a condition sees, with its CEL type."""


class ConditionError(ValueError):
    """A condition that can't be compiled. The message holds names of the condition only."""


class Unknown(Exception):
    """A condition that can't be evaluated: an argument is missing, or of a type that it can't be compared with."""


@cache
def _environment() -> Any:
    """Made for the first condition: it takes longer than the import of the library."""
    return cel.NewEnv(variables=VARIABLES, functions=DECLARATIONS)


_MACROS = ("has", "all", "exists", "exists_one", "map", "filter")
_STANDARD = (
    "size",
    "startsWith",
    "endsWith",
    "contains",
    "matches",
    "int",
    "double",
    "string",
    "timestamp",
    "duration",
)


class _Expression:
    kinds: ClassVar[tuple[str, ...]]
    wanted: ClassVar[str]

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._compiled = _environment().compile(text)
        except Exception as exc:  # the library has no errors of its own
            raise ConditionError(_why(str(exc))) from None
        kind = self._compiled.return_type().name()
        if kind not in (*self.kinds, "DYN"):
            raise ConditionError(f"its value is of the type {kind.lower()}; {self.wanted}")
        tree = parse(self._compiled.serialize())
        self.paths: tuple[Path, ...] = tuple(dict.fromkeys(paths(tree)))
        self.comparisons: tuple[tuple[Path, Any], ...] = tuple(comparisons(tree))
        _check_calls(tree)
        _check_run(self.paths)

    def _value(self, scope: Any) -> Any:
        try:
            return self._compiled.eval(scope).value()
        except Exception as exc:  # the library has no errors of its own, and their texts hold values
            return str(exc)

    def reads(self, places: Iterable[Path]) -> bool:
        """Whether it reads one of the places, something in it, or something that it is in."""
        return any(path[: len(place)] == place[: len(path)] for place in places for path in self.paths)

    def missing_in(self, values: Mapping[str, Any]) -> str:
        """What the condition reads and a call doesn't have, in words; empty for nothing."""
        for path in self.paths:
            held: Any = values
            for end, part in enumerate(path, start=1):
                try:
                    held = held[part]
                except (LookupError, TypeError):
                    return f"there is no `{'.'.join(map(str, path[:end]))}`"
        return ""


class Condition(_Expression):
    """A compiled condition.

    Args:
        text: in CEL, at most 32 levels deep. Its value is true or false.

    Attributes:
        paths: what it reads of the `VARIABLES`, as far as it is written out.
        comparisons: what it compares with a literal, and the literal.

    Raises:
        ConditionError: it isn't CEL, uses a name that isn't there, or has another type than bool.
    """

    kinds = ("BOOL",)
    wanted = "a condition is true or false"

    def holds(self, scope: Any) -> bool:
        """The value for a call.

        Args:
            scope: an `activation`.

        Raises:
            Unknown: it can't be evaluated. The error holds no value.
        """
        found = self._value(scope)
        if not isinstance(found, bool):
            raise Unknown(_why_unknown(str(found)))
        return found


class Amount(_Expression):
    """A compiled cost of a call. Takes and raises what `Condition` does, but its value is a number of its ``args``."""

    kinds = ("INT", "UINT", "DOUBLE")
    wanted = "a cost is a number"

    def __init__(self, text: str) -> None:
        super().__init__(text)
        if others := {str(path[0]) for path in self.paths} - {"args"}:
            raise ConditionError(f"a cost reads `args` alone, and not `{min(others)}`")

    def of(self, args: Mapping[str, Any]) -> Decimal:
        """The cost of a call; infinite where it can't be computed, or would be less than nothing."""
        try:
            values, unreadable = readable({"args": plain_values(args)})
        except TooLarge:
            return Decimal("Infinity")
        found = None if self.reads(unreadable) else self._value(activation(values))
        is_number = isinstance(found, int | float) and not isinstance(found, bool) and found >= 0
        return Decimal(repr(found)) if is_number else Decimal("Infinity")


def activation(values: Mapping[str, Any]) -> Any:
    """The values of the `VARIABLES` for any number of conditions. They are converted when a condition uses them."""
    return _environment().Activation(dict(values))


def _why(text: str) -> str:
    """The library's message in one line, with the nearest name where a name isn't known."""
    first = re.search(r"ERROR: <input>:(-?\d+):(-?\d+): (.*?)(?:\n|\s*\[INVALID_ARGUMENT\]|$)", text)
    problem = first[3] if first else text.split("\n")[0].partition(": ")[2] or "it can't be compiled"
    at = f" at character {first[2]}" if first and int(first[2]) > 0 else ""
    if found := re.match(r"undeclared reference to '([^']*)'", problem):
        return _unknown_name(found[1]) + at
    if (found := re.match(r"found no matching overload for '(\w+)'", problem)) and found[1] in MEMBERS:
        return _member(found[1])
    problem = problem.removesuffix(" (in container '')").partition(" expecting ")[0]
    return f"not a condition in CEL: {problem}{at}"


def _member(name: str) -> str:
    return f"`{name}` is a function of `run` that takes globs: write run.{name}([...])"


def _why_unknown(text: str) -> str:
    """Why a condition has no value, without the values that the library's text may hold."""
    if "No matching overloads" in text:
        return "a value is of another type than the condition expects"
    if "Iteration budget" in text:
        return "it takes too long"
    return "a value is missing, out of range, or can't be read"


def _unknown_name(name: str) -> str:
    root = name.partition(".")[0].lstrip("@")
    if root in MEMBERS:
        return _member(root)
    known = [*VARIABLES, *FUNCTIONS, *_MACROS, *_STANDARD]
    meant = did_you_mean(root, known, f"there are {', '.join([*VARIABLES, *FUNCTIONS])}")
    return f"unknown name `{root}`; {meant}"


RUN_FIELDS = ("calls", "tokens", "seconds", "cost", "tools")
"""What ``run`` has besides its functions."""


def _check_run(read: tuple[Path, ...]) -> None:
    for path in read:
        if path[0] == "run" and len(path) > 1 and path[1] not in RUN_FIELDS:
            meant = did_you_mean(str(path[1]), RUN_FIELDS, f"it has {', '.join(RUN_FIELDS)}", form="`run.{}`")
            raise ConditionError(f"unknown name `run.{path[1]}`; {meant}")


def _check_calls(tree: Expr) -> None:
    """What the library finds at the first call only: a member function of ``run`` that is called on something else."""
    for expr in walk(tree):
        if isinstance(expr, Call) and expr.function in MEMBERS:
            target = expr.target
            if getattr(target, "name", None) != "run":
                raise ConditionError(_member(expr.function))
