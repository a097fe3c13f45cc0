"""The arguments of a command, sorted into options, their values and operands."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from stars_guard.parsing.shell_words import Word

__all__ = ["Arguments", "base_name", "like", "sorted_arguments"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What a program is called with.

    Attributes:
        flags: every option: as written, without its value, and each letter of a cluster (``-rf`` is ``-r`` and ``-f``
            too).
        values: the options' values, each with its option.
        operands: all else, in order.
    """

    flags: frozenset[str]
    values: tuple[tuple[str, Word], ...] = field(repr=False)
    operands: tuple[Word, ...] = field(repr=False)

    def has(self, *flags: str) -> bool:
        """Whether any of these options is there. Long ones may be cut short, as many programs take them."""
        return any(flag in self.flags or (flag.startswith("--") and self._begun(flag)) for flag in flags)

    def _begun(self, flag: str) -> bool:
        return any(len(given) > 5 and flag.startswith(given) for given in self.flags if given.startswith("--"))

    def of(self, *flags: str) -> list[Word]:
        """The values of these options."""
        return [value for flag, value in self.values if flag in flags]

    @property
    def texts(self) -> list[str]:
        """The operands' texts."""
        return [word.text for word in self.operands]


def sorted_arguments(words: Sequence[Word], takes_value: Collection[str] = ()) -> Arguments:
    """Sort the words after a program's name.

    Args:
        takes_value: options whose value is the next word, if it isn't in the same one.
    """
    flags: set[str] = set()
    values: list[tuple[str, Word]] = []
    operands: list[Word] = []
    waiting, ended = "", False
    for word in words:
        text = word.text
        if waiting:
            values.append((waiting, word))
            waiting = ""
        elif ended or not text.startswith("-") or text == "-":
            operands.append(word)
        elif text == "--":
            ended = True
        elif text.startswith("--"):
            name, equals, value = text.partition("=")
            flags.add(name)
            if equals:
                values.append((name, Word(value, glob=word.glob, raw=word.raw)))
            elif name in takes_value:
                waiting = name
        else:
            waiting = _short(word, takes_value, flags, values)
    return Arguments(flags=frozenset(flags), values=tuple(values), operands=tuple(operands))


def _short(word: Word, takes_value: Collection[str], flags: set[str], values: list[tuple[str, Word]]) -> str:
    """An option with one dash: a cluster, one with its value, or a long name. Gives the one that waits for a value."""
    text = word.text
    name, equals, value = text.partition("=")
    flags.update({text, name})
    if equals:
        values.append((name, Word(value, glob=word.glob, raw=word.raw)))
    if text in takes_value:
        return text
    for index, letter in enumerate(text[1:], 1):
        flag = f"-{letter}"
        if not letter.isalnum():
            break
        flags.add(flag)
        if flag in takes_value:
            if index + 1 < len(text):
                values.append((flag, Word(text[index + 1 :], glob=word.glob, raw=word.raw)))
            return flag if index + 1 == len(text) else ""
    return ""


def like(text: str, globs: Collection[str]) -> bool:
    """Whether a text is like one of the globs. What is not known is like nothing."""
    return any(fnmatchcase(text, glob) for glob in globs)


_BINARIES = re.compile(r"/(?:usr/(?:local/)?)?s?bin/(?:.*/)?|/opt/homebrew/bin/|/snap/bin/")


def base_name(program: str) -> str:
    """A program's name without the folder of the system that it is in, and in lower case where it ends in ``.exe``."""
    match = _BINARIES.match(program)
    name = program[match.end() :] if match else program
    return name[:-4].lower() if name.lower().endswith(".exe") else name
