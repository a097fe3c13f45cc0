"""Where a regular expression may have begun to match at the end of a text that goes on."""

from __future__ import annotations

import regex

__all__ = ["UnfinishedMatches"]

_SECONDS = 0.05
"""The most time for one look at one text."""


class UnfinishedMatches:
    """Finds the first place from which on more text could complete a match.

    RE2 can't tell, so the expression is compiled a second time for the `regex` package, which backtracks. That is why
    each look is bounded in time, and why nothing but the place depends on it.

    Args:
        expression: in RE2 syntax.
    """

    def __init__(self, expression: str) -> None:
        # what can never match at its end is only ever found unfinished
        try:
            # in RE2 words and digits are of ASCII, and letters of Unicode; here all are or none
            flags = 0 if "\\p" in expression.lower() else regex.ASCII
            self._compiled: regex.Pattern[str] | None = regex.compile(f"(?:{expression})(?!)", flags)
        except regex.error:
            self._compiled = None

    def open_from(self, text: str, start: int = 0) -> int | None:
        """The first place of an unfinished match, or None where there is none.

        It is ``start`` where the expression or the time doesn't allow us to tell.

        Args:
            start: matches that begin before this place are not looked for. The text before it is context.
        """
        if self._compiled is None:
            return start
        try:
            found = self._compiled.search(text, start, partial=True, timeout=_SECONDS)
        except TimeoutError:
            return start
        # at its very end a text may begin anything
        return found.start() if found is not None and found.start() < len(text) else None
