"""Asks the judges, cheap ones first; passages of all calls that are ready at the same moment go in one batch."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import KW_ONLY, dataclass, replace

from stars_guard.concealing import concealed, fingerprinted
from stars_guard.core.doubt import Unasked
from stars_guard.core.judging import Judgement, Rule, Score, combine
from stars_guard.core.readings import disguised
from stars_guard.core.segments import Passage
from stars_guard.core.vocabulary import AskedWhy
from stars_guard.decoding.randomness import Place
from stars_guard.errors import InputError, PolicyError, ScorerInputError
from stars_guard.prompting.plain_text import text_of
from stars_guard.scorers._batching import batcher_of
from stars_guard.scorers.base import Rating, Scorer

__all__ = ["Cascade", "Judge"]


@dataclass(frozen=True, slots=True)
class Judge:
    """A scorer, what it gets to see and when, and what the policy makes of its score.

    Attributes:
        rule: the judge's name, and what its score means.
        scorer: gives the score.
        timeout: seconds; None waits without limit.
        tail: characters of the answer's end that are seen, the whole segment at least; None shows all.
        every: asked at each k-th segment; 0 never, except at the last. All are asked about a whole tool call.
        final: asked at the last segment too, and then sees the whole answer.
        conversation: the turns before the answer are judged with it.
    """

    rule: Rule
    scorer: Scorer
    _: KW_ONLY
    timeout: float | None = None
    tail: int | None = None
    every: int = 1
    final: bool = False
    conversation: bool = False

    @property
    def identity(self) -> dict[str, str]:
        """For the record: the scorer's, and what this judge sees of an answer where that is not all of it."""
        seen = {"tail": self.tail, "every": self.every, "final": self.final, "conversation": self.conversation}
        usual = {"tail": None, "every": 1, "final": False, "conversation": False}
        own = {key: fingerprinted(value) for key, value in self.scorer.identity.items()}
        return {**own, **{key: str(value) for key, value in seen.items() if value != usual[key]}}

    def views(self, passage: Passage) -> list[Passage]:
        """What the judge is asked about a passage: nothing, or its text and, if the judge vetoes, what else it is."""
        ways = [passage]
        by_itself = passage.is_call and self.scorer.reads_calls
        vetoes = self.rule.reject_above is not None or self.rule.ask_above is not None
        if vetoes and not by_itself and self.scorer.directions is None:
            ways += [replace(passage, segment=form) for form in disguised(passage.segment)]
            ways += [replace(passage, accepted="", segment=form) for form in passage.forms]
            ways += [replace(passage, accepted=before, segment=text) for before, text in passage.readings]
        return [seen for way in ways if (seen := self.view(way)) is not None]

    def view(self, passage: Passage) -> Passage | None:
        """The part of a passage that the judge sees, or None when it is not asked."""
        seen = self._seen(passage)
        return _with_turns(seen) if seen is not None and self.conversation and not self.scorer.reads_turns else seen

    def open_from(self, passage: Passage, start: int) -> int | None:
        """Where in the answer something may have begun that the judge would veto once it is complete; None: nowhere.

        Args:
            start: nothing in the answer before this place matters.
        """
        before = _turns(passage) if self.conversation and not self.scorer.reads_turns else ""
        place = self.scorer.open_from(before + passage.answer, len(before) + start if start else 0)
        return None if place is None else max(0, place - len(before))

    def _seen(self, passage: Passage) -> Passage | None:
        if self.final and passage.last:
            return passage
        if not passage.whole and (not self.every or (passage.index + 1) % self.every):
            return None
        if self.tail is None:
            return passage
        room = max(0, self.tail - len(passage.segment))
        return replace(passage, accepted=passage.accepted[-room:] if room else "")


def _with_turns(passage: Passage) -> Passage:
    """The passage with the texts of the conversation before its answer."""
    return replace(passage, accepted=_turns(passage) + passage.accepted)


def _turns(passage: Passage) -> str:
    return "".join(f"{text}\n\n" for message in passage.messages if (text := text_of(message)))


