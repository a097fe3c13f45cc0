"""Shell commands as a judge: each is parsed, and judged by what its programs would do."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import ClassVar, Self

from pydantic import Field

from stars_guard.core.segments import Passage
from stars_guard.core.vocabulary import CallLevel
from stars_guard.parsing.call_arguments import Argument, arguments_of
from stars_guard.parsing.command_values import commands_in, is_said_beside
from stars_guard.parsing.program_table import LEVELS
from stars_guard.parsing.shell_findings import FINE, Finding, Settings, worst
from stars_guard.parsing.shell_verdict import Verdicts, read_tables
from stars_guard.parsing.word_lists import word_list
from stars_guard.scorers._strictness import SCORES, looser
from stars_guard.scorers.base import Rating, Scorer
from stars_guard.scorers.options import JudgeOptions, Loosening

__all__ = ["ShellOptions", "ShellScorer"]

COMMANDS = word_list("shell.commands")
"""Arguments that are commands where the policy doesn't say."""

_SCORES = {level: SCORES[word] for word, level in LEVELS.items()}


class ShellOptions(JudgeOptions):
    """Shell commands, parsed. A score of 1 is a command that must never run, 0.5 one that a person should look at."""

    free: ClassVar[frozenset[str]] = frozenset(
        {"allow", "ask", "forbid", "only", "unknown", "scripts", "hosts", "arguments", "by_value", "tools"}
    )

    arguments: tuple[str, ...] = Field(
        COMMANDS, min_length=1, strict=False, description="globs of the arguments that are commands: name or tool.name"
    )
    by_value: bool = Field(True, description="whether an argument of another name is judged that reads like a command")
    tools: tuple[str, ...] = Field(("*",), min_length=1, strict=False, description="globs of the tools that are judged")
    allow: tuple[str, ...] = Field((), strict=False, description="globs of commands that may run, before the table")
    ask: tuple[str, ...] = Field(  # type: ignore[assignment]  # a command is parsed in less time than others are asked
        (), strict=False, description="globs of commands to ask about, before allow"
    )
    forbid: tuple[str, ...] = Field((), strict=False, description="globs of commands that must not run, before ask")
    only: tuple[str, ...] | None = Field(
        None, strict=False, description="globs of commands; where given, every other one is forbidden"
    )
    unknown: CallLevel = Field("ask", description="for programs that the table doesn't have")
    scripts: tuple[str, ...] = Field(
        ("./*", "*/*"), strict=False, description="globs of program files that may run, relative or absolute"
    )
    hosts: tuple[str, ...] = Field((), strict=False, description="hosts from which code may come, besides the table's")
    reject_above: float | None = Field(0.5, description="a score above this vetoes the call")

    def loosenings(self, child: Self) -> Iterator[Loosening]:
        yield from looser(
            self,
            child,
            allowing=("allow", "scripts", "hosts", "only"),
            forbidding=("ask", "forbid", "arguments", "tools"),
            levels=("unknown",),
        )
        if self.by_value and not child.by_value:
            yield "by_value", "less than the parent's"

    async def load(self) -> Scorer:
        # the table of programs is a file
        return await asyncio.to_thread(self._scorer)

    def _scorer(self) -> ShellScorer:
        read_tables()
        settings = Settings(
            allow=self.allow,
            ask=self.ask,
            forbid=self.forbid,
            only=self.only,
            unknown=LEVELS[self.unknown],
            scripts=self.scripts,
            hosts=self.hosts,
        )
        return ShellScorer(settings, arguments=self.arguments, tools=self.tools, by_value=self.by_value)


class ShellScorer(Scorer):
    """The worst that any command of a tool call would do: 0 it may run, 0.5 a person should look at it, 1 never.

    A command that cannot be parsed scores 0.5. Texts that are no tool calls score 0.

    Args:
        settings: what the policy says beside the table of programs.
        arguments: globs of the arguments that are commands.
        tools: globs of the tools that are judged.
        by_value: whether an argument of another name is judged that reads like a command.
    """

    cost = 0.5
    waits = False
    reads_calls = True

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        arguments: Sequence[str] = COMMANDS,
        tools: Sequence[str] = ("*",),
        by_value: bool = True,
    ) -> None:
        self._settings = settings or Settings()
        self._arguments, self._tools, self._by_value = tuple(arguments), tuple(tools), by_value
        lists = repr((self._settings, self._arguments, self._tools, by_value))
        self.identity = {"kind": "shell", "sha256": hashlib.sha256(lists.encode()).hexdigest()}
        self._of_command = lru_cache(512)(self._judged)
        self._by_its_value = lru_cache(512)(lambda argument: tuple(commands_in(argument)))

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        return [self._score(passage) for passage in passages]

    def _score(self, passage: Passage) -> Rating:
        found = worst(
            self._of_command(text)
            for argument in arguments_of(passage.tool_calls, self._tools)
            for text in self._commands_in(argument)
        )
        return Rating(_SCORES[found.level], found.text or None)

    def _commands_in(self, argument: Argument) -> Sequence[str]:
        if (argument.is_in(self._arguments) and not is_said_beside(argument)) or _is_script(argument):
            return [argument.text]
        return self._by_its_value(argument) if self._by_value else ()

    def _judged(self, text: str) -> Finding:
        return Verdicts(self._settings).of_text(text) if text.strip() else FINE


def _is_script(argument: Argument) -> bool:
    """Whether a text that somebody writes to a file is a shell script."""
    first = argument.text[:80].split("\n", 1)[0]
    return first.startswith("#!") and any(
        first.rstrip().endswith(f"{end}sh") for end in ("/", " ", "ba", "z", "da", "k")
    )
