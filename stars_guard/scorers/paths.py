"""File paths outside the roots as a judge: what a tool may touch, as far as its arguments say."""

from __future__ import annotations

import asyncio
import posixpath
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import ClassVar, Literal, Self

import re2
from pydantic import Field, field_validator

from stars_guard.core.readings import found, opened, readings
from stars_guard.core.segments import Passage
from stars_guard.parsing.call_arguments import Argument, arguments_of
from stars_guard.parsing.code_calls import strings_in
from stars_guard.parsing.paths import Roots, looks_like_path, path_parts, path_tokens, whole_paths
from stars_guard.parsing.shell_paths import NamedFile, files_of
from stars_guard.parsing.shell_verdict import read_tables
from stars_guard.parsing.word_lists import word_list
from stars_guard.scorers._newest import Search
from stars_guard.scorers._strictness import SCORES, looser
from stars_guard.scorers._unfinished_matches import UnfinishedMatches
from stars_guard.scorers.base import Find, Rating, Scorer
from stars_guard.scorers.options import JudgeOptions, Loosening
from stars_guard.scorers.shell import COMMANDS

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


PATHS = word_list("paths.paths")
"""Arguments that are paths where the policy doesn't say."""

TEXTS = word_list("paths.texts")
"""Arguments that are texts or addresses, in which a path is only mentioned."""

CODE = word_list("paths.code")
"""Arguments that are code where the policy doesn't say."""


_PROSE = word_list("command_values.prose")