class Cascade:
    """All judges of one policy.

    Args:
        opened: frees the scorers that were loaded for this cascade. None where the caller made them, and closes them.

    Raises:
        PolicyError: a judge is asked when another one is in doubt that isn't there, or is not always asked itself.

    Attributes:
        directions: whose values judges ask the generator for.
    """

    def __init__(self, judges: Sequence[Judge], opened: AsyncExitStack | None = None) -> None:
        self._opened = opened or AsyncExitStack()
        self.judges = tuple(judges)
        self.rules = tuple(judge.rule for judge in judges)
        # the same probe may stand behind several judges
        found = [judge.scorer.directions for judge in judges]
        self.directions = tuple(dict.fromkeys(one for one in found if one is not None))
        self._order = _in_order(self.judges)

    @property
    def waits(self) -> bool:
        """Whether any of the scorers may wait for something."""
        return any(judge.scorer.waits for judge in self.judges)

    @property
    def left_alone(self) -> dict[str, bool]:
        """For each judge, whether it is not asked now because it kept failing."""
        return {judge.rule.judge: batcher_of(judge.scorer).breaker.is_open for judge in self.judges}

    async def judge(
        self,
        passages: Sequence[Passage],
        known: Sequence[Mapping[str, Score]] = (),
        *,
        places: Sequence[Place] | None = None,
        fully: bool = False,
    ) -> list[Judgement]:
        """Judge each passage. After a veto no further judge is asked about it, and a judge that is asked in doubt is
        not asked where the other one is sure.

        Args:
            known: of each passage, by judge, scores that stand for asking.
            places: of the passages. Without them every judge is asked, in doubt or not.
            fully: go on after a veto.

        Raises:
            ScorerError: a judge failed and its rule says ``raise``.
        """
        return await self._ask(passages, self._order, known, places, fully=fully)

    async def judge_fully(self, passage: Passage) -> Judgement:
        """Ask every judge, whatever another vetoes. Raises as `judge` does."""
        scores = [(await _scores(judge, [passage]))[0] for judge in self.judges]
        return combine(scores, self.rules)

    async def prompt_reward(self, passage: Passage) -> tuple[float | None, int]:
        """r(x, "") and the number of passages scored; None when a judge failed or none gives a reward."""
        judges = [judge for judge in self._order if judge.rule.weight is not None]
        if not judges:
            return None, 0
        judgement = (await self._ask([passage], judges))[0]
        failed = any(score.value is None for score in judgement.scores)
        return (None if failed else judgement.reward), len(judgement.scores)

    async def _ask(
        self,
        passages: Sequence[Passage],
        judges: Sequence[Judge],
        known: Sequence[Mapping[str, Score]] = (),
        places: Sequence[Place] | None = None,
        *,
        fully: bool = False,
    ) -> list[Judgement]:
        known = known or [{}] * len(passages)
        scores: list[list[Score]] = [[] for _ in passages]
        unasked: list[list[Unasked]] = [[] for _ in passages]
        alive = list(range(len(passages)))
        for judge in judges:
            name = judge.rule.judge
            if not alive:
                break
            asked: dict[int, AskedWhy | None] = {}
            for index in alive:
                place = None if places is None else places[index]
                why = self.why_asked(judge, passages[index], scores[index], place)
                if isinstance(why, Unasked):
                    unasked[index].append(why)
                else:
                    asked[index] = why
            given = {index: [known[index][name]] for index in asked if name in known[index]}
            views = [(index, view) for index in asked if index not in given for view in judge.views(passages[index])]
            if views:
                said = await _scores(judge, [view for _, view in views])
                for (index, _), score in zip(views, said, strict=True):
                    given.setdefault(index, []).append(score)
            for index, of_forms in given.items():
                scores[index].append(replace(_worst(of_forms), asked=asked[index]))
            alive = [i for i in alive if fully or self._combined(scores[i], unasked[i]).veto is None]
        return [self._combined(*pair) for pair in zip(scores, unasked, strict=True)]

    def _combined(self, scores: Sequence[Score], unasked: Sequence[Unasked]) -> Judgement:
        return combine(scores, self.rules, unasked)

    @staticmethod
    def why_asked(
        judge: Judge, passage: Passage, scores: Sequence[Score], place: Place | None
    ) -> AskedWhy | Unasked | None:
        """Why a judge is asked about a passage, or that it is not because another one is sure.

        None for a judge that is always asked, or is not asked at this segment at all.

        Args:
            scores: of the passage, from judges that come earlier.
            place: of the passage; None asks every judge.
        """
        doubt = judge.rule.doubt
        if doubt is None or place is None or judge.view(passage) is None:
            return None
        value = next((score.value for score in scores if score.judge == doubt.when), None)
        return doubt.of(judge.rule.judge, value, u=place.share(judge.rule.judge), whole=passage.whole)

    async def forget(self, call_id: str) -> None:
        """Tell the scorers that a call is over."""
        for judge in self.judges:
            await judge.scorer.forget(call_id)

    async def aclose(self) -> None:
        """Free the scorers that were loaded for this cascade. One that others use too goes with the last of them.

        Does nothing the second time.
        """
        await self._opened.aclose()


