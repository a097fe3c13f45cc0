"""Every way to leave a call through LangChain: it ends as cancelled, frees its engine, and leaves one record."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from conftest import policy, settled, words
from langchain.agents import create_agent
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableGenerator
from postgres import Postgres, postgres

from langchain_stars import ChatStars, StarsGuardMiddleware, guard_runnable
from stars_guard.audit import AuditStore, MemoryStore, open_store
from stars_guard.calling import portal
from stars_guard.core.judging import Rule
from stars_guard.core.segments import Passage
from stars_guard.guard import Guard
from stars_guard.scorers import Judge
from stars_guard.scorers.base import Rating, Scorer
from stars_guard.testing.scripted import ScriptedBackend

__all__ = ["postgres"]

SAID: Any = {"messages": [HumanMessage("hi")]}
PATTERN = {"name": "secret", "type": "patterns", "patterns": [{"name": "word", "regex": "trout"}]}


class Stuck(Scorer):
    """Accepts two segments of each call, and never comes back from the third while it is shut."""

    def __init__(self) -> None:
        self.identity = {"kind": "stuck"}
        self.shut = True
        self.reached = threading.Event()
        self.on_reaching: Callable[[], object] = lambda: None

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        if self.shut and any(passage.index >= 2 for passage in passages):
            self.reached.set()
            self.on_reaching()
            await asyncio.Event().wait()
        return [Rating(9.0) for _ in passages]


@pytest.fixture(params=["memory", "jsonl", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AuditStore]:
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        made = open_store(server.database())
    else:
        made = MemoryStore() if request.param == "memory" else open_store(f"{request.param}://{tmp_path}/log")
    yield made
    portal.call(made.aclose)


class Case:
    """A model whose call is stuck at its third segment."""

    def __init__(self, store: AuditStore) -> None:
        self.store = store
        self.backend = ScriptedBackend(words())
        self.scorer = Stuck()
        judge = Judge(Rule(judge="stuck", weight=1.0), self.scorer)
        self.guard = Guard(policy(), model=self.backend, judges=[judge], audit=store)
        self.model = ChatStars(guard=self.guard)

    def check(self, calls: int = 1) -> None:
        """One record a call, a free engine, and the model serves the next call."""
        assert (self.backend.sessions, self.backend.active_calls) == (0, 0)
        assert [record.finish for record in self.store.read()] == ["cancelled"] * calls
        self.scorer.shut = False
        assert self.model.invoke("hi").text
        assert [record.finish for record in self.store.read()] == ["cancelled"] * calls + ["length"]
        gc.collect()  # a generator that was left open would complain here


@pytest.fixture
def case(store: AuditStore) -> Case:
    return Case(store)


async def all_of(stream: Any) -> list[Any]:
    return [item async for item in stream]


DOORS: dict[str, Callable[[ChatStars], Awaitable[Any]]] = {
    "ainvoke": lambda model: model.ainvoke("hi"),
    "ainvoke, streamed": lambda model: model.ainvoke("hi", stream=True),
    "astream": lambda model: all_of(model.astream("hi")),
    "astream_events": lambda model: all_of(model.astream_events("hi", version="v2")),
    "with a listener": lambda model: all_of(model.astream("hi", {"callbacks": [AsyncCallbackHandler()]})),
    "a chain": lambda model: all_of((model | (lambda message: message)).astream("hi")),
    "an agent": lambda model: all_of(create_agent(model).astream(SAID, stream_mode="messages")),
    "an agent, whole": lambda model: create_agent(model).ainvoke(SAID),
    "abatch": lambda model: model.abatch(["hi"]),
}
doors = pytest.mark.parametrize("door", DOORS)


async def reached(case: Case) -> None:
    """The call is stuck."""
    loop, stuck = asyncio.get_running_loop(), asyncio.Event()
    case.scorer.on_reaching = lambda: loop.call_soon_threadsafe(stuck.set)
    if case.scorer.reached.is_set():
        stuck.set()
    await stuck.wait()


@doors
def test_a_cancelled_task(case: Case, door: str) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(DOORS[door](case.model))
        await reached(case)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    case.check()


async def until(stuck: Awaitable[Any], work: Awaitable[Any]) -> None:
    """The work under a timeout that ends when it is stuck."""
    async with asyncio.timeout(None) as limit:

        async def time_is_up() -> None:
            await stuck
            limit.reschedule(0)

        waiting = asyncio.create_task(time_is_up())
        await work
    await waiting


@doors
def test_a_timeout(case: Case, door: str) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await until(reached(case), DOORS[door](case.model))

    asyncio.run(main())
    case.check()


def test_a_batch_that_is_cancelled(store: AuditStore) -> None:
    case = Case(store)

    async def main() -> None:
        task = asyncio.create_task(case.model.abatch(["a", "b", "c"]))
        await reached(case)
        while case.backend.active_calls < 3:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    case.check(calls=3)


@pytest.mark.parametrize("listening", [False, True])
def test_a_client_that_is_gone(case: Case, listening: bool) -> None:
    """It has read one chunk, and closes the stream. When that is done, so is the call."""

    class Ended(AsyncCallbackHandler):
        async def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
            ended.append(type(error).__name__)

    ended: list[str] = []

    async def main() -> None:
        stream: Any = case.model.astream("hi", {"callbacks": [Ended()]} if listening else None)
        async with aclosing(stream):
            assert (await anext(stream)).text
        assert (case.backend.sessions, len(case.store.read())) == (0, 1)

    asyncio.run(main())
    assert ended == (["GeneratorExit"] if listening else [])
    case.check()


def test_a_client_of_events_that_is_gone(case: Case) -> None:
    async def main() -> None:
        stream: Any = case.model.astream_events("hi", version="v2")
        async with aclosing(stream):
            async for event in stream:
                if event["event"] == "on_chat_model_stream":
                    break
        assert await asyncio.to_thread(settled, lambda: len(case.store.read()) == 1)

    asyncio.run(main())
    case.check()


@pytest.mark.filterwarnings("ignore:The method .* is in beta")
def test_a_client_of_the_v3_protocol_that_is_gone(case: Case) -> None:
    async def main() -> None:
        stream: Any = await case.model.astream_events("hi", version="v3")
        async for _ in stream.text:
            break
        await reached(case)
        await stream.aclose()
        assert await asyncio.to_thread(settled, lambda: len(case.store.read()) == 1)

    asyncio.run(main())
    case.check()


# --- sync code


def test_a_sync_stream_that_is_left(case: Case) -> None:
    stream: Any = case.model.stream("hi")
    assert next(stream).text
    stream.close()
    case.check()


SYNC_DOORS: dict[str, Callable[[ChatStars], Any]] = {
    "invoke": lambda model: model.invoke("hi"),
    "stream": lambda model: list(model.stream("hi")),
    "with a listener": lambda model: model.invoke("hi", {"callbacks": [BaseCallbackHandler()]}),
    "a chain": lambda model: list((model | (lambda message: message)).stream("hi")),
    "an agent": lambda model: create_agent(model).invoke(SAID),
}
"""Not an agent's sync stream: LangGraph runs it on a thread, which it waits for and which no Ctrl-C reaches."""


