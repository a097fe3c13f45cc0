"""What of an answer waits, because a judge may yet veto a text that begins there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from stars_guard.core.judging import Judgement
from stars_guard.core.segments import Candidate, Passage
from stars_guard.scorers.cascade import Judge

__all__ = ["Holding"]

_BEGUN_ESCAPE = re.compile(
    r"(?:\\u[dD][89abAB][0-9A-Fa-f]{2})?(?:\\(?:u[0-9A-Fa-f]{0,3})?)\Z|\\u[dD][89abAB][0-9A-Fa-f]{2}\Z"
)
_HALF_READ = re.compile(r"\ufffd?(?:\\(?:u[0-9A-Fa-f]{0,3})?)?\Z")
"""The same in a text that is read as JSON, where half of a pair is read already."""


class Holding:
    """Says from where on an answer must not be released yet.

    An answer waits from the first of these places:

    - something may begin there that a judge would veto once it is complete, or the judge has not seen it, because it
      isn't asked at each segment;
    - the last ``tokens`` of the answer begin there;
    - an escape begins there that is not complete: nobody knows yet which character a reader of JSON makes of it.

    What comes next may go on after an escape that is not complete, or after a marked part (a tool call) that has not
    ended. So an answer counts as open where it is open up to there.

    Args:
        judges: all of the call. Only those that can veto count.
        tokens: how many are held at least.
    """

    def __init__(self, judges: Sequence[Judge], tokens: int = 0) -> None:
        self._judges = [judge for judge in judges if judge.rule.reject_above is not None]
        # by judge: up to where nothing may be vetoed, as far as the judge was asked
        self._clear = dict.fromkeys((judge.rule.judge for judge in self._judges), 0)
        # by judge: the readings at the last look, and the same of each
        self._read: dict[str, list[tuple[str, int]]] = {}
        self._tokens = tokens
        # where each token of the answer ends, if the last ones are held
        self._ends: list[int] = []

    def after(self, candidate: Candidate, passage: Passage, released: int, marked: int | None = None) -> list[int]:
        """The places after a candidate has become part of the answer, without `tail`.

        Args:
            passage: as which it was judged, with the other ways in which the answer is read.
            released: characters of the answer that are out.
            marked: where a marked part begins that has not ended.
        """
        text = passage.answer
        if not (self._judges or self._tokens) or candidate.finish is not None:
            return []
        known = max(released, len(_without_half(text)))
        for judge in self._judges:
            if judge.view(passage) is not None:
                place = self._first_open(judge, passage, released, marked)
                self._clear[judge.rule.judge] = known if place is None else min(place, known)
        if self._tokens:
            before = len(text) - len(candidate.text)
            self._ends += [before + size for size in accumulate(len(token.text) for token in candidate.tokens)]
        return [*self._clear.values(), known]

    @property
    def tail(self) -> int | None:
        """The place where the last tokens begin; None where none are held for their number."""
        if not self._tokens:
            return None
        return self._ends[-1 - self._tokens] if len(self._ends) > self._tokens else 0

    def match_from(self, passage: Passage, judgement: Judgement, released: int) -> int | None:
        """Where in the held text the match begins for which a candidate is vetoed. None where it begins in the
        candidate or in what is out, and where no judge can tell.

        Args:
            passage: as which the candidate was judged.
            released: characters of the answer that are out.
        """
        values = {score.judge: score.value for score in judgement.scores}
        places = [
            self._match_of(judge, passage, released)
            for judge in self._judges
            if (value := values.get(judge.rule.judge)) is not None and value > (judge.rule.reject_above or 0.0)
        ]
        held = range(released, len(passage.accepted))
        return min((place for place in places if place is not None and place in held), default=None)

    def _match_of(self, judge: Judge, passage: Passage, released: int) -> int | None:
        above = judge.rule.reject_above or 0.0
        found = [start for start, end, _ in judge.scorer.find_above(passage.answer, above) if end > released]
        for before, text in passage.readings:
            # nobody knows where a place in another reading is in the text as it is written
            finds = judge.scorer.find_above(before + text, above)
            found += [released for start, end, _ in finds if start < len(before) < end]
        if found:
            return min(found)
        return judge.open_from(replace(passage, segment=""), released)

    def go_back(self, place: int, tokens: int) -> None:
        """The answer has been taken back to a place, by so many tokens."""
        # that something cannot have begun was known from text that is gone
        self._read.clear()
        self._clear = {judge: min(clear, place) for judge, clear in self._clear.items()}
        if self._ends:
            del self._ends[-tokens:]

    def open_from(self, passage: Passage, released: int, marked: int | None = None) -> int | None:
        """Where something has begun that a judge would veto once it is complete, or None. It stays out of an answer
        that ends there. The arguments are those of `after`."""
        places = [self._first_open(judge, passage, released, marked) for judge in self._judges]
        known = len(_without_half(passage.answer))
        if self._judges and known < len(passage.answer):
            places.append(known)
        return min((place for place in places if place is not None), default=None)

    def _first_open(self, judge: Judge, passage: Passage, released: int, marked: int | None) -> int | None:
        answer = passage.answer
        unfinished = "" if marked is None else answer[marked:]
        if (read := self._open_as_read(judge, passage, unfinished)) is not None and read <= released:
            return released
        ways = [answer, answer.removesuffix(unfinished)]
        ways += [_without_half(way) for way in ways]
        places = [
            judge.open_from(replace(passage, accepted="", segment=way), min(released, len(way)))
            for way in dict.fromkeys(ways)
        ]
        return min((place for place in (read, *places) if place is not None), default=None)

    def _open_as_read(self, judge: Judge, passage: Passage, unfinished: str) -> int | None:
        """The place in the text as it is written; 0 where nobody knows it."""
        known, found = self._read.get(judge.rule.judge, []), []
        answer, places = passage.answer, []
        for before, text in passage.readings:
            whole = before + text
            for way in dict.fromkeys((whole, whole.removesuffix(unfinished))):
                shown = _without_half(way, _HALF_READ)
                start = max((clear for old, clear in known if shown.startswith(old[:clear])), default=0)
                place = judge.open_from(replace(passage, accepted="", segment=shown), start)
                found.append((shown, len(shown) if place is None else place))
                if place is not None:
                    # the same from there on, however it is read
                    open_part = whole[place:]
                    places.append(len(answer) - len(open_part) if answer.endswith(open_part) else 0)
        self._read[judge.rule.judge] = found
        return min(places, default=None)


def _without_half(text: str, half: re.Pattern[str] = _BEGUN_ESCAPE) -> str:
    found = half.search(text, max(0, len(text) - 12))
    return text if found is None else text[: found.start()]