def _in_order(judges: Sequence[Judge]) -> list[Judge]:
    """Cheap judges first, and each one after the judge on whose doubt it depends."""
    by_name = {judge.rule.judge: judge for judge in judges}
    for judge in judges:
        if (doubt := judge.rule.doubt) is None:
            continue
        other = by_name.get(doubt.when)
        if other is None or other.rule.doubt is not None:
            problem = "there is no such judge" if other is None else "it is not always asked itself"
            raise PolicyError(f"judge {judge.rule.judge!r} is asked when {doubt.when!r} is in doubt, and {problem}")

    def cost(judge: Judge) -> tuple[float, bool, bool]:
        doubt = judge.rule.doubt
        own = judge.scorer.cost
        least = own if doubt is None else max(own, by_name[doubt.when].scorer.cost)
        return least, doubt is not None, judge.rule.reject_above is None

    return sorted(judges, key=cost)


async def _scores(judge: Judge, passages: Sequence[Passage]) -> list[Score]:
    batcher, name, began = batcher_of(judge.scorer), judge.rule.judge, time.perf_counter()
    if batcher.breaker.is_open:
        return [Score(judge=name, value=None, error="left alone after failures in a row") for _ in passages]
    try:
        async with asyncio.timeout(judge.timeout):
            ratings, size = await batcher.score(passages)
    except Exception as exc:
        # what is wrong with one caller's text says nothing about the judge
        if not _is_about_the_input(exc):
            batcher.breaker.failed({passage.call_id for passage in passages})
        seconds = time.perf_counter() - began
        # The exception's text may hold user text; its kind does not.
        return [Score(judge=name, value=None, error=type(exc).__name__, seconds=seconds) for _ in passages]
    # Scores that are no finite numbers came in time, and other passages may well have good ones. So they are errors of
    # their passages and not an outage, from which the breaker saves the waiting.
    batcher.breaker.succeeded()
    seconds = time.perf_counter() - began
    return [_score(name, rating, seconds, size) for rating in ratings]


def _worst(scores: Sequence[Score]) -> Score:
    """The score of the form that is most likely to be vetoed. One that failed counts most."""
    return max(scores, key=lambda score: math.inf if score.value is None else score.value)


def _is_about_the_input(exc: Exception) -> bool:
    kinds = (ScorerInputError, InputError)
    return exc.split(kinds)[1] is None if isinstance(exc, ExceptionGroup) else isinstance(exc, kinds)


def _score(name: str, rating: Rating, seconds: float, size: int) -> Score:
    if not math.isfinite(rating.value):
        error = "the score is not a finite number"
        return Score(judge=name, value=None, error=error, seconds=seconds, batch=size)
    detail = rating.detail and concealed(rating.detail)
    return Score(judge=name, value=rating.value, detail=detail, seconds=seconds, batch=size, cached=rating.cached)
