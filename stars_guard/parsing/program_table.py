"""The table of programs: what each may do, asks about or never does. The data is in ``programs.yaml``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import IntEnum
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from typing import Literal

from pydantic import BaseModel, ConfigDict

from stars_guard.core.vocabulary import CallLevel
from stars_guard.parsing._tables import read_table
from stars_guard.parsing.shell_arguments import Arguments, like

__all__ = ["LEVELS", "Entry", "Level", "Rule", "Table", "options_of", "program_table"]


class Level(IntEnum):
    """What becomes of a command."""

    ALLOW = 0
    ASK = 1
    FORBID = 2


LEVELS: Mapping[CallLevel, Level] = {"allow": Level.ALLOW, "ask": Level.ASK, "forbid": Level.FORBID}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rule(_Strict):
    """One rule of an entry. All that it says must hold."""

    names: tuple[str, ...] = ()
    sub: str = ""
    flags: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    operands: tuple[str, ...] = ()
    values_like: tuple[str, ...] = ()
    bare: bool | None = None
    level: CallLevel
    why: str = ""

    def fits(self, name: str, given: Arguments) -> bool:
        """Whether the rule is about this call of a program."""
        texts = given.texts
        return (
            (not self.names or name in self.names)
            and (not self.sub or fnmatchcase(" ".join(texts[:6]), self.sub))
            and (not self.flags or given.has(*self.flags))
            and not (self.without and given.has(*self.without))
            and (not self.operands or any(like(text, self.operands) for text in texts))
            and (not self.values_like or any(_says(value.text, self.values_like) for _, value in given.values))
            and (self.bare is None or self.bare == (not texts and not given.flags))
        )


@lru_cache(1024)
def options_of(name: str, listed: tuple[str, ...]) -> frozenset[str]:
    """The options of a list that are those of a program: ``-d`` of all, ``-O@wget`` of one, ``-c@python*`` of some."""
    pairs = (value.partition("@") for value in listed)
    return frozenset(flag for flag, _, only in pairs if not only or fnmatchcase(name, only))


def _says(value: str, globs: Sequence[str]) -> bool:
    """Whether a setting is like one of the globs; programs read names of settings in upper and lower case."""
    return like(value.lower(), [glob.lower() for glob in globs])


class Entry(_Strict):
    """What the table says of some programs."""

    names: tuple[str, ...]
    kind: str = ""
    values: tuple[str, ...] = ()
    skip: int = 0
    allow: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    otherwise: CallLevel | Literal[""] = ""
    why: str = ""

    def takes_value(self, name: str) -> frozenset[str]:
        """The options whose value is the next word. One may be those of some programs: ``-O@wget``, ``-c@python*``."""
        return options_of(name, self.values)

    def level(self, name: str, given: Arguments) -> tuple[Level, str]:
        """What becomes of a call, and why."""
        for rule in self.rules:
            if rule.fits(name, given):
                return LEVELS[rule.level], rule.why or self.why
        if self.otherwise:
            return LEVELS[self.otherwise], self.why
        if not self.allow or _is_listed(given.texts, self.allow):
            return Level.ALLOW, ""
        return Level.ASK, self.why or "an unknown subcommand"


def _is_listed(texts: Sequence[str], allowed: Sequence[str]) -> bool:
    """Whether the first words are those of a subcommand that is allowed."""
    for pattern in allowed:
        words = pattern.split()
        if not words:
            if not texts:
                return True
        elif len(texts) >= len(words) and all(map(fnmatchcase, texts, words)):
            return True
    return False


class Table(_Strict):
    """All of ``programs.yaml``."""

    secrets: tuple[tuple[str, ...], ...]
    secret_folders: tuple[str, ...]
    not_secret: tuple[str, ...]
    rebuilt: tuple[tuple[str, ...], ...]
    trusted_hosts: tuple[str, ...]
    branches: tuple[str, ...]
    loaders: tuple[str, ...]
    commands: tuple[str, ...]
    runs: tuple[str, ...]
    loads: tuple[str, ...]
    programs: tuple[Entry, ...]

    @cached_property
    def _by_name(self) -> dict[str, Entry]:
        return {name: entry for entry in self.programs for name in entry.names}

    @cached_property
    def _by_glob(self) -> list[tuple[str, Entry]]:
        """The last ones first."""
        return [(name, entry) for entry in reversed(self.programs) for name in entry.names if "*" in name]

    def entry(self, name: str) -> Entry | None:
        """The last entry that names a program."""
        return self._by_name.get(name) or next((one for glob, one in self._by_glob if fnmatchcase(name, glob)), None)

    def is_secret(self, path: str) -> bool:
        """Whether a file's content is worth stealing, by its name."""
        path = path.rstrip("/")
        name = path.rpartition("/")[2]
        if like(name, self.not_secret):
            return False
        inside = f"/{path}/"
        if any(f"/{folder.lstrip('/')}/" in inside for folder in self.secret_folders):
            return True
        return any(like(name, globs) for globs in self.secrets)

    def may_be_secret(self, glob: str) -> bool:
        """Whether a shell could make the name of a secret of a glob, such as ``.e?v``."""
        *folders, name = glob.rstrip("/").split("/")
        wanted = [one for globs in self.secrets for one in globs if "*" not in one]
        hidden = [one for one in self.secret_folders if "/" not in one]
        return _could_be(name, wanted) or any(_could_be(folder, hidden) for folder in folders)

    def is_rebuilt(self, path: str) -> bool:
        """Whether a path is what a build makes again, or under a folder for temporary files."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if path.startswith(("/tmp/", "/var/tmp/")):  # noqa: S108
            return len(parts) > 1 + path.startswith("/var") and parts[-1] not in ("*", "..") and ".." not in parts
        if path.startswith(("/", "~")) or ".." in parts or not parts:
            return False
        folders, names = self.rebuilt
        return any(like(part, folders) for part in parts) or like(parts[-1], names)


def _could_be(glob: str, names: Sequence[str]) -> bool:
    letters = re.sub(r"[*?]|\[[^\]]*\]", "", glob)
    return len(letters) >= 2 and letters != glob and any(fnmatchcase(name, glob) for name in names)


@lru_cache(1)
def program_table() -> Table:
    """The table that comes with stars-guard."""
    return Table.model_validate(read_table("programs.yaml"))
