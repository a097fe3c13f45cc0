"""Your own code as a judge, by its dotted path.

A judge that comes as an installed package is better made a type of its own (see `stars_guard.scorers.options`): its
options are then checked with the policy, and no ``allow_python`` is needed, because whoever installed it decided to.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, SupportsFloat

from pydantic import Field, JsonValue, field_validator

from stars_guard.core.segments import Passage
from stars_guard.errors import ScorerError
from stars_guard.scorers._abandonable import in_thread_of_its_own
from stars_guard.scorers._together import together
from stars_guard.scorers.base import Find, Rating, Scorer
from stars_guard.scorers.options import JudgeOptions

__all__ = ["PythonOptions", "PythonScorer", "load_python"]

Value = SupportsFloat | Rating
Function = Callable[[Passage], Value | Awaitable[Value]]
"""Judges one passage. A number may be an int, a float, a bool or any other type that `float` takes."""


class PythonOptions(JudgeOptions):
    """Your own judge: a function of a `Passage`, or a `Scorer`. It runs only where the program allows it."""

    shared: ClassVar[bool] = True
    runs_code: ClassVar[bool] = True

    call: str = Field(min_length=1, description="module:name")
    options: dict[str, JsonValue] = Field(default_factory=dict, description="keyword arguments of a class or factory")

    @field_validator("call")
    @classmethod
    def _is_a_path(cls, call: str) -> str:
        module, colon, name = call.partition(":")
        if not colon:
            raise ValueError(f"write module:name; a judge of an installed package is a type of its own: `type: {call}`")
        if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
            raise ValueError("should be module:name, such as my_app.judges:polite")
        return call

    async def load(self) -> Scorer:
        return await asyncio.to_thread(load_python, self.call, self.options)


class PythonScorer(Scorer):
    """Calls an async function on the event loop, any other on a thread of its own.

    A function that does not come back in the judge's timeout is left behind on its thread; the next call of the judge
    gets another thread.
    """

    cost = 5.0

    def __init__(self, path: str, function: Function) -> None:
        self.identity = {"kind": "python", "call": path}
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(type(function), "__call__", None)  # noqa: B004
        )

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        if self._is_async:
            return await together(self._finish(self._function(passage)) for passage in passages)
        function = self._function
        values = await in_thread_of_its_own(lambda: [function(passage) for passage in passages])
        return await together(self._finish(value) for value in values)

    async def _finish(self, value: Value | Awaitable[Value]) -> Rating:
        found = await value if inspect.isawaitable(value) else value
        if isinstance(found, Rating):
            return found
        if not isinstance(found, SupportsFloat):
            raise ScorerError(
                f"python judge {self.identity['call']!r} gave a {type(found).__name__}",
                hint="give a number or a Rating",
            )
        return Rating(float(found))


class _Borrowed(Scorer):
    """A scorer that the user's module made and keeps: it isn't ours to close."""

    def __init__(self, scorer: Scorer) -> None:
        self.identity = scorer.identity
        self.cost = scorer.cost
        self.reads_turns = scorer.reads_turns
        self._scorer = scorer

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        return await self._scorer.score(passages)

    def find(self, text: str) -> Sequence[Find]:
        return self._scorer.find(text)

    def find_above(self, text: str, above: float) -> Sequence[Find]:
        return self._scorer.find_above(text, above)

    async def forget(self, call_id: str) -> None:
        await self._scorer.forget(call_id)


def load_python(path: str, options: Mapping[str, Any]) -> Scorer:
    """Make the judge that a path names.

    A class is called with the options. So is a function that is given options: it must then return a judge. What
    results is a `Scorer`, or is called with each passage.

    Args:
        path: ``package.module:name``.
        options: keyword arguments.

    Raises:
        ScorerError: there is no such thing, it doesn't take the options, or it is neither a function nor a scorer.
    """
    found = _find(path)
    if isinstance(found, Scorer) and not options:
        return _Borrowed(found)
    if isinstance(found, type) or options:
        found = _made(path, found, options)
    if isinstance(found, Scorer):
        return found
    if not callable(found):
        raise ScorerError(f"python judge {path!r} is neither a function nor a Scorer")
    return PythonScorer(path, found)


def _find(path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as exc:
        raise ScorerError(
            f"cannot load the python judge {path!r}: {type(exc).__name__}: {exc}", hint="write module:name"
        ) from exc
    return found


def _made(path: str, factory: Any, options: Mapping[str, Any]) -> Any:
    if not callable(factory):
        raise ScorerError(f"python judge {path!r} is neither a function nor a Scorer")
    try:
        return factory(**options)
    except Exception as exc:
        raise ScorerError(
            f"python judge {path!r} does not take its options: {type(exc).__name__}", hint="see the error before this"
        ) from exc
