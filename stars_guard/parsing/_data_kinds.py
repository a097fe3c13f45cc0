"""Clients of databases and other stores: what is asked of them."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import lru_cache

from stars_guard.parsing._shell_output import output_of
from stars_guard.parsing.code_calls import risks_in
from stars_guard.parsing.shell_arguments import base_name
from stars_guard.parsing.shell_findings import FINE, Case, Finding, worst
from stars_guard.parsing.shell_words import UNKNOWN
from stars_guard.parsing.sql_statements import risk_of_sql
from stars_guard.parsing.word_lists import word_list

__all__ = ["data_store", "database"]


def database(case: Case) -> Finding:
    """Clients of SQL databases: what the statements do."""
    flags = ("-c", "-e", "-q", "-Q", "--command", "--execute", "--query", "-cmd", "-S")
    texts = [value.text for value in case.given.of(*flags)]
    if case.name in ("sqlite3", "sqlite", "duckdb", "litecli", "clickhouse"):
        texts += case.given.texts[1:]
    if case.command.reads_text:
        if case.command.stdin is None:
            return case.ask("runs statements that are not known")
        texts.append(case.command.stdin)
    elif case.command.feeds:
        text = output_of(case.command.feeds)
        if text is not None:
            texts.append(text)
        elif any(base_name(fed.program) in ("curl", "wget", "base64") for fed in case.command.feeds):
            return case.ask("runs statements that are not known")
    found = FINE
    if any(value.text.startswith("|") for _, value in case.given.values):
        return case.ask("runs a program")
    for text in texts:
        why = (
            "runs statements that are not known"
            if UNKNOWN in text and not text.strip().upper().startswith("SELECT")
            else risk_of_sql(text, scratch=_is_scratch(case))
        )
        found = worst([found, case.ask(why) if why else FINE])
    return found


def _is_scratch(case: Case) -> bool:
    """Whether the database is a file for tests."""
    names = case.given.texts[:1]
    return (
        case.name in ("sqlite3", "sqlite", "duckdb")
        and bool(names)
        and (
            names[0] == ":memory:"
            or bool(re.search(r"(?:^|[/_.-])(?:test|tmp|temp|scratch|dev)[^/]*$", names[0]))
            or names[0].startswith("/tmp/")  # noqa: S108
        )
    )


@lru_cache(1)
def _harm() -> re.Pattern[str]:
    """What clients of data stores are asked for that loses data, or changes what others use."""
    words = (re.escape(word).replace(r"\*", r"\w*").replace(r"\ ", r"\s+") for word in word_list("data_kinds.harm"))
    return re.compile(rf"(?i)(?<!\w)(?:{'|'.join(words)})(?!\w)")


def data_store(case: Case) -> Finding:
    """Clients of other stores: what is asked of them, by its words. Those of MongoDB run JavaScript besides."""
    is_script = case.name.startswith("mongo")
    codes = [value.text for value in case.given.of("--eval")]
    # there, --eval is how anything is asked; for others it names a script
    flags = sorted({*case.given.flags} - ({"--eval"} if is_script else set()))
    line = " ".join([*case.given.texts, *codes, *flags])
    if case.command.reads_text:
        codes.append(case.command.stdin or UNKNOWN)
        line += f" {codes[-1]}"
    if case.command.feeds or (UNKNOWN in line and not fnmatchcase(line, "*get*")):
        return case.ask("runs what is not known")
    if is_script and (why := risks_in("\n".join(codes), "js")):
        return case.ask(why)
    return case.ask("loses data") if _harm().search(line) else FINE
