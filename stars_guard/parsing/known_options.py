"""Options that are known to do no harm, of programs that can do more by an option than they are for.

What is not in the table is asked about, so that nobody has to think of every option by which a program runs another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

from stars_guard.parsing._tables import read_table
from stars_guard.parsing.shell_words import UNKNOWN, Word

__all__ = ["KnownOptions", "known_options"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownOptions:
    """Those of one program.

    Attributes:
        known: globs of options.
        unknown: globs of those that are not known though a glob has them.
        whole: those that are known without anything attached.
        values: the options after which a value follows.
        clusters: whether letters behind one dash are options each.
    """

    known: tuple[str, ...]
    unknown: tuple[str, ...]
    whole: frozenset[str]
    values: frozenset[str]
    clusters: bool

    def cover(self, words: Sequence[Word], takes_value: frozenset[str]) -> bool:
        """Whether all options among the words are known.

        Args:
            takes_value: further options whose value is the next word.
        """
        values = self.values | takes_value
        waiting = False
        for word in words:
            text = word.text
            if waiting:
                waiting = False
            elif text == "--" or text in _RUNS_THE_REST:
                return True
            elif text.startswith("-") and text != "-":
                if not self._has(text, values):
                    return False
                waiting = text in values or (not text.startswith("--") and _waits(text, values))
        return True

    def _has(self, text: str, values: frozenset[str]) -> bool:
        name, equals, value = text.partition("=")
        if equals and UNKNOWN in value and not value.strip(UNKNOWN):
            return False  # --rcfile=<(...)
        if text in self.whole:
            return True
        if self._is(text) or (equals and self._is(name)):
            return True
        return self.clusters and not text.startswith("--") and self._is_cluster(text, values)

    def _is(self, option: str) -> bool:
        if any(fnmatchcase(option, glob) for glob in self.unknown):
            # a longer glob may have it nevertheless
            return any(fnmatchcase(option, glob) for glob in self.known if len(glob) > 5)
        return any(fnmatchcase(option, glob) for glob in self.known)

    def _is_cluster(self, text: str, values: frozenset[str]) -> bool:
        for letter in text[1:]:
            if letter.isdigit():
                continue
            if not self._is(f"-{letter}"):
                return False
            if f"-{letter}" in values:
                return True
        return True


_RUNS_THE_REST = ("-exec", "-execdir", "-ok", "-okdir")
"""Of ``find``: what follows are words of another program, which are looked at as such."""


def _waits(text: str, values: frozenset[str]) -> bool:
    """Whether the last letter of a cluster takes the next word."""
    first = next((index for index, letter in enumerate(text) if index and f"-{letter}" in values), None)
    return first == len(text) - 1


@lru_cache(1)
def _table() -> Mapping[str, KnownOptions]:
    return {
        name: _read(row["options"], row.get("clusters", True))
        for row in read_table("known_options.yaml")
        for name in row["names"]
    }


def _read(written: str, clusters: bool) -> KnownOptions:
    words = written.split()
    values = [word[:-1] for word in words if word.endswith("=") and not word.endswith("*=")]
    plain = [word.rstrip("=") if not word.endswith("*=") else word for word in words]
    return KnownOptions(
        known=tuple(word for word in plain if word[:1] not in "!."),
        unknown=tuple(word[1:] for word in plain if word.startswith("!")),
        whole=frozenset(word[1:] for word in plain if word.startswith(".")),
        values=frozenset(values),
        clusters=clusters,
    )


def known_options(program: str) -> KnownOptions | None:
    """The options of a program; None for one that can do no more by an option than it is for, as far as we know."""
    return _table().get(program)
