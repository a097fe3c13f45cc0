"""The grammar of Bash."""

from __future__ import annotations

import re
from functools import lru_cache

import tree_sitter
import tree_sitter_bash

__all__ = ["BRANCHES", "LOOPS", "STATEMENTS", "parsed", "written"]

STATEMENTS = frozenset({"command", "declaration_command", "unset_command", "test_command"})
LOOPS = frozenset({"for_statement", "c_style_for_statement", "while_statement"})
BRANCHES = frozenset({"if_statement", "case_statement"})

_FIRST = 0xC0
"""The first of 16 letters that stand for half a byte each."""

_OTHERS = re.compile(r"[^\x00-\x7f]+")
_LINE_OF_BACKSLASH = re.compile(r"\n(?=\\[^\n])")
"""The grammar takes the line before for one with a line that begins with a backslash, and hides its command so."""

_HALVES = re.compile(f"[{chr(_FIRST)}-{chr(_FIRST + 15)}]+")


@lru_cache(1)
def _parser() -> tree_sitter.Parser:
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))


def parsed(text: str) -> tree_sitter.Tree:
    """The tree of a script, whose nodes' texts `written` reads. Where ``root_node.has_error``, it can't be read.

    The grammar's scanner looks characters up in C's table of 256 without looking at their numbers, and a large one ends
    the process. So it gets letters of that table instead, two for each byte of a character that isn't ASCII.
    """
    return _parser().parse(_OTHERS.sub(_halved, _LINE_OF_BACKSLASH.sub("\n ", text)).encode())


def written(data: bytes | None) -> str:
    """What a part of a tree's source says."""
    return _HALVES.sub(_joined, (data or b"").decode("utf-8", "replace"))


def _halved(match: re.Match[str]) -> str:
    return "".join(
        chr(_FIRST + half) for byte in match[0].encode("utf-8", "replace") for half in (byte >> 4, byte & 15)
    )


def _joined(match: re.Match[str]) -> str:
    halves = [ord(char) - _FIRST for char in match[0]]
    whole = bytes(high << 4 | low for high, low in zip(halves[::2], halves[1::2], strict=False))
    return whole.decode("utf-8", "replace") + "\ufffd" * (len(halves) % 2)
