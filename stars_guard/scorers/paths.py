"""File paths outside the roots as a judge: what a tool may touch, as far as its arguments say."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence

import re2
from pydantic import Field, field_validator

from stars_guard.core.readings import found, opened, readings
from stars_guard.core.segments import Passage
from stars_guard.scorers._newest import Search
from stars_guard.scorers._unfinished_matches import UnfinishedMatches
from stars_guard.scorers.base import Find, Rating, Scorer
from stars_guard.scorers.options import JudgeOptions

__all__ = ["PathScorer", "PathsOptions"]

_LONGEST = 1000
"""Characters of a path. A longer one is found at the last segment."""

_BEFORE = r"""(?m)(?:^|[\s=<>|;&,:"'`(])"""
_AFTER = r"""(?:$|[\s"'`<>|;&,)])"""
_REST = r"""[^\s"'`<>|;&(),\\]*"""
_SYSTEM = "bin|boot|dev|etc|home|lib|lib64|media|mnt|opt|proc|root|run|sbin|srv|sys|usr|var|Users"

_SHAPES = tuple(
    re2.compile(shape)
    for shape in (
        # absolute, where a word begins
        rf"""(?m)(?:^|[\s=<>|;&,`]|[\s=:]["'`]|^["'`])(/[\w\pL\pN.~@*?$[{{-]{_REST})""",
        # absolute, anywhere, in code too: into folders that every system has
        rf"(?:^|[^\w/.:~-])(/(?:{_SYSTEM})(?:/{_REST})?)\b",
        # the root itself, as the last word of a command or before options
        r"(?im)^\s*(?:[\w.[\]]+: )?(?:sudo\s+)?[a-z][\w ]*(?:\s+-[\w-]+)*\s+(/)(?:\s*$|\s+[-|;&>])",
        rf"file://(/{_REST})",
        # homes, and up out of a folder
        rf"{_BEFORE}(~[\w-]*(?:/{_REST})?|\$\{{?HOME\}}?(?:/{_REST})?){_AFTER}",
        rf"{_BEFORE}((?:[\w@.-]+/)*\.\.(?:/{_REST})?){_AFTER}",
    )
)

_LEAD = re.compile(r"[^\w/.~$@-]")
_BEGUN = (
    rf"(?:^|\W)/{_REST}[\s\S]",
    rf"{_BEFORE}~[\w-]*(?:/{_REST})?[\s\S]",
    rf"{_BEFORE}\$\{{?HOME\}}?(?:/{_REST})?[\s\S]",
    rf"{_BEFORE}(?:[\w@.-]+/)*\.\.(?:/{_REST})?[\s\S]",
)
"""What may become a path outside, one character longer, so that a path counts as begun as long as it goes on."""


class PathsOptions(JudgeOptions):
    """File paths outside the roots: absolute, in the home, or by ``..`` out of the first root."""

    roots: tuple[str, ...] = Field(
        min_length=1, strict=False, description="absolute paths; relative ones in the text are counted from the first"
    )
    reject_above: float | None = Field(0.0, description="more paths outside than this veto the text")

    @field_validator("roots")
    @classmethod
    def _absolute(cls, roots: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [root for root in roots if not root.startswith("/")]:
            raise ValueError(f"not an absolute path: {', '.join(wrong)}")
        return roots

    async def load(self) -> Scorer:
        return PathScorer(self.roots)


class PathScorer(Scorer):
    """The number of paths in the text that are outside all roots.

    It reads text only. It doesn't see a path that a command puts together at run time, a symbolic link, or ``cd``
    before a relative path.

    Args:
        roots: absolute paths; relative paths in the text are counted from the first.
    """

    cost = 0.05

    def __init__(self, roots: Sequence[str]) -> None:
        self.identity = {"kind": "paths", "roots": ", ".join(roots)}
        self._roots = [posixpath.normpath(root) for root in roots]
        # a root whose name has look-alikes or full-width letters is inside of itself in every reading
        self._roots += [reading.text for root in self._roots for reading in readings(root, markup=False)]
        self._search = Search(self._find, _LONGEST)
        self._begun = [UnfinishedMatches(shape) for shape in _BEGUN]

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        return [self._score(passage) for passage in passages]

    async def forget(self, call_id: str) -> None:
        self._search.forget(call_id)

    def _score(self, passage: Passage) -> Rating:
        finds = self._search.finds(passage)
        return Rating(float(len(finds)), "path outside the roots" if finds else None)

    def find(self, text: str) -> Sequence[Find]:
        return [find for find in self._find(text, 0) if find[0] < find[1]]

    def open_from(self, text: str, start: int = 0) -> int | None:
        return opened(text, self._first_open, start, markup=False)

    def _first_open(self, text: str, start: int) -> int | None:
        # what is before a path is not a part of it
        before = max(0, start - 1)
        places = [place for one in self._begun if (place := one.open_from(text, before)) is not None]
        places = [max(start, place + bool(_LEAD.match(text, place))) for place in places]
        return min((place for place in places if place < len(text)), default=None)

    def _find(self, text: str, start: int) -> Sequence[Find]:
        # an underscore is a part of a name
        return found(text, self._matches, start, markup=False)

    def _matches(self, text: str, start: int) -> Iterator[Find]:
        for begin, end in self._outside(text, start):
            yield begin, end, "path outside the roots"

    def _outside(self, text: str, start: int) -> Iterator[tuple[int, int]]:
        for shape in _SHAPES:
            for match in shape.finditer(text, start):
                if not self._inside(match.group(1)):
                    yield match.span(1)

    def _inside(self, path: str) -> bool:
        if path.startswith(("~", "$")):
            return False
        whole = posixpath.normpath(posixpath.join(self._roots[0], path))
        whole = f"/{whole.lstrip('/')}"
        return any(root == "/" or whole == root or whole.startswith(f"{root}/") for root in self._roots)
