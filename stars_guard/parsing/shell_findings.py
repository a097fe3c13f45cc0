"""What is said of commands, and what the kinds of programs get to see of one call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field
from typing import Protocol

from stars_guard.parsing.program_table import Entry, Level, Table, program_table
from stars_guard.parsing.shell_arguments import Arguments
from stars_guard.parsing.shell_commands import Command
from stars_guard.parsing.shell_words import Word

__all__ = ["FINE", "Case", "Finding", "Runs", "Settings", "worst"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What is said of one command.

    Attributes:
        program: the program's name, where the table knows it.
        why: in a few words, without anything of the command.
    """

    level: Level
    _: KW_ONLY
    program: str = ""
    why: str = ""

    @property
    def text(self) -> str:
        """For a person, without user text."""
        return f"{self.program} {self.why}".strip()


FINE = Finding(Level.ALLOW)


def worst(findings: Iterable[Finding]) -> Finding:
    """The finding that counts."""
    return max(findings, key=lambda finding: finding.level, default=FINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a policy says beside the table.

    Attributes:
        allow: commands that may run whatever the table says, as globs of the program and its arguments. ``ask`` and
            ``forbid`` are the same for the other levels, and go before it.
        only: where given, every command that is like none of these globs must not run.
        unknown: what becomes of programs that the table doesn't have.
        scripts: programs in files that may run, as globs.
        hosts: from where packages and code may be taken, besides the table's.
        table: the table of programs.
    """

    allow: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    forbid: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    unknown: Level = Level.ASK
    scripts: tuple[str, ...] = ("./*", "*/*")
    hosts: tuple[str, ...] = ()
    table: Table = field(default_factory=program_table)

    def trusts(self, host: str) -> bool:
        """Whether code may come from a host."""
        host = host.lower().rstrip(".")
        return any(host == one or host.endswith(f".{one}") for one in (*self.table.trusted_hosts, *self.hosts))


class Runs(Protocol):
    """What the kinds of programs may ask about other programs and files of the same text."""

    settings: Settings

    def nested(self, text: str | None, *, remote: bool = False) -> Finding:
        """The worst that a script inside of a command does."""

    def of_words(self, words: tuple[Word, ...], like_command: Command, *, remote: bool = False) -> Finding:
        """What a command does whose program is an argument of another."""

    def ran(self, path: str) -> Finding | None:
        """What running a file means that this text has made."""

    def made(self, path: str, content: str | None) -> None:
        """Remember a file that the text makes, and its content where that is known."""

    def written(self, target: str) -> Finding:
        """What writing to a file means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One call of a program, as the kinds of programs see it."""

    name: str
    entry: Entry
    given: Arguments
    command: Command
    verdicts: Runs

    @property
    def table(self) -> Table:
        return self.verdicts.settings.table

    def finding(self, level: Level, why: str) -> Finding:
        return Finding(level, program=self.name, why=why)

    def ask(self, why: str) -> Finding:
        return self.finding(Level.ASK, why)

    @property
    def by_table(self) -> Finding:
        """What the table says of the call."""
        return self.finding(*self.entry.level(self.name, self.given))
