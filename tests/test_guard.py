"""The guard on a scripted backend: what is released, what is recorded, what happens when something fails."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from conftest import USER, guard, policy, rewarding, sentiment, settled, vetoing, words
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from langchain_stars import ChatStars
from stars_guard.audit import CallRecord, MemoryStore
from stars_guard.auditing.verification import redo
from stars_guard.backends.base import OpenRequest, Proposal, Session
from stars_guard.core.events import Decision, Drawing, Finished, Kept, Released
from stars_guard.core.judging import Rule
from stars_guard.core.messages import Message
from stars_guard.errors import (
    BackendError,
    BudgetExhausted,
    ContextTooLong,
    InputError,
    PolicyError,
    ScorerError,
)
from stars_guard.guard import CallOptions, Guard
from stars_guard.scorers import Judge
from stars_guard.testing import FunctionScorer
from stars_guard.testing.scripted import ScriptedBackend


def records(of: Guard) -> list[CallRecord]:
    assert isinstance(of.audit, MemoryStore)
    return of.audit.records


async def test_what_is_streamed_is_what_is_answered_and_what_is_recorded() -> None:
    made = guard()
    for seed in range(5):
        options = CallOptions(seed=seed)
        events = [event async for event in made.stream(USER, options)]
        released = "".join(event.text for event in events if isinstance(event, Released))
        done = await made.generate(USER, options)
        blocking = made.blocking.generate(USER, options)
        assert released == done.text == blocking.text != ""
        assert "awful" not in released
        assert isinstance(events[-1], Finished)
        record = records(made)[-1]
        assert (record.answer.text, record.call_id, record.seed) == (released, blocking.call_id, seed)
        assert record.policy_sha256 == made.policy.sha256
        assert record.totals["kept"] == 24
        kept = [segment.attempts[segment.kept or 0] for segment in record.segments]
        assert "".join(attempt.text.text or "" for attempt in kept) == released


async def test_nothing_is_released_before_it_is_kept() -> None:
    kept: set[int] = set()
    async for event in guard().stream(USER, CallOptions(seed=3)):
        if isinstance(event, Kept):
            kept.add(event.segment)
        if isinstance(event, Released):
            assert event.segment in kept


@pytest.mark.parametrize("chunk", [1, 3, 5])
@pytest.mark.parametrize("optimistic", [True, False])
async def test_totals_add_up_and_budgets_hold(chunk: int, optimistic: bool) -> None:
    for budget in (None, 20, 60):
        backend = ScriptedBackend(words(), chunk=chunk)
        made = guard(backend=backend, optimistic=optimistic, budget_tokens=budget, parallel=2)
        for _ in range(10):
            totals = (await made.generate(USER)).totals
            assert totals.drawn == totals.kept + totals.rejected + totals.surplus + totals.overrun
            assert budget is None or totals.drawn <= budget
            record = records(made)[-1]
            assert sum(a.overrun for s in record.segments for a in s.attempts) == totals.overrun
            assert sum(a.tokens for s in record.segments for a in s.attempts) == totals.drawn - totals.overrun
            assert chunk > 1 or totals.overrun == 0 or (optimistic and budget is None)
        assert backend.sessions == 0


@pytest.mark.parametrize("optimistic", [True, False])
@pytest.mark.parametrize("width", [1, 2, 3])
async def test_law_of_two_segments_with_drawing_ahead(optimistic: bool, width: int) -> None:
    """Accepting by a reward of the segment alone, each segment has the closed-form law, drawn ahead or not."""
    weights = {"good ": 0.0, "fine ": 0.0, "bad ": -1.0, "awful ": -2.0}
    made = Guard(
        policy(
            segment_tokens=1,
            max_tokens=2,
            attempts=4,
            r_star=0.0,
            beta=1.0,
            schedule="constant",
            parallel=width,
            optimistic=optimistic,
        ),
        model=ScriptedBackend(words(), chunk=2),
        judges=[rewarding(lambda p: weights.get(p.segment, 0.0))],
        audit=MemoryStore(),
    )
    made.audit.append = _forget  # type: ignore[method-assign]
    n, seen = 800, Counter()  # type: ignore[var-annotated]
    for _ in range(n):
        seen[(await made.generate(USER)).text] += 1
    accept = {word: math.exp(weight) for word, weight in weights.items()}
    z = sum(0.25 * a for a in accept.values())
    tilted = {w: 0.25 * a * (1 - (1 - z) ** 4) / z for w, a in accept.items()}
    # on_exhausted is best: the highest of four rejected proposals, which are "bad" unless all are "awful"
    rejected = {w: 0.25 * (1 - a) for w, a in accept.items()}
    only_awful = rejected["awful "] ** 4
    tilted["awful "] += only_awful
    tilted["bad "] += (1 - z) ** 4 - only_awful
    law = {a + b: tilted[a] * tilted[b] for a in weights for b in weights}
    statistic = sum((seen[pair] - n * p) ** 2 / (n * p) for pair, p in law.items())
    assert statistic < chi2.ppf(0.999, df=len(law) - 1)


@pytest.mark.parametrize(("row_cost", "width", "expected"), [(0.1, 1, True), (0.1, 4, False), (0.01, 4, True)])
async def test_rows_are_drawn_ahead_beside_each_other_only_where_they_cost_little(
    row_cost: float, width: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = ScriptedBackend(words())
    backend.row_cost = row_cost
    asked: list[int] = []
    session = type(await backend.open(OpenRequest(messages=USER)))
    propose = session.propose

    async def watched(self: Session, seeds: Sequence[int], limit: int, *, ahead: int = 0) -> list[Proposal]:
        asked.append(ahead)
        return await propose(self, seeds, limit, ahead=ahead)

    monkeypatch.setattr(session, "propose", watched)
    await guard(backend=backend, parallel=width).generate(USER)
    assert (asked[0] > 0) is expected


async def _forget(record: CallRecord) -> None:
    pass


@settings(max_examples=40, deadline=None)
@given(
    text=st.text("abS TOP", min_size=1, max_size=30),
    stops=st.lists(st.text("STOP ab", min_size=1, max_size=4), min_size=1, max_size=3),
    size=st.integers(1, 4),
    chunk=st.integers(1, 3),
)
def test_stop_strings_cut_as_if_the_text_were_one(text: str, stops: list[str], size: int, chunk: int) -> None:
    backend = ScriptedBackend(lambda m, prefix, r: text[len(prefix)] if len(prefix) < len(text) else None, chunk=chunk)
    made = guard(rewarding(lambda p: 9.0), backend=backend, segment_tokens=size, max_tokens=100)
    events = list(made.blocking.stream(USER, CallOptions(stop=tuple(stops), seed=1)))
    released = "".join(e.text for e in events if isinstance(e, Released))
    hits = [at for stop in stops if (at := text.find(stop)) >= 0]
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    if hits:
        # the stop string that is complete first ends the answer; of several at once, the one that begins first
        first_end = min(ends)
        expected = text[: min(text.find(stop) for stop in stops if stop in text[:first_end])]
        assert released == expected
    else:
        assert released == text
    assert events[-1].finish == ("stop" if hits else "eos")  # type: ignore[union-attr]
    assert all(e.text for e in events if isinstance(e, Released))


@pytest.mark.parametrize(("action", "finish"), [("refuse", "refused"), ("stop", "stopped"), ("best", "refused")])
async def test_when_everything_is_vetoed(action: str, finish: str) -> None:
    made = guard(rewarding(), vetoing(" "), on_exhausted=action)
    done = await made.generate(USER)
    assert (done.finish, done.text) == (finish, "")
    assert "6 attempts" in done.reason
    assert "words" in done.reason
    record = records(made)[0]
    assert record.finish == finish
    assert len(record.segments[0].attempts) == 6
    assert all(attempt.verdict == "rejected" for attempt in record.segments[0].attempts)


async def test_raise_names_the_audit_record() -> None:
    made = guard(vetoing(" "), on_exhausted="raise")
    with pytest.raises(BudgetExhausted) as caught:
        await made.generate(USER)
    assert caught.value.audit_id == records(made)[0].call_id
    assert records(made)[0].finish == "raised"
    with pytest.raises(BudgetExhausted):
        list(made.blocking.stream(USER))


@pytest.mark.parametrize("method", ["stars", "cards", "best_of_n", "blockwise_best_of_k"])
@pytest.mark.parametrize("on_exhausted", ["best", "refuse", "stop", "raise"])
@pytest.mark.parametrize("budget", [None, 25])
async def test_monitor_lets_through_what_every_judge_vetoes(method: str, on_exhausted: str, budget: int | None) -> None:
    made = guard(
        rewarding(lambda passage: float(len(passage.answer))),
        Judge(Rule(judge="no", reject_above=0.5), FunctionScorer(lambda passage: 1.0, cost=2.0)),
        mode="monitor",
        method=method,
        attempts=3,
        max_tokens=10,
        on_exhausted=on_exhausted,
        budget_tokens=budget,
    )
    done = await made.generate(USER, CallOptions(seed=5))
    (record,) = records(made)
    assert done.finish in ("eos", "length", "budget")
    assert done.text
    assert {segment.how for segment in record.segments} == {"monitored"}
    assert all(attempt.verdict == "rejected" for segment in record.segments for attempt in segment.attempts)
    if method in ("best_of_n", "blockwise_best_of_k"):
        for segment in record.segments:
            rewards = [attempt.reward for attempt in segment.attempts]
            assert segment.kept == rewards.index(max(rewards))
    assert redo(record) is None
    # another candidate than that of the highest reward does not follow from the record
    data = record.model_dump()
    data["segments"][0]["how"] = "best"
    assert redo(CallRecord.model_validate(data)) is not None


@pytest.mark.parametrize(("stop", "text"), [(("",), "1 of 1 is empty"), (("a", ""), "2 of 2 is empty")])
def test_an_empty_stop_string_is_named_by_every_door(stop: tuple[str, ...], text: str) -> None:
    with pytest.raises(InputError, match=text):
        CallOptions(stop=stop)
    with pytest.raises(InputError, match=text):
        ChatStars().invoke("hello", stop=list(stop))
    with pytest.raises(InputError, match="sequence of strings"):
        CallOptions(stop="ab")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="1 of 1 is not a string but int"):
        CallOptions(stop=(5,))  # type: ignore[arg-type]


async def test_monitor_and_off_let_everything_through() -> None:
    monitor, off = guard(mode="monitor"), guard(mode="off")
    answers = [(await made.generate(USER, CallOptions(seed=5))).text for made in (monitor, off)]
    assert answers[0] == answers[1]
    verdicts = [a.verdict for s in records(monitor)[0].segments for a in s.attempts]
    assert "rejected" in verdicts
    assert {s.how for s in records(monitor)[0].segments} <= {"monitored", "accepted"}
    assert all(not a.scores for s in records(off)[0].segments for a in s.attempts)


async def test_a_cancelled_stream_leaves_a_record_and_a_usable_guard() -> None:
    backend = ScriptedBackend(words())
    made = guard(backend=backend)
    stream = made.stream(USER, CallOptions(seed=1))
    async for event in stream:
        if isinstance(event, Released):
            first = event.text
            break
    await stream.aclose()
    assert records(made)[0].finish == "cancelled"
    assert records(made)[0].answer.text == first
    for event in made.blocking.stream(USER):
        if isinstance(event, Drawing):
            break
    del event
    assert settled(lambda: len(records(made)) == 2 and backend.sessions == 0)
    assert (await made.generate(USER, CallOptions(seed=1))).finish == "length"


async def test_a_cancelled_task_leaves_a_record() -> None:
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(passage: Any) -> float:
        loop.call_soon_threadsafe(started.set)
        return -5.0

    backend = ScriptedBackend(words())
    made = guard(rewarding(slow), backend=backend, attempts=1000, on_exhausted="refuse")
    task = asyncio.create_task(made.generate(USER))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert settled(lambda: len(records(made)) == 1 and backend.sessions == 0)
    assert records(made)[0].finish == "cancelled"


async def test_bad_input_is_named_recorded_and_forgotten() -> None:
    backend = ScriptedBackend(words(), context=50)
    made = guard(backend=backend)
    wrong: list[tuple[type[Exception], list[Message]]] = [
        (InputError, []),
        (ContextTooLong, [Message("user", "word " * 60)]),
    ]
    for error, messages in wrong:
        with pytest.raises(error) as caught:
            await made.generate(messages)
        assert records(made)[-1].finish == "failed"
        assert records(made)[-1].error == type(caught.value).__name__
        assert "word" not in str(caught.value).replace("words", "")
    assert (await made.generate(USER, CallOptions(seed=1))).finish == "length"
    assert backend.sessions == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, None])
async def test_a_judge_that_fails_closes(bad: float | None) -> None:
    def broken(passage: Any) -> float:
        if bad is None:
            raise RuntimeError("secret text")
        return bad

    refused = guard(rewarding(broken))
    done = await refused.generate(USER)
    assert (done.finish, done.text) == ("refused", "")
    attempt = records(refused)[0].segments[0].attempts[0]
    assert attempt.scores[0].value is None
    assert "secret" not in records(refused)[0].model_dump_json()
    ignored = guard(rewarding(broken, on_error="ignore"))
    assert (await ignored.generate(USER)).finish == "length"
    raising = guard(rewarding(broken, on_error="raise"))
    with pytest.raises(ScorerError) as caught:
        await raising.generate(USER)
    assert "secret" not in str(caught.value)
    assert records(raising)[0].finish == "failed"


async def test_a_backend_that_fails_is_recorded() -> None:
    def script(messages: Any, prefix: tuple[str, ...], rng: Any) -> str:
        if len(prefix) == 5:
            raise BackendError("the engine is gone")
        return "good "

    made = guard(backend=ScriptedBackend(script))
    with pytest.raises(BackendError):
        await made.generate(USER)
    record = records(made)[0]
    assert (record.finish, record.error, record.answer.text) == ("failed", "BackendError", "good " * 4)


async def test_batch_keeps_order_and_seeds() -> None:
    made = guard()
    prompts = [[Message("user", f"number {i}")] for i in range(20)]
    answers = await made.batch(prompts, CallOptions(seed=10), concurrency=7)
    assert [a.seed for a in answers] == list(range(10, 30))
    alone = await made.generate(prompts[4], CallOptions(seed=14))
    assert alone.text == answers[4].text
    assert [a.text for a in made.blocking.batch(prompts[:3], CallOptions(seed=10))] == [a.text for a in answers[:3]]
    by_id = {record.call_id: record for record in records(made)}
    assert all(by_id[a.call_id].prompt[0].content.text == f"number {i}" for i, a in enumerate(answers))


async def test_judges_of_all_calls_share_a_batch() -> None:
    judge = rewarding()
    made = guard(judge, parallel=1)
    await asyncio.to_thread(made.blocking.batch, [USER] * 16)
    batches = judge.scorer.batches  # type: ignore[attr-defined]
    assert max(batches) >= 8
    assert sum(batches) >= 16 * 12


async def test_a_decision_can_be_done_again_from_the_record() -> None:
    made = guard()
    await made.generate(USER, CallOptions(seed=2))
    for segment in records(made)[0].segments:
        for attempt in segment.attempts:
            if attempt.verdict == "surplus":
                continue
            assert attempt.u is not None
            assert attempt.probability is not None
            assert (attempt.u < attempt.probability) == (attempt.verdict == "accepted")


async def test_baselines_run_on_the_same_guard() -> None:
    rewards = {}
    for method in ("vanilla", "best_of_n", "blockwise_best_of_k", "stars"):
        made = guard(rewarding(lambda p: -float(p.answer.count("bad"))), method=method)
        answers = await made.batch([USER] * 20, CallOptions(seed=1))
        rewards[method] = sum(-a.text.count("bad") for a in answers)
        assert all(a.totals.kept == 24 for a in answers)
    assert rewards["vanilla"] < rewards["best_of_n"] < rewards["blockwise_best_of_k"]
    assert rewards["vanilla"] < rewards["stars"]


def test_a_wrong_policy_or_backend_is_named() -> None:
    with pytest.raises(PolicyError, match="did you mean"):
        Guard("defaul")
    with pytest.raises(InputError, match="transformers"):
        Guard("default", backend="trasformers", audit="memory://").blocking.generate(USER)


def test_reprs_hold_no_text() -> None:
    made = guard(rewarding(sentiment))
    events = list(made.blocking.stream([Message("user", "my secret")]))
    shown = repr([e for e in events if not isinstance(e, Decision)]) + repr(Message("user", "my secret"))
    assert "secret" not in shown
    assert "good" not in shown
