"""The simple commands of a shell script, and what the script has set."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field, replace

from tree_sitter import Node

from stars_guard.parsing.shell_words import Word

__all__ = ["Command", "Redirect", "Scope", "Script", "Unparsable"]

_KNOWN = {"HOME": "~", "PWD": ".", "IFS": " ", "TMPDIR": "/tmp", "OSTYPE": "linux-gnu", "SHELL": "/bin/bash"}  # noqa: S108


@dataclass(frozen=True, slots=True)
class Redirect:
    """A file that the shell opens for a command.

    Attributes:
        writes: whether it is written; it is read otherwise.
        appends: whether what is in the file stays.
    """

    target: Word
    writes: bool
    _: KW_ONLY
    appends: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One program with its arguments.

    Attributes:
        words: the program and its arguments. Empty where there are only assignments or redirections.
        sets: variables that are set, for this command alone where it has words.
        feeds: the commands before it in its pipeline, whose output it reads.
        stdin: the text that it reads, where that is known.
        reads_text: whether it reads a here-document or a here-string, known or not.
        piped_on: whether another command reads what it prints.
        folder: the working folder, as far as ``cd`` has changed it; empty where it has not.
        calls_itself: whether it is a function's call of itself in the background or a pipeline.
    """

    words: tuple[Word, ...] = ()
    sets: tuple[tuple[str, Word], ...] = ()
    redirects: tuple[Redirect, ...] = ()
    feeds: tuple[Command, ...] = ()
    stdin: str | None = None
    reads_text: bool = False
    piped_on: bool = False
    folder: str = ""
    calls_itself: bool = False

    @property
    def program(self) -> str:
        """The first word, or nothing."""
        return self.words[0].text if self.words else ""


class Unparsable(Exception):
    """The text is no script that can be read. The message holds none of it."""


@dataclass(slots=True, kw_only=True)
class Scope:
    """What the script has set so far."""

    variables: dict[str, str] = field(default_factory=lambda: dict(_KNOWN))
    functions: dict[str, Node] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    folder: str = ""

    def copy(self) -> Scope:
        """With variables of its own. Functions and aliases are those of the whole script."""
        return replace(self, variables=dict(self.variables))

    def apart(self) -> Scope:
        """The same for another reader, with nothing in common."""
        functions, aliases = dict(self.functions), dict(self.aliases)
        return replace(self, variables=dict(self.variables), functions=functions, aliases=aliases)


@dataclass(frozen=True, slots=True)
class Script:
    """What a text would run.

    Attributes:
        commands: in the order of the text.
        scope: what is set at the end.
    """

    commands: tuple[Command, ...]
    scope: Scope
