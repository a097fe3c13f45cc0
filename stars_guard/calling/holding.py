"""What of an answer waits, because a judge may yet veto a text that begins there."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from stars_guard.core.segments import Candidate, Passage
from stars_guard.scorers.cascade import Judge

__all__ = ["Holding"]

_BEGUN_ESCAPE = re.compile(r"\\(?:u[0-9A-Fa-f]{0,3})?\Z")


class Holding:
    """Says from where on an answer must not be released yet.

    An answer waits from the first of these places:

    - something may begin there that a judge would veto once it is complete, or the judge has not seen it, because it
      isn't asked at each segment;
    - the last ``tokens`` of the answer begin there;
    - an escape begins there that is not complete: nobody knows yet which character a reader of JSON makes of it.

    Args:
        judges: all of the call. Only those that can veto count.
        tokens: how many are held at least.
    """

    def __init__(self, judges: Sequence[Judge], tokens: int = 0) -> None:
        self._judges = [judge for judge in judges if judge.rule.reject_above is not None]
        # by judge: up to where nothing may be vetoed, as far as the judge was asked
        self._clear = dict.fromkeys((judge.rule.judge for judge in self._judges), 0)
        self._tail: deque[int] = deque(maxlen=tokens)

    def after(self, candidate: Candidate, passage: Passage, released: int) -> list[int]:
        """The places after a candidate has become part of the answer.

        Args:
            passage: as which it was judged, with the other ways in which the answer is read.
            released: characters of the answer that are out.
        """
        text = passage.answer
        if not self._judges or candidate.finish is not None:
            return []
        for judge in self._judges:
            if judge.view(passage) is not None:
                place = _first_open(judge, passage, released)
                self._clear[judge.rule.judge] = len(text) if place is None else place
        places = list(self._clear.values())
        places += [escape.start() for escape in [_BEGUN_ESCAPE.search(text)] if escape]
        if self._tail.maxlen:
            self._tail.extend(len(token.text) for token in candidate.tokens)
            places.append(max(0, len(text) - sum(self._tail)))
        return places

    def open_from(self, passage: Passage, released: int) -> int | None:
        """Where something has begun that a judge would veto once it is complete, or None. It stays out of an answer
        that ends there."""
        places = [_first_open(judge, passage, released) for judge in self._judges]
        return min((place for place in places if place is not None), default=None)


def _first_open(judge: Judge, passage: Passage, released: int) -> int | None:
    # nobody knows where a place in another reading is in the text as it is written
    for before, text in passage.readings:
        other = replace(passage, accepted="", segment=_BEGUN_ESCAPE.sub("", before + text))
        if judge.open_from(other, 0) is not None:
            return released
    return judge.open_from(passage, min(released, len(passage.answer)))
