"""The files that a shell command names: which it would read and which it would write, by its parser's tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field

from stars_guard.parsing.code_calls import strings_in
from stars_guard.parsing.paths import looks_like_path
from stars_guard.parsing.program_table import program_table
from stars_guard.parsing.shell_arguments import Arguments, base_name, like, sorted_arguments
from stars_guard.parsing.shell_commands import Command
from stars_guard.parsing.shell_findings import Settings
from stars_guard.parsing.shell_verdict import Verdicts
from stars_guard.parsing.shell_words import UNKNOWN
from stars_guard.parsing.word_lists import word_list

__all__ = ["NamedFile", "files_of"]


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A path in a command.

    Attributes:
        folder: the working folder, as far as ``cd`` has changed it.
    """

    path: str = field(repr=False)
    writes: bool
    _: KW_ONLY
    folder: str = field(default="", repr=False)


_TEXTS = frozenset(word_list("shell_paths.texts"))
"""Programs whose arguments are texts, and whose redirections alone name files."""

_PATTERN_FIRST = frozenset(word_list("shell_paths.pattern_first"))
_WRITERS = frozenset(word_list("shell_paths.writers"))
_LAST_IS_WRITTEN = frozenset({"cp", "mv", "ln", "install", "rsync", "scp"})
_OUTPUTS = frozenset(word_list("shell_paths.outputs"))
_NO_PATHS = frozenset(word_list("shell_paths.no_paths"))
_CONTAINERS = frozenset(word_list("shell_paths.containers"))
_REMOTE = re.compile(r"(?:[\w.-]+@)?[\w.-]{2,}::?")
_GIT_OBJECT = re.compile(r"[\w./~^@{}-]*:[^:]*$")


def files_of(text: str) -> Iterator[NamedFile]:
    """Every file that a script names. What cannot be parsed names nothing: the judge ``shell`` asks about it."""
    watcher = Verdicts(Settings())
    watcher.of_text(text)
    for command, remote in watcher.seen:
        if not remote:
            yield from _of_command(command)


def _of_command(command: Command) -> Iterator[NamedFile]:
    folder = command.folder
    for redirect in command.redirects:
        yield NamedFile(redirect.target.text, redirect.writes, folder=folder)
    if not command.words:
        return
    name = base_name(command.program)
    if "/" in name and looks_like_path(name):
        yield NamedFile(name, False, folder=folder)
    if name in _TEXTS:
        return
    entry = program_table().entry(name)
    given = sorted_arguments(command.words[1:], entry.takes_value(name) if entry else ())
    if name in ("cd", "pushd", "chdir"):
        yield NamedFile(given.texts[-1] if given.texts else "~", False)
        return
    for text, writes in (*_operands(name, given), *_values(name, given)):
        if text and UNKNOWN not in text[:1]:
            yield NamedFile(text, writes, folder=folder)
    yield from (NamedFile(text, False) for text in _in_code(name, given))


def _operands(name: str, given: Arguments) -> Iterator[tuple[str, bool]]:
    texts = given.texts
    if name in _CONTAINERS:
        yield from _shared(name, given)
        return
    if name in _PATTERN_FIRST and not given.has("-e", "-f", "--regexp", "--file", "--expression"):
        texts = texts[1:]
    if name in ("npm", "yarn", "pnpm", "npx", "make", "gh"):
        texts = [text for text in texts if re.match(r"(?:/etc|/home|/root|/var|~|\.\./)", text)]
    moves = name in _LAST_IS_WRITTEN
    for index, text in enumerate(texts):
        last = index == len(texts) - 1
        writes = (
            name in _WRITERS
            or (moves and (last or name == "mv"))
            or (name in ("sed", "gsed") and given.has("-i", "--in-place"))
        )
        if moves and _REMOTE.match(text) and name in ("scp", "rsync"):
            continue
        if name == "git" and _GIT_OBJECT.match(text):
            continue
        if "://" in text and not text.lower().startswith("file:"):
            continue
        part = re.sub(r"^(?:[\w.-]*=)?@?", "", text) if re.match(r"[\w.-]*=|@", text) else text
        yield (
            part,
            writes
            or text.startswith("of=")
            or (last and name == "git" and "clone" in given.texts and len(given.texts) > 2),
        )


def _shared(name: str, given: Arguments) -> Iterator[tuple[str, bool]]:
    """Of containers and other machines, what they share with this one."""
    for flag, value in given.values:
        if flag in ("-v", "--volume", "--mount"):
            source = re.search(r"(?:source|src)=([^,]*)", value.text)
            place = source[1] if source else value.text.partition(":")[0]
            if place.startswith(("/", "~", ".")):
                yield place, not value.text.endswith(":ro")
        elif flag in ("-f", "--file", "--env-file", "--kubeconfig", "-i", "--filename"):
            yield value.text, False
    if given.texts[:1] == ["cp"] or given.texts[:2] in (["s3", "cp"], ["s3", "sync"]):
        sources = [text for text in given.texts[1:] if not re.match(r"[\w.-]+:", text) and text not in ("cp", "sync")]
        yield from ((text, text == given.texts[-1]) for text in sources)


def _values(name: str, given: Arguments) -> Iterator[tuple[str, bool]]:
    if name in _CONTAINERS:
        return
    for flag, value in given.values:
        text = re.sub(r"^[\w.-]*=?[@<]|^[\w.-]+=(?=/)", "", value.text)
        if "://" in text and not text.lower().startswith("file:"):
            continue
        reads_it = value.text != text and re.match(r"[\w.-]*=?[@<]", value.text)
        if reads_it or (flag not in _NO_PATHS and f"{flag}@{name}" not in _NO_PATHS):
            yield (
                text,
                flag in _OUTPUTS
                or (name in ("tar", "unzip", "bsdtar") and flag in ("-C", "-d", "--directory") and _unpacks(given)),
            )
    taken = {f"{flag}{value.text}" for flag, value in given.values}
    for flag in given.flags:
        # an option of which we don't know that it takes a value: -C/etc
        if (
            (attached := re.match(r"-[A-Za-z]([/~].+)", flag))
            and flag not in taken
            and name not in ("cut", "awk", "gawk", "sort")
        ):
            yield attached[1], False


def _unpacks(given: Arguments) -> bool:
    return given.has("-x", "--extract") or any(re.fullmatch("[a-z]*x[a-z]*", text) for text in given.texts[:1])


_INTERPRETERS = word_list("shell_paths.interpreters")


def _in_code(name: str, given: Arguments) -> Iterator[str]:
    if not like(name, _INTERPRETERS):
        return
    for flag, value in given.values:
        if flag in ("-c", "-e", "-r", "-E", "--eval", "-p", "-ne", "-pe"):
            yield from (text for text in strings_in(value.text) if looks_like_path(text))
