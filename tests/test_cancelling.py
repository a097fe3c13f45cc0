"""Cancelling is normal: a call that is left at any moment, by any door, ends as cancelled, frees its engine and is on
record, whatever the store."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import USER, policy, settled, words
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from postgres import Postgres, postgres

from stars_guard.audit import AuditStore, CallRecord, MemoryStore
from stars_guard.audit.urls import open_store
from stars_guard.backends.base import Proposal, Session
from stars_guard.calling import portal
from stars_guard.core.events import Finished
from stars_guard.core.judging import Rule
from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.guard import Guard
from stars_guard.scorers import Judge
from stars_guard.scorers.base import Rating, Scorer
from stars_guard.testing import ScriptedBackend

__all__ = ["postgres"]

STORES = ("memory", "jsonl", "sqlite", "postgresql")
DOORS = ("generate", "stream", "batch", "check")
MOMENTS = ("opening", "generating", "judging", "writing")


class Gate:
    """A place in a call at which it waits until it is cancelled. It works once, and counts who came by."""

    def __init__(self, moment: str) -> None:
        self.moment = moment
        self.reached = threading.Event()
        self.freed = threading.Event()
        self.passed = 0
        self.on_reaching: Callable[[], object] = lambda: None

    async def here(self, moment: str) -> None:
        if moment != self.moment or self.freed.is_set():
            self.passed += moment == "judging"
            return
        self.freed.set()
        self.reached.set()
        self.on_reaching()
        await asyncio.sleep(3600)


class Backend(ScriptedBackend):
    def __init__(self, gate: Gate) -> None:
        super().__init__(words())
        self._gate = gate

    async def open(self, *args: Any, **kwargs: Any) -> Session:
        await self._gate.here("opening")
        session = await super().open(*args, **kwargs)
        propose, gate = session.propose, self._gate

        async def gated(seeds: Sequence[int], limit: int, *, ahead: int = 0) -> list[Proposal]:
            await gate.here("generating")
            return await propose(seeds, limit, ahead=ahead)

        session.propose = gated  # type: ignore[method-assign]
        return session


class GatedScorer(Scorer):
    def __init__(self, gate: Gate) -> None:
        self.identity = {"kind": "gated"}
        self._gate = gate

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        await self._gate.here("judging")
        return [Rating(1.0) for _ in passages]


class SlowStore(AuditStore):
    """Writes to another store, but only some time after it was asked to."""

    def __init__(self, inner: AuditStore, gate: Gate) -> None:
        self.inner, self._gate = inner, gate

    async def append(self, record: CallRecord) -> None:
        if self._gate.moment == "writing" and not self._gate.reached.is_set():
            self._gate.reached.set()
            self._gate.on_reaching()
            await asyncio.sleep(0.05)
        await self.inner.append(record)

    def read(self) -> list[CallRecord]:
        return self.inner.read()

    async def aclose(self) -> None:
        await self.inner.aclose()


RAILS = {"input": {"judges": [{"name": "p", "type": "patterns", "patterns": [{"name": "p", "regex": "bomb"}]}]}}


class Case:
    """A guard that stops at a moment."""

    def __init__(self, moment: str, store: AuditStore) -> None:
        self.gate = Gate(moment)
        self.backend = Backend(self.gate)
        self.store = SlowStore(store, self.gate)
        scorer = GatedScorer(self.gate)
        judge = Judge(Rule(judge="one", weight=1.0), scorer)
        self.guard = Guard({**policy(), "rails": RAILS}, model=self.backend, judges=[judge], audit=self.store)
        # the judges of a stage come from the policy, so this one is put in the place of its judge
        self.guard._loaded._cascades["input"] = self.guard._loaded._judges  # type: ignore[assignment]

    async def run(self, door: str) -> object:
        match door:
            case "generate":
                return await self.guard.generate(USER)
            case "stream":
                return [event async for event in self.guard.stream(USER)]
            case "batch":
                return await self.guard.batch([USER])
            case "check":
                return await self.guard.check("input", "a text")
        raise AssertionError(door)

    def run_blocking(self, door: str) -> object:
        blocking = self.guard.blocking
        match door:
            case "generate":
                return blocking.generate(USER)
            case "stream":
                return list(blocking.stream(USER))
            case "batch":
                return blocking.batch([USER])
            case "check":
                return blocking.check("input", "a text")
        raise AssertionError(door)

    def ended_as_cancelled(self) -> None:
        """Exactly one record, and a free engine; and the guard serves the next call."""
        assert self.backend.sessions == 0
        assert self.backend.active_calls == 0
        finishes = [record.finish for record in self.store.read()]
        assert len(finishes) == 1
        # a record that is being written already says how the call had ended before it was cancelled
        assert (finishes[0] == "cancelled") is (self.gate.moment != "writing")
        assert self.guard.blocking.generate(USER).finish == "length"
        assert len(self.store.read()) == 2


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AuditStore]:
    match request.param:
        case "memory":
            made: AuditStore = MemoryStore()
        case "jsonl":
            made = open_store(f"jsonl://{tmp_path}/log.jsonl")
        case "sqlite":
            made = open_store(f"sqlite://{tmp_path}/log.db")
        case _:
            server: Postgres = request.getfixturevalue("postgres")
            made = open_store(server.database())
    yield made
    portal.call(made.aclose)


def moments(door: str) -> tuple[str, ...]:
    return ("judging", "writing") if door == "check" else MOMENTS


EVERY = [(door, moment) for door in DOORS for moment in moments(door)]


async def cancelled_when(case: Case, door: str) -> None:
    loop, reached = asyncio.get_running_loop(), asyncio.Event()
    case.gate.on_reaching = lambda: loop.call_soon_threadsafe(reached.set)
    task = asyncio.create_task(case.run(door))
    async with asyncio.timeout(60):
        await reached.wait()
    task.cancel("by the test")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


@pytest.mark.parametrize(("door", "moment"), EVERY)
def test_a_cancelled_task_of_another_loop(door: str, moment: str, store: AuditStore) -> None:
    case = Case(moment, store)
    asyncio.run(cancelled_when(case, door))
    case.ended_as_cancelled()


@pytest.mark.parametrize(("door", "moment"), EVERY)
def test_a_cancelled_task_of_the_loop_itself(door: str, moment: str, store: AuditStore) -> None:
    case = Case(moment, store)
    portal.call(lambda: cancelled_when(case, door))
    case.ended_as_cancelled()


@pytest.mark.parametrize(("door", "moment"), EVERY)
def test_an_interrupted_sync_caller(door: str, moment: str, store: AuditStore) -> None:
    """As Ctrl-C does it. No judge is asked afterwards."""
    case = Case(moment, store)
    main = threading.main_thread().ident
    assert main is not None
    case.gate.on_reaching = lambda: signal.pthread_kill(main, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        case.run_blocking(door)
    judged = case.gate.passed
    assert not settled(lambda: case.gate.passed > judged, 0.1)
    case.ended_as_cancelled()


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("how", ["asyncio.timeout", "anyio.fail_after", "anyio.move_on_after"])
async def test_a_timeout_ends_as_one(moment: str, how: str, store: AuditStore) -> None:
    case = Case(moment, store)
    if how == "anyio.move_on_after":
        with anyio.move_on_after(None) as scope:
            await timing_out(case, scope)
        assert scope.cancelled_caught
    else:
        with pytest.raises(TimeoutError):
            await timed_out(case, how)
    await asyncio.to_thread(case.ended_as_cancelled)


async def timed_out(case: Case, how: str) -> None:
    if how == "asyncio.timeout":
        async with asyncio.timeout(None) as timeout:
            await timing_out(case, timeout)
    else:
        with anyio.fail_after(None) as scope:
            await timing_out(case, scope)


async def timing_out(case: Case, limit: asyncio.Timeout | anyio.CancelScope) -> None:
    """The time is up when the moment has come."""
    loop = asyncio.get_running_loop()

    def up() -> None:
        if isinstance(limit, asyncio.Timeout):
            limit.reschedule(0)
        else:
            limit.deadline = 0

    case.gate.on_reaching = lambda: loop.call_soon_threadsafe(up)
    await case.run("stream")


async def first_of(case: Case) -> AsyncIterator[object]:
    async for event in case.guard.stream(USER):
        yield event


async def failing_at_once(case: Case) -> None:
    async for _ in case.guard.stream(USER):
        raise ZeroDivisionError


@pytest.mark.parametrize("how", ["closed", "dropped", "nested", "raised"])
async def test_a_stream_that_is_left_between_two_events(how: str, store: AuditStore) -> None:
    case = Case("never", store)
    match how:
        case "closed":
            stream = case.guard.stream(USER)
            await anext(stream)
            await stream.aclose()
        case "dropped":
            async for _ in case.guard.stream(USER):
                break
        case "nested":
            async for _ in first_of(case):
                break
        case "raised":
            with pytest.raises(ZeroDivisionError):
                await failing_at_once(case)
    gc.collect()
    while not case.store.read() or case.backend.sessions:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(case.ended_as_cancelled)


@pytest.mark.parametrize("how", ["closed", "dropped", "interrupted"])
def test_a_sync_stream_that_is_left_between_two_events(how: str, store: AuditStore) -> None:
    case = Case("never", store)
    if how == "interrupted":
        with pytest.raises(KeyboardInterrupt):
            interrupting(case)
    else:
        stream: Any = case.guard.blocking.stream(USER)
        next(stream)
        if how == "closed":
            stream.close()
        del stream
    gc.collect()
    case.ended_as_cancelled()


def interrupting(case: Case) -> None:
    for _ in case.guard.blocking.stream(USER):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_loop_that_ends_with_open_streams_frees_them() -> None:
    case = Case("never", MemoryStore())

    async def begin() -> object:
        stream = case.guard.stream(USER)
        await anext(stream)
        return stream

    kept = asyncio.run(begin())
    case.ended_as_cancelled()
    del kept


def test_cancelling_twice_is_cancelling_once() -> None:
    case = Case("writing", MemoryStore())

    async def run() -> None:
        loop, reached = asyncio.get_running_loop(), asyncio.Event()
        case.gate.on_reaching = lambda: loop.call_soon_threadsafe(reached.set)
        task = asyncio.create_task(case.run("stream"))
        await reached.wait()
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    case.ended_as_cancelled()


def test_the_next_step_begins_only_when_the_next_event_is_wanted() -> None:
    case = Case("never", MemoryStore())
    stream: Any = case.guard.blocking.stream(USER)
    next(stream)  # candidates are about to be generated
    judged = case.gate.passed
    assert not settled(lambda: case.gate.passed > judged, 0.1)
    next(stream)
    assert case.gate.passed == judged + 1
    stream.close()


@hypothesis_settings(max_examples=60, deadline=None)
@given(door=st.sampled_from(DOORS), steps=st.integers(0, 120), inside=st.booleans(), again=st.booleans())
def test_after_a_cancellation_at_any_moment_the_guard_serves_the_next_call(
    door: str, steps: int, inside: bool, again: bool
) -> None:
    """A moment is a number of turns of the background loop."""
    case = Case("never", MemoryStore())

    async def turns() -> None:
        for _ in range(steps):
            await asyncio.sleep(0)

    async def run() -> str:
        task = asyncio.create_task(case.run(door))
        await portal.acall(turns)
        task.cancel()
        if again:
            await asyncio.sleep(0)
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return "cancelled"
        return "done"

    outcome = portal.call(run) if inside else asyncio.run(run())
    assert case.backend.sessions == case.backend.active_calls == 0
    finishes = [record.finish for record in case.store.read()]
    # a call that never began has no record, and one that had ended before has its own finish
    assert len(finishes) <= 1
    assert outcome == "cancelled" or finishes in (["length"], ["passed"])
    assert case.guard.blocking.generate(USER).finish == "length"


async def test_one_failure_of_a_batch_cancels_the_others() -> None:
    case = Case("judging", MemoryStore())
    with pytest.raises(Exception, match="no messages"):
        await case.guard.batch([USER, []])
    assert {record.finish for record in case.store.read()} == {"cancelled", "failed"}
    assert case.backend.sessions == 0


async def test_a_store_that_fails_does_not_hide_the_cancellation() -> None:
    class Broken(MemoryStore):
        async def append(self, record: CallRecord) -> None:
            raise OSError("the disk is full")

    case = Case("judging", Broken())
    await cancelled_when(case, "stream")
    assert case.backend.sessions == 0
    with pytest.raises(OSError, match="disk"):
        await case.guard.generate(USER)


def test_the_last_event_is_the_end() -> None:
    case = Case("never", MemoryStore())
    assert isinstance(list(case.guard.blocking.stream([Message(role="user", content="x")]))[-1], Finished)
