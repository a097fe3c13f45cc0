"""A user's own judge: a function or a `Scorer` by its dotted path or entry point."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, cast

from stars_guard.core.segments import Passage
from stars_guard.errors import ScorerError
from stars_guard.scorers._abandonable import in_thread_of_its_own
from stars_guard.scorers.base import Rating, Scorer

__all__ = ["is_named", "load_python"]

GROUP = "stars_guard.judges"

Function = Callable[[Passage], float | Rating | Awaitable[float | Rating]]


class PythonScorer(Scorer):
    """Calls an async function on the event loop, any other on a thread of its own.

    A function that does not come back in the judge's timeout is left behind on its thread; the next call of the judge
    gets another thread.
    """

    cost = 5.0

    def __init__(self, path: str, function: Function) -> None:
        self.identity = {"kind": "python", "call": path}
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function)

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        if self._is_async:
            async_function = cast("Callable[[Passage], Awaitable[float | Rating]]", self._function)
            values = await asyncio.gather(*(async_function(passage) for passage in passages))
        else:
            function = cast("Callable[[Passage], float | Rating]", self._function)
            values = await in_thread_of_its_own(lambda: [function(passage) for passage in passages])
        return [value if isinstance(value, Rating) else Rating(float(value)) for value in values]


def load_python(path: str, options: Mapping[str, Any]) -> Scorer:
    """The judge that a path names.

    Args:
        path: ``package.module:name``, or the name of an entry point in the group ``stars_guard.judges``.
        options: keyword arguments, where the path names a `Scorer` class or a factory of one.

    Raises:
        ScorerError: there is no such thing, or it is neither a function nor a scorer.
    """
    found = _find(path)
    if isinstance(found, type) and issubclass(found, Scorer):
        return found(**options)
    if isinstance(found, Scorer):
        _named.append(found)
        return found
    if not callable(found):
        raise ScorerError(f"python judge {path!r} is neither a function nor a Scorer")
    if options:
        made = found(**options)
        if isinstance(made, Scorer):
            return made
        raise ScorerError(f"python judge {path!r} has options, but gives no Scorer when called with them")
    return PythonScorer(path, found)


_named: list[Scorer] = []


def is_named(scorer: object) -> bool:
    """Whether a path names this very scorer. It belongs to the module that holds it, and is never closed by a guard."""
    return any(named is scorer for named in _named)


def _find(path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        if name:
            found: Any = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
            return found
        points = entry_points(group=GROUP, name=path)
        if points:
            return next(iter(points)).load()
    except Exception as exc:
        raise ScorerError(f"cannot load the python judge {path!r}: {type(exc).__name__}: {exc}") from exc
    known = ", ".join(sorted(point.name for point in entry_points(group=GROUP))) or "none"
    raise ScorerError(f"there is no python judge {path!r}", hint=f"write module:name; entry points: {known}")
