"""For judges that search text: each part of an answer is searched once or twice, however long the answer grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stars_guard.core.segments import Passage
from stars_guard.scorers._per_call import PerCall
from stars_guard.scorers.base import Find

__all__ = ["Search"]

_WAYS = 4
"""Ways to read an answer of which something is kept: as it is written, without escapes, without calls, and both."""

_EDGE = 64
"""Characters at the beginning of a part in which a find may only seem to begin, since what is before is cut off."""


class Search:
    """What is found in an answer, as it would be found in the whole of it.

    Args:
        find: finds in a text from a position on.
        longest: the characters that a find may have. What is longer is found at the last segment, which searches all.
    """

    def __init__(self, find: Callable[[str, int], Sequence[Find]], longest: int) -> None:
        self._find, self._longest = find, longest
        # by call, for each way in which its answer is read
        self._searched: PerCall[list[tuple[str, list[Find]]]] = PerCall()

    def finds(self, passage: Passage) -> Sequence[Find]:
        """All finds in the passage's answer."""
        answer = passage.answer
        if not answer:
            return ()
        if passage.last:
            return self._find(answer, 0)
        states = self._searched.take(passage.call_id) or []
        # none where the answer went back, or less of it is shown
        fitting = [state for state in states if passage.accepted.startswith(state[0])]
        searched, known = max(fitting, key=lambda state: len(state[0]), default=("", []))
        start = max(0, len(searched) - self._longest)
        # the character before says whether a word or a line begins at the start
        cut = max(0, start - 1)
        edge = start + _EDGE if start else 0
        finds = [find for find in known if find[0] < edge]
        for begin, end, name in self._find(answer[cut:], start - cut):
            if begin + cut >= edge or end + cut > len(searched):
                finds.append((begin + cut, end + cut, name))
        kept = len(passage.accepted)
        new = (passage.accepted, [find for find in finds if find[1] <= kept])
        self._searched.put(passage.call_id, [new, *(state for state in states if state[0] != new[0])][:_WAYS])
        return finds

    def forget(self, call_id: str) -> None:
        """Drop what is kept of a call."""
        self._searched.forget(call_id)
