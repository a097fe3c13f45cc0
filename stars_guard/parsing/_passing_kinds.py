"""Programs that run what they are given as others do, by a word of theirs: ``direnv exec``, ``hyperfine 'x'``."""

from __future__ import annotations

from dataclasses import replace

from stars_guard.parsing.shell_arguments import base_name
from stars_guard.parsing.shell_findings import FINE, Case, Finding, worst
from stars_guard.parsing.shell_words import UNKNOWN, Word

__all__ = ["commands", "passes_on"]

_SCRIPTS = ("npm:", "yarn:", "pnpm:", "bun:", "node:", "deno:")
"""How ``concurrently`` names the scripts of a package."""


def commands(case: Case) -> Finding:
    """Each operand is a command line."""
    texts = [text for text in case.given.texts if not text.startswith(_SCRIPTS)]
    return worst([FINE, *(case.verdicts.nested(text) for text in texts)])


_VERBS = ("exec", "x", "run", "shell", "with-env", "record", "develop", "dev", "live", "env")


def passes_on(case: Case) -> Finding:
    """What stands behind ``exec`` and the like, or behind two dashes, where it is a program that we know."""
    words = case.command.words[1:]
    texts = [word.text for word in words]
    rests: list[tuple[Word, ...]] = []
    if "--" in texts:
        rests.append(words[texts.index("--") + 1 :])
    rests += [words[texts.index(verb) + 1 :] for verb in _VERBS if verb in texts[:2]]
    rests += [words[index + 1 :] for index, text in enumerate(texts) if text in ("-c", "--command", "--run")]
    return worst([case.by_table, *(_first_program(case, rest) for rest in rests)])


def _first_program(case: Case, words: tuple[Word, ...]) -> Finding:
    """The first of the words that is a program's name, with what follows."""
    for index, word in enumerate(words[:6]):
        if UNKNOWN in word.text:
            return case.ask("runs a program that is not known")
        if " " in word.text:
            return case.verdicts.nested(word.text)
        if not word.text.startswith(".") and case.table.entry(base_name(word.text)) is not None:
            return case.verdicts.of_words(words[index:], replace(case.command, feeds=()))
    return FINE
