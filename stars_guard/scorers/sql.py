"""SQL as a judge: each statement is parsed, and judged by its kind, its tables and its condition."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import ClassVar, Self

from pydantic import Field, field_validator
from sqlglot.dialects.dialect import Dialects

from stars_guard.core.nearest import did_you_mean
from stars_guard.core.segments import Passage
from stars_guard.core.vocabulary import CallLevel
from stars_guard.parsing.call_arguments import Argument, arguments_of
from stars_guard.parsing.shell_arguments import like
from stars_guard.parsing.sql_statements import Statement, UnreadableSql, is_sql, read_sql
from stars_guard.parsing.word_lists import word_list
from stars_guard.scorers._strictness import SCORES, looser
from stars_guard.scorers.base import Rating, Scorer
from stars_guard.scorers.options import JudgeOptions, Loosening

__all__ = ["SqlOptions", "SqlScorer"]

_ARGUMENTS = (
    "sql",
    "sql_*",
    "*_sql",
    "sql*.*",
    "*_sql.*",
    "*sql*.query",
    "*database*.query",
    "*db*.query",
    "*_query.query",
)
"""Arguments that are SQL where the policy doesn't say. A ``query`` may be a question to a search engine."""

_PROSE = word_list("sql.prose")
"""Arguments that hold what people read, in which a statement is only mentioned."""

_DIALECTS = tuple(sorted(dialect.value for dialect in Dialects))

_READS = ("select", "show", "describe", "explain", "use", "pragma", "with", "values")


_STATEMENTS = ("*query*", "*sql*", "*statement*", "command", "input", "tool_input", "q", "script", "text")


def _is_a_name(argument: Argument) -> bool:
    """Whether an argument of a tool for SQL says which project or tables are meant."""
    is_plain = re.fullmatch(r"[\w.,\s-]*", argument.text) and not is_sql(argument.text)
    return bool(is_plain) and not like(argument.name.lower(), _STATEMENTS)


class SqlOptions(JudgeOptions):
    """SQL in tool calls, parsed. 1: a statement that must never run; 0.5: one that a person should look at."""

    free: ClassVar[frozenset[str]] = frozenset(
        {
            "allow",
            "forbid",
            "tables",
            "deny_tables",
            "functions",
            "otherwise",
            "all_rows",
            "several",
            "arguments",
            "tools",
        }
    )

    arguments: tuple[str, ...] = Field(_ARGUMENTS, min_length=1, strict=False, description="globs: name or tool.name")
    tools: tuple[str, ...] = Field(("*",), min_length=1, strict=False, description="globs of the tools that are judged")
    dialect: str = Field("", description="one of sqlglot's, such as postgres; empty: what most have in common")
    allow: tuple[str, ...] = Field(_READS, strict=False, description="kinds of statements that may run, such as select")
    forbid: tuple[str, ...] = Field((), strict=False, description="kinds of statements that must never run")
    otherwise: CallLevel = Field("ask", description="for kinds that are in neither list")
    tables: tuple[str, ...] | None = Field(None, strict=False, description="globs; where given, no other is allowed")
    deny_tables: tuple[str, ...] = Field((), strict=False, description="globs of tables that are forbidden")
    functions: tuple[str, ...] = Field(
        (), strict=False, description="globs of functions that may be called, besides those that only compute"
    )
    all_rows: CallLevel = Field("forbid", description="for UPDATE and DELETE of every row, and TRUNCATE")
    several: CallLevel = Field("ask", description="for more than one statement in a text")
    reject_above: float | None = Field(0.5, description="a score above this vetoes the call")

    @field_validator("dialect")
    @classmethod
    def _is_known(cls, dialect: str) -> str:
        if dialect not in _DIALECTS:
            meant = did_you_mean(dialect, _DIALECTS, form="{!r}")
            raise ValueError(f"an unknown dialect; {meant}" if meant else "an unknown dialect")
        return dialect

    def loosenings(self, child: Self) -> Iterator[Loosening]:
        yield from looser(
            self,
            child,
            allowing=("allow", "tables", "functions"),
            forbidding=("forbid", "deny_tables", "arguments", "tools"),
            levels=("otherwise", "all_rows", "several"),
        )

    async def load(self) -> Scorer:
        return SqlScorer(self)


class SqlScorer(Scorer):
    """The worst of all statements in a tool call. What cannot be parsed scores 0.5; texts that are no calls score 0."""

    cost = 1.0
    waits = False
    reads_calls = True

    def __init__(self, options: SqlOptions) -> None:
        self._options = options
        said = options.model_dump(exclude={*JudgeOptions.model_fields})
        self.identity = {"kind": "sql", **{name: str(value) for name, value in said.items()}}
        self._of_text = lru_cache(256)(self._judged)

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        return [self._score(passage) for passage in passages]

    def _score(self, passage: Passage) -> Rating:
        worst = (0.0, "")
        for argument in arguments_of(passage.tool_calls, self._options.tools):
            # a text that shows no call may be anything
            if not argument.tool:
                continue
            named = argument.is_in(self._options.arguments) and not _is_a_name(argument)
            if named or (is_sql(argument.text) and not argument.is_in(_PROSE)):
                worst = max(worst, self._of_text(argument.text), key=lambda found: found[0])
        return Rating(worst[0], worst[1] or None)

    def _judged(self, text: str) -> tuple[float, str]:
        if not text.strip():
            return 0.0, ""
        try:
            statements = read_sql(text, self._options.dialect)
        except UnreadableSql as exc:
            return 0.5, str(exc)
        found = [self._of(statement) for statement in statements]
        if len(statements) > 1 and text.rstrip().rstrip(";").count(";"):
            found.append((SCORES[self._options.several], "several statements"))
        return max(found, key=lambda one: one[0], default=(0.5, "no statement"))

    def _of(self, statement: Statement) -> tuple[float, str]:
        options, kind = self._options, statement.kind
        level: CallLevel = "allow" if like(kind, options.allow) else options.otherwise
        if like(kind, options.forbid):
            level = "forbid"
        found = [
            (SCORES[level], f"a statement of the kind {kind}" if kind.isalpha() and len(kind) < 12 else "a statement")
        ]
        if statement.all_rows:
            found.append((SCORES[options.all_rows], "changes every row"))
        if statement.writes_file:
            found.append((0.5, "reaches out of the database"))
        if not all(like(name, options.functions) for name in statement.functions):
            found.append((0.5, "a function that may do more than compute"))
        for table in statement.tables:
            names = (table, table.rpartition(".")[2])
            if any(like(name, options.deny_tables) for name in names):
                found.append((1.0, "a table that is forbidden"))
            elif options.tables is not None and not any(like(name, options.tables) for name in names):
                found.append((1.0, "a table that is not listed"))
        return max(found, key=lambda one: one[0])
