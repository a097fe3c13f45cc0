"""Commands in arguments that nobody calls commands: found by what stands in them, and by what the tool does.

Prose may begin with the name of a program ("find a flat", "open the door"). So a text counts where a program that is
known is called in it as people call programs: with an option, a path, a variable, or another command behind it. Tools
that run something, by their name, need less.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from stars_guard.parsing.call_arguments import Argument, words_of_name
from stars_guard.parsing.code_calls import called_programs, is_code, strings_in
from stars_guard.parsing.program_table import program_table
from stars_guard.parsing.shell_arguments import base_name, like
from stars_guard.parsing.shell_commands import Command, Unparsable
from stars_guard.parsing.shell_script import read_script
from stars_guard.parsing.sql_statements import is_sql
from stars_guard.parsing.word_lists import word_list

__all__ = ["commands_in", "is_command", "is_said_beside"]

_PROSE = word_list("command_values.prose")
_EXPLAINS = word_list("command_values.explains")
_SETTINGS = word_list("command_values.settings")
_RUNNERS = frozenset(word_list("command_values.runners"))
_SMALL_WORDS = frozenset(word_list("command_values.small_words"))
_ENGLISH = frozenset(word_list("command_values.english"))
_VERBS = frozenset(word_list("command_values.verbs"))
_LONGEST = 20_000
_MOST_LINES = 200

_KEYS = re.compile(
    r"\x1b\[[0-9;?]*[A-Za-z~]|<(?:enter|cr|return|nl|c-[a-z])>|\{enter\}|\\r\\n|\\[rn]|[\x00-\x08\x0b-\x1f]",
    re.IGNORECASE,
)
"""How keys are written that end a line, in texts for a terminal."""

_FENCE = re.compile(r"```(?:\w+)?\n?(.*?)```", re.DOTALL)
_PROMPT = re.compile(
    r"(?m)^[ \t]*(?:[\w.@:~/-]*[$#%>]|!{1,2}|%{1,2}(?:bash|sh|script bash|system|sx))[ \t]+|^[ \t]*!{1,2}"
)
_MAGIC = re.compile(r"(?m)^[ \t]*(?:!{1,2}|%(?:sx|system|sh|bash)\s)(.+)|^%%(?:bash|sh|script\s+\S+)[^\n]*\n([\s\S]+)")


def commands_in(argument: Argument) -> Iterator[str]:
    """The commands that stand in an argument whose name says nothing about them."""
    text = argument.text
    runs = bool(words_of_name(argument.tool) & _RUNNERS)
    if not text.strip() or len(text) > _LONGEST or argument.is_in(_EXPLAINS):
        return
    if argument.name == "command_of_tool":
        if program_table().entry(argument.tool) is not None:
            yield text
        return
    if argument.is_in(_PROSE) and not runs:
        return
    if is_code(text):
        yield from _in_code(text)
        return
    if "(" in text:
        yield from called_programs(text)
    yield from (match[1] or match[2] for match in _MAGIC.finditer(text))
    plain = _PROMPT.sub("", "\n".join(_FENCE.findall(text)) or text)
    for form in dict.fromkeys((text, plain, _KEYS.sub("\n", plain))):
        yield from _commands(form, runs=runs)


def is_said_beside(argument: Argument) -> bool:
    """Whether an argument of a tool that runs commands is no command itself: a folder, an id, a reason for people."""
    named = argument.is_in(_EXPLAINS) or argument.is_in(_SETTINGS)
    return named and not is_command(argument.text, runs=True)


def _in_code(text: str) -> Iterator[str]:
    yield from called_programs(text)
    yield from (string for string in strings_in(text) if len(string) < _LONGEST and is_command(string))
    yield from (match[1] or match[2] for match in _MAGIC.finditer(text))


def _commands(text: str, *, runs: bool) -> Iterator[str]:
    if is_command(text, runs=runs) or (runs and _is_script(text) and not is_sql(text.partition(";")[0])):
        yield text
    elif "\n" in text.strip():
        # a terminal runs each line, whatever the others are
        yield from (line for line in text.splitlines()[:_MOST_LINES] if is_command(line, runs=runs))


_OPERATORS = re.compile(r"[|&;<>`]|\$[({]|\(\)\s*\{")


def _is_script(text: str) -> bool:
    """Whether a text, of which no program is known, has the grammar of a shell: ``f() { f | f & }; f``."""
    if not _OPERATORS.search(text) or text.lstrip()[:1] in ("{", "[", "<") or "=>" in text:
        return False
    try:
        return bool(read_script(text).commands)
    except (Unparsable, RecursionError):
        return False


def is_command(text: str, *, runs: bool = False) -> bool:
    """Whether a text reads like a command of a shell rather than like prose.

    Args:
        runs: whether it is given to something that runs commands.
    """
    if not _may_be(text):
        return False
    try:
        commands = read_script(text).commands
    except (Unparsable, RecursionError):
        return False
    known = [command for command in commands if _is_known(command)]
    if any(_is_called(command) or _is_meant(command) for command in known):
        return True
    words = [word.text.lower() for command in commands for word in command.words[1:]]
    return runs and bool(known) and len(words) < 8 and not _SMALL_WORDS & {*words}


_META = re.compile(r"[\\$'\"<>|&;`]")
_FIRST_WORDS = re.compile(r"[\w./~-]+")


def _may_be(text: str) -> bool:
    """A quick look: whether any word is the name of a program."""
    table = program_table()
    return any(table.entry(base_name(word)) is not None for word in _FIRST_WORDS.findall(text[:_LONGEST])[:400]) or (
        "\\" in text or "$" in text or "'" in text or '"' in text
    )


def _is_known(command: Command) -> bool:
    return program_table().entry(base_name(command.program)) is not None


_SIGN = re.compile(r"-{1,2}[A-Za-z]|-\d+$|/[\w.*]|~[\w/]|~?/?$|\.{1,2}/|\$|.*[*\ue000-\uf8ff]")


def _is_called(command: Command) -> bool:
    """Whether it has what prose has not."""
    if command.redirects or command.feeds or command.piped_on or command.sets or command.reads_text:
        return True
    words = command.words[1:]
    if any(
        (_SIGN.match(word.text) and word.text not in ("/", "")) or "$(" in word.raw or "`" in word.raw for word in words
    ):
        return True
    return like(command.program, ("/*", "./*", "\\*")) or command.words[0].raw != command.program


def _is_meant(command: Command) -> bool:
    """Whether its program's name is no word of English, and what follows is no sentence about it."""
    words = [word.text for word in command.words[1:]]
    if base_name(command.program) in _ENGLISH or not words or _SMALL_WORDS & {word.lower() for word in words}:
        return False
    return len(words) > 1 or words[0].lower() in _VERBS or bool(re.search(r"\w[.:/=]\w|^[.\d/-]|\s|\(", words[0]))
