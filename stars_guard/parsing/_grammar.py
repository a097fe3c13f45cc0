"""The grammar of Bash."""

from __future__ import annotations

from functools import lru_cache

import tree_sitter
import tree_sitter_bash

__all__ = ["parsed"]


@lru_cache(1)
def _parser() -> tree_sitter.Parser:
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))


def parsed(text: bytes) -> tree_sitter.Tree:
    """The tree of a script. Where ``root_node.has_error``, it is none that can be read."""
    return _parser().parse(text)
