"""Commands that the grammar of Bash takes for text: those between backticks in an expansion or a here-document."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tree_sitter import Node

from stars_guard.parsing._grammar import parsed, written
from stars_guard.parsing.shell_commands import Unparsable

__all__ = ["hidden_commands", "scripts_between_backticks"]

_TEXTS = frozenset({"raw_string", "ansi_c_string", "comment", "heredoc_body", "heredoc_content", "heredoc_start"})
_BACKTICK = re.compile(r"(?<!\\)(?:\\\\)*`")
_INDEX = re.compile(r"\[[^\]]*(?:\$\(|`)")
_TWICE = re.compile(r"\\(?:`|\\|\$[({])")
"""What backticks take a backslash from before the commands between them are read."""


def hidden_commands(root: Node) -> Iterator[Node]:
    """The scripts that stand between backticks in what the grammar has for a word.

    Raises:
        Unparsable: one can't be read, backticks are nested, or a test has commands in an index.
    """
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.type in _TEXTS and not node.named_child_count:
            continue
        text = written(node.text)
        if node.type == "command_substitution" and text.startswith("`") and _TWICE.search(text):
            raise Unparsable("backticks inside of backticks")
        if node.type == "test_command" and _INDEX.search(text.lstrip("[")):
            raise Unparsable("commands in an index")
        if node.child_count:
            waiting += node.children
        elif node.is_named and _BACKTICK.search(text):
            yield from scripts_between_backticks(text)


def scripts_between_backticks(text: str) -> Iterator[Node]:
    """The scripts between backticks in a text.

    Raises:
        Unparsable: one can't be read.
    """
    parts = re.split(r"(?<!\\)`", text)
    if len(parts) % 2 == 0:
        raise Unparsable("backticks that cannot be parsed")
    for script in parts[1::2]:
        root = parsed(script).root_node
        if root.has_error or _TWICE.search(script):
            raise Unparsable("backticks that cannot be parsed")
        yield root
