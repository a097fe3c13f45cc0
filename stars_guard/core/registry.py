"""One registry a kind of part: ours and those of other packages are found in the same way, by entry points.

A package adds a part by naming it in its own metadata; nothing of ours is touched. Parts are imported when they are
first asked for, so that a judge that needs torch costs nothing where no policy names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from stars_guard.core.nearest import did_you_mean
from stars_guard.errors import StarsGuardError

__all__ = ["Registry"]

P = TypeVar("P")


class Registry(Generic[P]):
    """The parts of one kind, by name.

    Args:
        group: of the entry points, such as ``stars_guard.judges``.
        kind: the word that errors use, such as ``judge``.
        check: gives what is wrong with what an entry point loads, or None.
        error: raised for a name that is not known, and for a part that cannot be loaded.
    """

    def __init__(self, group: str, kind: str, check: Callable[[Any], str | None], error: type[StarsGuardError]) -> None:
        self.group = group
        self._kind = kind
        self._check = check
        self._error = error
        self._loaded: dict[str, P] = {}

    def names(self) -> list[str]:
        """Every name that is registered, sorted."""
        return sorted(self._points())

    def own_names(self) -> list[str]:
        """The names of those that come with stars-guard, sorted."""
        return sorted(name for name, points in self._points().items() if any(_is_ours(point) for point in points))

    def __contains__(self, name: object) -> bool:
        return name in self._points()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def get(self, name: str) -> P:
        """The part of that name.

        Raises:
            StarsGuardError: of the kind given as ``error``: there is no such part, two packages claim the name, or it
                cannot be loaded.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(name, self._points())
        return self._loaded[name]

    def find(self, name: object) -> P | None:
        """The part of that name, or None where there is none that can be used."""
        try:
            return self.get(name) if isinstance(name, str) else None
        except self._error:
            return None

    def _points(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group):
            # the same distribution may be seen twice, such as through a folder on sys.path and its installation
            known = found.setdefault(point.name, [])
            if all(point.value != other.value for other in known):
                known.append(point)
        return found

    def _load_own(self) -> None:
        """Load all that come with stars-guard, for those that are light and have to be there at once."""
        points = self._points()
        own = [name for name, (first, *others) in points.items() if _is_ours(first) and not others]
        self._loaded |= {name: self._load(name, points) for name in own}

    def _load(self, name: str, points: Mapping[str, Sequence[EntryPoint]]) -> P:
        if name not in points:
            if not any(_is_ours(point) for known in points.values() for point in known):
                raise self._error(
                    f"unknown {self._kind} {name!r}: not even our own are registered",
                    hint="the installation is older than the code; run `pip install -e .` in the checkout",
                )
            hint = f"{did_you_mean(name, points, form='{!r}')} there are {', '.join(sorted(points))}".strip()
            raise self._error(f"unknown {self._kind} {name!r}", hint=hint)
        if len(points[name]) > 1:
            values = ", ".join(point.value for point in points[name])
            raise self._error(
                f"two packages register a {self._kind} named {name!r}: {values}", hint="uninstall one of them"
            )
        (point,) = points[name]
        try:
            part = point.load()
        except Exception as exc:
            raise self._error(
                f"cannot load the {self._kind} {name!r} from {point.value}: {type(exc).__name__}",
                hint="the error before this one says why",
            ) from exc
        if problem := self._check(part):
            raise self._error(f"the {self._kind} {name!r} ({point.value}) cannot be used: {problem}")
        return part  # type: ignore[no-any-return]


def _is_ours(point: EntryPoint) -> bool:
    return point.dist is not None and point.dist.name.replace("_", "-") == "stars-guard"
