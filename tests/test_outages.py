"""A judge that hangs, fails or is given a text that it cannot take: who is touched, and for how long."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx
import pytest
from conftest import USER, policy, settled, words
from hypothesis import given, settings
from hypothesis import strategies as st

from stars_guard.audit import MemoryStore
from stars_guard.calling import portal
from stars_guard.core.events import Finished
from stars_guard.core.judging import Rule
from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.errors import ContextTooLong, InputError, ScorerError, ScorerInputError
from stars_guard.guard import Guard
from stars_guard.scorers import Judge
from stars_guard.scorers import _batching as batching
from stars_guard.scorers._batching import batcher_of
from stars_guard.scorers._breaker import Breaker
from stars_guard.scorers.base import Rating, Scorer
from stars_guard.scorers.cascade import Cascade
from stars_guard.scorers.http import HttpScorer
from stars_guard.scorers.python import PythonScorer
from stars_guard.testing import ScriptedBackend

LONG = Message(role="user", content="word " * 200)


class Answering(Scorer):
    """Does what a function says with each batch, and remembers the batches."""

    def __init__(self, function: Callable[[Sequence[Passage]], Awaitable[Sequence[Rating]]]) -> None:
        self.identity = {"kind": "answering"}
        self.batches: list[list[str]] = []
        self.running = self.most = 0
        self._function = function

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        self.batches.append([passage.segment for passage in passages])
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await self._function(passages)
        finally:
            self.running -= 1


def passage(text: str, call: str = "") -> Passage:
    return Passage(call_id=call or text, messages=tuple(USER), accepted="", segment=text)


def cascade(scorer: Scorer, timeout: float | None = None) -> Cascade:
    return Cascade([Judge(Rule(judge="one", weight=1.0), scorer, timeout=timeout)])


async def hanging(passages: Sequence[Passage]) -> Sequence[Rating]:
    if any("hang" in passage.segment for passage in passages):
        await asyncio.sleep(3600)
    return [Rating(1.0) for _ in passages]


async def verdict(asked: Cascade, text: str) -> str | None:
    (judgement,) = await asked.judge([passage(text)])
    return judgement.scores[0].error


async def test_a_batch_that_nobody_waits_for_is_cancelled() -> None:
    scorer = Answering(hanging)
    impatient, patient = cascade(scorer, 0.02), cascade(scorer)
    assert await verdict(impatient, "hang") == "TimeoutError"
    assert await verdict(patient, "fine") is None
    assert scorer.running == 0
    assert scorer.most == 1


async def test_a_batch_lives_as_long_as_the_most_patient_caller() -> None:
    release = asyncio.Event()

    async def held(passages: Sequence[Passage]) -> Sequence[Rating]:
        if len(scorer.batches) == 2:
            await release.wait()
        return [Rating(1.0) for _ in passages]

    scorer = Answering(held)
    first = asyncio.create_task(verdict(cascade(scorer), "first"))
    await asyncio.sleep(0)
    # both come while the first batch is asked for, and go together as the second
    impatient = asyncio.create_task(verdict(cascade(scorer, 0.02), "impatient"))
    patient = asyncio.create_task(verdict(cascade(scorer), "patient"))
    assert await first is None
    assert await impatient == "TimeoutError"
    release.set()
    assert await patient is None
    assert scorer.batches == [["first"], ["impatient", "patient"]]


async def test_passages_of_callers_that_have_gone_are_not_judged() -> None:
    scorer = Answering(hanging)
    hung = asyncio.create_task(verdict(cascade(scorer), "hang"))
    await asyncio.sleep(0)
    gone = asyncio.create_task(verdict(cascade(scorer), "gone"))
    await asyncio.sleep(0)
    stays = asyncio.create_task(verdict(cascade(scorer), "stays"))
    await asyncio.sleep(0)
    gone.cancel()
    hung.cancel()
    assert await stays is None
    assert scorer.batches == [["hang"], ["stays"]]


async def test_callers_that_go_while_others_fail_are_not_judged_alone() -> None:
    async def failing(passages: Sequence[Passage]) -> Sequence[Rating]:
        if len(passages) > 1:
            gone.cancel()
            await asyncio.sleep(0)
            raise ValueError
        return [Rating(1.0) for _ in passages]

    scorer = Answering(failing)
    first = asyncio.create_task(verdict(cascade(scorer), "first"))
    await asyncio.sleep(0)
    gone = asyncio.create_task(verdict(cascade(scorer), "gone"))
    stays = asyncio.create_task(verdict(cascade(scorer), "stays"))
    assert [await first, await stays] == [None, None]
    assert scorer.batches == [["first"], ["gone", "stays"], ["stays"]]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, ValueError])
async def test_whatever_a_scorer_raises_fails_its_own_call_only(error: type[BaseException]) -> None:
    async def raising(passages: Sequence[Passage]) -> Sequence[Rating]:
        if any("bad" in passage.segment for passage in passages):
            raise error
        return [Rating(1.0) for _ in passages]

    asked = cascade(Answering(raising))
    bad, good = await asyncio.gather(verdict(asked, "bad"), verdict(asked, "good"))
    assert bad is not None
    assert good is None
    assert await verdict(asked, "good again") is None


async def test_a_scorer_that_does_not_heed_its_cancellation_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "PATIENCE", 0.01)
    release = asyncio.Event()

    async def stubborn(passages: Sequence[Passage]) -> Sequence[Rating]:
        while "hang" in passages[0].segment and not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return [Rating(1.0) for _ in passages]

    scorer = Answering(stubborn)
    assert await verdict(cascade(scorer, 0.02), "hang") == "TimeoutError"
    assert await verdict(cascade(scorer), "fine") is None
    assert scorer.running == 1
    release.set()
    while scorer.running or batcher_of(scorer)._left_behind:
        await asyncio.sleep(0)


async def test_a_function_that_never_comes_back_does_not_take_the_judge_with_it() -> None:
    """More often than a thread pool has threads."""
    release = threading.Event()

    def function(given: Passage) -> float:
        if "hang" in given.segment:
            release.wait()
        return 1.0

    scorer = PythonScorer("module:function", function)
    before = threading.active_count()
    for number in range(50):
        batcher_of(scorer).breaker.succeeded()
        assert await verdict(cascade(scorer, 0.001), f"hang {number}") == "TimeoutError"
    assert await verdict(cascade(scorer), "fine") is None
    assert await asyncio.to_thread(lambda: True)
    release.set()
    assert settled(lambda: threading.active_count() <= before + 2)


async def test_after_a_hung_judge_the_same_guard_serves_the_next_call() -> None:
    hung = True

    async def once(passages: Sequence[Passage]) -> Sequence[Rating]:
        if hung:
            await asyncio.sleep(3600)
        return [Rating(1.0) for _ in passages]

    judge = Judge(Rule(judge="one", weight=1.0, reject_above=9.0), Answering(once), timeout=0.02)
    made = Guard(policy(attempts=2), model=ScriptedBackend(words()), judges=[judge], audit=MemoryStore())
    assert (await made.generate(USER)).finish == "refused"
    hung = False
    assert (await made.generate(USER)).finish == "length"


INPUT_ERRORS = [ScorerInputError, InputError, ContextTooLong]


@pytest.mark.parametrize("kind", INPUT_ERRORS)
@pytest.mark.parametrize("grouped", [False, True])
async def test_texts_that_a_judge_cannot_take_touch_their_own_calls_only(kind: type[Exception], grouped: bool) -> None:
    async def reading(passages: Sequence[Passage]) -> Sequence[Rating]:
        if any(LONG in passage.messages for passage in passages):
            error = kind("the text is too long")
            raise ExceptionGroup("passages", [error]) if grouped else error
        return [Rating(1.0) for _ in passages]

    judge = Judge(Rule(judge="one", reject_above=2.0), Answering(reading))
    made = Guard(policy(attempts=8), model=ScriptedBackend(words()), judges=[judge], audit=MemoryStore())
    for _ in range(6):
        assert (await made.generate([LONG])).finish == "refused"
    assert (await made.generate(USER)).finish == "length"


async def test_one_call_alone_opens_no_breaker_and_five_do() -> None:
    down = True

    async def failing(passages: Sequence[Passage]) -> Sequence[Rating]:
        if down:
            raise ScorerError("the service is down")
        return [Rating(1.0) for _ in passages]

    judge = Judge(Rule(judge="one", reject_above=2.0), Answering(failing))

    def answered() -> Awaitable[Finished]:
        made = Guard(
            policy(attempts=8, on_exhausted="refuse"),
            model=ScriptedBackend(words()),
            judges=[judge],
            audit=MemoryStore(),
        )
        return made.generate(USER)

    for _ in range(4):
        assert (await answered()).finish == "refused"
    down = False
    assert (await answered()).finish == "length"
    down = True
    for _ in range(5):
        await answered()
    down = False
    assert (await answered()).finish == "refused"


@given(st.lists(st.tuples(st.sampled_from(["fails", "input", "nan", "succeeds"]), st.integers(0, 8)), max_size=40))
@settings(deadline=None)
def test_the_breaker_counts_calls_that_failed_in_a_row(history: list[tuple[str, int]]) -> None:
    """Whatever the history: open where five different calls have failed since the last answer, and nowhere else."""
    what = ""

    async def acting(passages: Sequence[Passage]) -> Sequence[Rating]:
        if what == "fails":
            raise ScorerError("down")
        if what == "input":
            raise ScorerInputError("too long")
        return [Rating(math.nan if what == "nan" else 1.0) for _ in passages]

    async def play() -> None:
        nonlocal what
        scorer = Answering(acting)
        asked = cascade(scorer)
        failed: set[int] = set()
        for what, call in history:
            opened = len(failed) >= 5
            (judgement,) = await asked.judge([passage("x", str(call))])
            assert (judgement.scores[0].error == "left alone after failures in a row") is opened
            if opened:
                continue
            if what == "fails":
                failed.add(call)
            elif what != "input":
                failed.clear()
        assert batcher_of(scorer).breaker.is_open is (len(failed) >= 5)

    portal.call(play)


def test_a_breaker_that_has_rested_closes_by_one_success_and_opens_by_one_failure() -> None:
    breaker = Breaker(failures=2, rest=0.0)
    breaker.failed({"a"})
    breaker.failed({"b"})
    assert not breaker.is_open
    breaker._rest = 60.0
    breaker.failed({"b"})
    assert breaker.is_open
    rested = Breaker(failures=2, rest=0.0)
    rested.failed({"a", "b"})
    rested.succeeded()
    rested._rest = 60.0
    rested.failed({"a"})
    assert not rested.is_open


@pytest.mark.parametrize(
    ("status", "kind"), [(400, ScorerInputError), (413, ScorerInputError), (422, ScorerInputError)]
)
async def test_what_a_service_says_of_one_request_is_about_the_input(status: int, kind: type[Exception]) -> None:
    scorer = HttpScorer(url="http://127.0.0.1:1/", body={}, score="score", retries=0)
    scorer._client = httpx.AsyncClient(transport=httpx.MockTransport(lambda request: httpx.Response(status)))
    with pytest.raises(kind):
        await scorer._send("{}")
    await scorer.aclose()
    refusing = HttpScorer(url="http://127.0.0.1:1/", body={}, score="score", retries=0)
    refusing._client = httpx.AsyncClient(transport=httpx.MockTransport(lambda request: httpx.Response(401)))
    with pytest.raises(ScorerError) as caught:
        await refusing._send("{}")
    assert not isinstance(caught.value, ScorerInputError)
    await refusing.aclose()


def embedded_judge(**more: Any) -> dict[str, Any]:
    return {
        "name": "guard",
        "type": "guard_model",
        "model": "embedded",
        "template": "Q: {{ prompt }}\nA: {{ answer }}\nBad?",
        "harmful": [" yes"],
        "safe": [" no"],
        "reject_above": 0.9999,
        "max_length": 64,
        "max_windows": 1,
        **more,
    }


@pytest.mark.parametrize("door", ["generate", "check"])
def test_a_prompt_too_long_for_a_guard_model_leaves_the_others_alone(door: str) -> None:
    """With the real model: six calls of one user, and then one of another."""
    judges = [embedded_judge()] if door == "generate" else []
    declared = {
        **policy(segment_tokens=4, attempts=8, on_exhausted="refuse", parallel=1),
        "judges": judges,
        "rails": {} if door == "generate" else {"input": {"judges": [embedded_judge(template="Bad? {{ answer }}\n")]}},
    }
    made = Guard(declared, model=ScriptedBackend(words(4)), audit=MemoryStore())
    with made.blocking as blocking:
        if door == "generate":
            for _ in range(6):
                assert blocking.generate([LONG]).finish == "refused"
            assert blocking.generate(USER).finish == "eos"
        else:
            for _ in range(6):
                assert not blocking.check("input", LONG.content).allowed
            assert blocking.check("input", "Name a colour.").allowed
