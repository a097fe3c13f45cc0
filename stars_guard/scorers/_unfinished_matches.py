"""Where a regular expression may have begun to match at the end of a text that goes on."""

from __future__ import annotations

from typing import Any

import re2

from stars_guard.scorers._beginnings import beginnings

__all__ = ["UnfinishedMatches"]

_MEMORY = 64 << 20


class UnfinishedMatches:
    """Finds the first place from which on more text could complete a match.

    RE2 can't tell of an expression. So the expression is rewritten into another one, which matches every beginning of
    what it matches, and that is searched for at the text's end: exactly, and in linear time.

    Args:
        expression: in RE2 syntax.
    """

    def __init__(self, expression: str) -> None:
        self._compiled: Any | None = None
        options = re2.Options()
        options.log_errors = False
        options.max_mem = _MEMORY
        begun = beginnings(expression)
        if begun is not None:
            try:
                self._compiled = re2.compile(rf"(?:{begun})\z", options)
            except re2.error:
                self._compiled = None

    def open_from(self, text: str, start: int = 0) -> int | None:
        """The first place of an unfinished match, or None where there is none.

        It is ``start`` where the expression doesn't allow us to tell.

        Args:
            start: matches that begin before this place are not looked for. The text before it is context.
        """
        if self._compiled is None:
            return start
        # the character before says whether a word or a line begins at the start
        cut = max(0, start - 1)
        found = self._compiled.search(text[cut:], start - cut)
        # at its very end a text may begin anything
        return found.start() + cut if found is not None and found.start() + cut < len(text) else None
