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
from stars_guard.scorers.base import Rating, Scorer

__all__ = ["load_python"]

GROUP = "stars_guard.judges"

Function = Callable[[Passage], float | Rating | Awaitable[float | Rating]]


class PythonScorer(Scorer):
    """Calls an async function on the event loop, any other on a thread of its own."""

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
            values = await asyncio.to_thread(lambda: [function(passage) for passage in passages])
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
        return found
    if not callable(found):
        raise ScorerError(f"python judge {path!r} is neither a function nor a Scorer")
    if options:
        made = found(**options)
        if isinstance(made, Scorer):
            return made
        raise ScorerError(f"python judge {path!r} has options, but gives no Scorer when called with them")
    return PythonScorer(path, found)


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