class PathsOptions(JudgeOptions):
    """File paths outside the roots: absolute, in the home, or by ``..`` out of the first root."""

    free: ClassVar[frozenset[str]] = frozenset(
        {"roots", "read_roots", "base", "outside", "arguments", "commands", "code", "texts", "tools"}
    )

    roots: tuple[str, ...] = Field(
        min_length=1, strict=False, description="absolute paths; relative ones in the text are counted from the first"
    )
    read_roots: tuple[str, ...] = Field((), strict=False, description="absolute paths that may be read but not written")
    base: str = Field("", description="where relative paths are counted from; empty: the first root")
    outside: Literal["ask", "forbid"] = Field("forbid", description="what a call outside is: 0.5 or 1")
    arguments: tuple[str, ...] = Field(PATHS, strict=False, description="globs of arguments that are paths")
    commands: tuple[str, ...] = Field(COMMANDS, strict=False, description="globs of arguments that are shell commands")
    code: tuple[str, ...] = Field(CODE, strict=False, description="globs of arguments that are code")
    texts: tuple[str, ...] = Field(TEXTS, strict=False, description="globs of arguments that only mention paths")
    tools: tuple[str, ...] = Field(("*",), min_length=1, strict=False, description="globs of the tools that are judged")
    reject_above: float | None = Field(0.0, description="more than this vetoes the text or the call")

    @field_validator("roots", "read_roots")
    @classmethod
    def _absolute(cls, roots: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [root for root in roots if not root.startswith("/")]:
            raise ValueError(f"not an absolute path: {', '.join(wrong)}")
        return roots

    def loosenings(self, child: Self) -> Iterator[Loosening]:
        yield from looser(
            self,
            child,
            allowing=("roots", "texts"),
            forbidding=("arguments", "commands", "code", "tools"),
            levels=("outside",),
        )
        if not {*child.read_roots} <= {*self.roots, *self.read_roots}:
            yield "read_roots", "more than the parent's"
        if (child.base or child.roots[0]) != (self.base or self.roots[0]):
            yield "base", "another folder than the parent's"

    async def load(self) -> Scorer:
        await asyncio.to_thread(read_tables)
        return PathScorer(self.roots, options=self)


class PathScorer(Scorer):
    """Paths outside all roots: in a tool call 1 (or 0.5) if there is any; in another text, how many there are.

    The arguments of a call are read as what they are: paths, commands by their parser's tokens, code by its texts. Of
    other texts it sees what looks like a path. It doesn't see a path that a command puts together at run time, or a
    symbolic link.

    Args:
        roots: absolute paths; relative paths in the text are counted from the first.
        options: what else a policy says; None has the defaults.
    """

    cost = 0.05
    waits = False
    reads_calls = True

    def __init__(self, roots: Sequence[str], *, options: PathsOptions | None = None) -> None:
        options = options or PathsOptions(type="paths", name="paths", roots=tuple(roots))
        self._options = options
        said = options.model_dump(exclude={*JudgeOptions.model_fields, "roots"}, exclude_defaults=True)
        self.identity = {"kind": "paths", "roots": ", ".join(roots), **{key: str(value) for key, value in said.items()}}
        self._calls = _Calls(options)
        self._roots = [posixpath.normpath(root) for root in (*roots, *options.read_roots)]
        # a root whose name has look-alikes or full-width letters is inside of itself in every reading
        self._roots += [reading.text for root in self._roots for reading in readings(root, markup=False)]
        self._search = Search(self._find, _LONGEST)
        self._begun = [UnfinishedMatches(shape) for shape in _BEGUN]

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        return [self._score(passage) for passage in passages]

    async def forget(self, call_id: str) -> None:
        self._search.forget(call_id)

    def _score(self, passage: Passage) -> Rating:
        if passage.is_call:
            found = self._calls.outside(passage)
            return Rating(SCORES[self._options.outside] if found else 0.0, found or None)
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


class _Calls:
    """Finds paths outside in the arguments of calls."""

    def __init__(self, options: PathsOptions) -> None:
        self._options = options
        self._writing = Roots(options.roots, options.base)
        self._reading = Roots((*options.roots, *options.read_roots), options.base)
        self._files_of = lru_cache(256)(lambda text: tuple(files_of(text)))

    def outside(self, passage: Passage) -> str:
        """What is outside, in a few words; empty for nothing."""
        for argument in arguments_of(passage.tool_calls, self._options.tools):
            if any(not self._inside(file) for file in self._named(argument)):
                return "path outside the roots"
        return ""

    def _inside(self, file: NamedFile) -> bool:
        return (self._writing if file.writes else self._reading).hold(file.path, file.folder)

    def _named(self, argument: Argument) -> Iterator[NamedFile]:
        options, text = self._options, argument.text
        writes = bool(
            re.search(
                r"write|save|create|delete|remove|edit|append|move|rename|mkdir|upload_to", argument.tool, re.IGNORECASE
            )
        )
        if argument.is_in(options.commands):
            yield from self._files_of(text)
        elif argument.is_in(options.texts):
            yield from (NamedFile(one, writes) for one in whole_paths(text, prose=argument.is_in(_PROSE)))
        elif argument.is_in(options.code):
            strings = (*strings_in(text), *_homes(text))
            yield from (NamedFile(one, writes=False) for one in strings if _is_path(one, text))
        elif (
            argument.is_in(options.arguments)
            and len(text) < _LONGEST * 4
            and not re.match(r"(?!file:)[a-z][\w+.-]+://[^/]", text.lower())
        ):
            yield from (NamedFile(one, writes) for one in (*(text.splitlines() or [text]), *path_parts(text)))
        else:
            yield from (NamedFile(one, writes) for one in path_tokens(text))


_SIGNS = re.compile(r"/[^\w.~*]+")
"""What is no path in code but a pattern or an operator."""


_OPENS = re.compile(
    r"\b(?:list\w*|walk|scandir|glob\w*|Path|open\w*|chdir|\w*tree|iterdir|readdir\w*|run|system|copy\w*|resolve)\W{1,4}/\W"
    r"|\bjoin\W{1,4}/[\"'`]\s*,"
)


def _is_path(text: str, code: str) -> bool:
    if text == "/":  # most often what paths are split by
        return _OPENS.search(code) is not None
    return looks_like_path(text) and not _SIGNS.fullmatch(text)


def _homes(code: str) -> Sequence[str]:
    """Calls that give the home."""
    return ("~",) if re.search(r"\bPath\.home\(|\bos\.homedir\(|\bhomedir\(\)|Dir\.home", code) else ()