@pytest.mark.parametrize("door", SYNC_DOORS)
def test_ctrl_c(case: Case, door: str) -> None:
    main = threading.main_thread().ident
    assert main is not None
    case.scorer.on_reaching = lambda: signal.pthread_kill(main, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        SYNC_DOORS[door](case.model)
    assert settled(lambda: len(case.store.read()) == 1)
    case.check()


# --- chains and models of others


def stuck_words(stuck: asyncio.Event) -> Any:
    async def chunks(_: AsyncIterator[Any]) -> AsyncIterator[str]:
        for word in ("one two ", "three four ", "five six "):
            yield word
        stuck.set()
        await asyncio.Event().wait()

    return RunnableGenerator(chunks)


CHAIN = {**policy(judges=[PATTERN]), "rails": {"output": {"judges": [{**PATTERN, "name": "said"}]}}}


def finishes(store: AuditStore) -> list[str]:
    return [record.finish for record in store.read()]


@pytest.mark.parametrize("how", ["cancel", "timeout", "gone"])
def test_a_guarded_stream_of_another_model(store: AuditStore, how: str) -> None:
    async def main() -> None:
        stuck = asyncio.Event()
        stream: Any = guard_runnable(stuck_words(stuck), CHAIN, audit=store).astream("hi")
        if how == "gone":
            async with aclosing(stream):
                assert await anext(stream)
        elif how == "timeout":
            with pytest.raises(TimeoutError):
                await until(stuck.wait(), all_of(stream))
        else:
            task = asyncio.create_task(all_of(stream))
            await stuck.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert finishes(store) == ["cancelled"]
    gc.collect()


def test_a_guarded_sync_stream_that_is_left(store: AuditStore) -> None:
    def chunks(_: Iterator[Any]) -> Iterator[str]:
        yield from ("one two ", "three four ", "five six ")

    stream: Any = guard_runnable(RunnableGenerator(chunks), CHAIN, audit=store).stream("hi")
    assert next(stream)
    stream.close()
    assert finishes(store) == ["cancelled"]


class Remote(BaseChatModel):
    """Says what is rejected, and then nothing for ever."""

    stuck: Any
    asked: list[int]

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        self.asked.append(1)
        if len(self.asked) > 1:
            self.stuck.set()
            await asyncio.Event().wait()
        return ChatResult(generations=[ChatGeneration(message=AIMessage("a trout"))])

    @property
    def _llm_type(self) -> str:
        return "remote"


@pytest.mark.parametrize("door", ["ainvoke", "astream"])
def test_an_agent_whose_model_is_stuck_at_a_regeneration(store: AuditStore, door: str) -> None:
    async def main() -> None:
        stuck = asyncio.Event()
        graph = create_agent(Remote(stuck=stuck, asked=[]), middleware=[StarsGuardMiddleware(CHAIN, audit=store)])
        task = asyncio.ensure_future(graph.ainvoke(SAID) if door == "ainvoke" else all_of(graph.astream(SAID)))
        await stuck.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert finishes(store) == ["cancelled"]
    gc.collect()
