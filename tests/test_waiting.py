"""One form of the logic for callers that block and callers that await: who runs where, and what is never suspended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import pytest
from conftest import guard
from hypothesis import given
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain.agents.middleware import wrap_model_call, wrap_tool_call
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableGenerator, RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

from langchain_stars import ChatStars, StarsGuardMiddleware, guard_runnable
from langchain_stars._tool_results import _Messages
from langchain_stars._waiting import iterate, run
from stars_guard.audit import MemoryStore

REQUEST: ContextVar[str] = ContextVar("request", default="none")
seen: list[tuple[str, threading.Thread, str]] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    seen.clear()


def here(what: str) -> None:
    seen.append((what, threading.current_thread(), REQUEST.get()))


def agent_policy() -> dict[str, Any]:
    judge = {"name": "secret", "type": "patterns", "patterns": [{"name": "word", "regex": "trout"}]}
    rails = {stage: {"judges": [judge]} for stage in ("input", "tool_call", "tool_result", "output")}
    return {"apiVersion": "stars-guard/v1", "name": "agent", "judges": [{**judge, "name": "own"}], "rails": rails}


class Remote(GenericFakeChatModel):
    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        here("model")
        return super()._generate(*args, **kwargs)


@tool
def look(page: str) -> str:
    """Look at a page."""
    here("tool")
    return page


@wrap_model_call
def inner_model(request: Any, handler: Any) -> Any:
    """A middleware of the user's, inside ours."""
    here("model handler")
    return handler(request)


@wrap_tool_call
def inner_tool(request: Any, handler: Any) -> Any:
    """A middleware of the user's, inside ours."""
    here("tool handler")
    return handler(request)


def graph(**more: Any) -> Any:
    call = AIMessage("", tool_calls=[{"name": "look", "args": {"page": "a"}, "id": "1"}])
    return create_agent(
        Remote(messages=iter([call, "done"])),
        tools=[look],
        middleware=[StarsGuardMiddleware(agent_policy(), audit=MemoryStore()), inner_model, inner_tool],
        **more,
    )


def test_sync_handlers_models_and_tools_run_for_the_caller() -> None:
    """In a thread of the caller's or of LangGraph's pool, with the caller's context, and never on our loop."""
    REQUEST.set("r1")
    assert graph().invoke({"messages": [HumanMessage("hi")]})["messages"][-1].content == "done"
    assert {what for what, *_ in seen} == {"model handler", "model", "tool handler", "tool"}
    assert {request for *_, request in seen} == {"r1"}
    assert "stars-guard" not in {thread.name for _, thread, _ in seen}
    assert {thread for what, thread, _ in seen if what.startswith("model")} == {threading.current_thread()}


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_chain_runs_in_the_callers_thread(attempts: int) -> None:
    REQUEST.set("r2")

    def chunks(_: Iterator[Any]) -> Iterator[str]:
        for word in ("one ", "two ", "three "):
            here("chunk")
            yield word

    answers: Any = RunnableLambda(lambda _: here("answer") or ("trout" if len(seen) < attempts else "bream"))
    assert guard_runnable(answers, agent_policy(), attempts=attempts, audit=MemoryStore()).invoke("hi")
    assert list(guard_runnable(RunnableGenerator(chunks), agent_policy(), audit=MemoryStore()).stream("hi"))
    assert len(seen) == attempts + 3
    assert {(thread, request) for _, thread, request in seen} == {(threading.current_thread(), "r2")}


class Listener(BaseCallbackHandler):
    def on_custom_event(self, *args: Any, **kwargs: Any) -> None:
        here("event")


class AsyncListener(AsyncCallbackHandler):
    async def on_custom_event(self, *args: Any, **kwargs: Any) -> None:
        here("event")


def test_sync_callbacks_run_in_the_callers_thread() -> None:
    REQUEST.set("r3")
    model = ChatStars(guard=guard(), seed=1)
    model.invoke("hi", {"callbacks": [Listener()]})
    list(model.stream("hi", {"callbacks": [Listener()]}))
    assert {(thread, request) for _, thread, request in seen} == {(threading.current_thread(), "r3")}


async def test_async_callbacks_run_on_the_callers_loop() -> None:
    REQUEST.set("r4")
    model = ChatStars(guard=guard(), seed=1)
    await model.ainvoke("hi", {"callbacks": [AsyncListener()]})
    async for _ in model.astream("hi", {"callbacks": [AsyncListener()]}):
        pass
    assert {(thread, request) for _, thread, request in seen} == {(threading.current_thread(), "r4")}


async def test_sync_doors_work_inside_a_running_loop() -> None:
    """As in a notebook: the caller's loop waits, ours goes on."""
    model = ChatStars(guard=guard(), seed=1)
    assert model.invoke("hi").text == "".join(chunk.text for chunk in model.stream("hi"))
    chain = guard_runnable(RunnableLambda(lambda _: "bream"), agent_policy(), audit=MemoryStore())
    assert list(chain.stream("hi")) == ["bream"]


@pytest.mark.parametrize("door", ["invoke", "ainvoke"])
def test_an_interrupt_of_a_tool_pauses_the_run_and_its_answer_is_judged(door: str) -> None:
    """The interrupt needs LangGraph's config in the context of the tool."""

    @tool
    def ask(question: str) -> str:
        """Ask a person."""
        return str(interrupt(question))

    call = AIMessage("", tool_calls=[{"name": "ask", "args": {"question": "which?"}, "id": "1"}])
    paused = create_agent(
        Remote(messages=iter([call, "done"])),
        tools=[ask],
        middleware=[StarsGuardMiddleware(agent_policy(), audit=MemoryStore())],
        checkpointer=InMemorySaver(),
    )
    config: Any = {"configurable": {"thread_id": "1"}}

    def go(given: Any) -> Any:
        return paused.invoke(given, config) if door == "invoke" else asyncio.run(paused.ainvoke(given, config))

    asked = go({"messages": [HumanMessage("hi")]})
    assert asked["__interrupt__"][0].value == "which?"
    messages = go(Command(resume="a trout"))["messages"]
    assert "withheld by policy" in messages[2].text
    assert messages[-1].content == "done"


async def test_a_slow_sync_handler_holds_up_nobody_else() -> None:
    """A chain that blocks its thread until another call has been served: that call is judged on the one loop."""
    served = threading.Event()
    blocking = guard_runnable(RunnableLambda(lambda _: str(served.wait(30))), agent_policy(), audit=MemoryStore())
    waiting = asyncio.get_running_loop().run_in_executor(None, blocking.invoke, "hi")
    assert (await ChatStars(guard=guard()).ainvoke("hi")).text
    served.set()
    assert await waiting == "True"


# --- the drivers


def test_a_coroutine_that_would_suspend_is_a_bug_that_is_told() -> None:
    with pytest.raises(RuntimeError, match="has suspended"):
        run(asyncio.sleep(0))


def test_leaving_an_iteration_closes_the_generator() -> None:
    ended: list[str] = []

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            for number in range(9):
                yield number
        finally:
            ended.append("closed")

    iterator = iterate(numbers())
    assert next(iterator) == 0
    iterator.close()
    assert ended == ["closed"]
    assert list(iterate(numbers())) == list(range(9))
    assert ended == ["closed"] * 2

    async def broken() -> AsyncGenerator[int, None]:
        async with aclosing(numbers()) as found:
            async for number in found:
                yield number
                raise KeyError(number)

    with pytest.raises(KeyError):
        list(iterate(broken()))
    assert ended == ["closed"] * 3


# --- what a tool gave back

messages = st.builds(lambda text: ToolMessage(text, tool_call_id="1"), st.sampled_from(["good", "bad"]))
leaves = st.one_of(messages, st.text(), st.integers(), st.none())
nested = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner), st.tuples(inner, inner), st.dictionaries(st.text(max_size=2), inner)),
    max_leaves=8,
)
results = st.one_of(nested, st.builds(lambda update: Command(update=update, goto="next"), nested))


def messages_in(value: Any) -> list[str]:
    match value:
        case ToolMessage():
            return [value.text]
        case Command():
            return messages_in(value.update)
        case dict():
            return [text for item in value.values() for text in messages_in(item)]
        case list() | tuple():
            return [text for item in value for text in messages_in(item)]
        case _:
            return []


class Judging(_Messages):
    """Walks through a result with a judge of the test's own."""

    def __init__(self, judge: Any) -> None:
        self._judge_one = judge

    async def _message(self, message: Any) -> Any:
        return await self._judge_one(message)


@given(results)
def test_every_message_of_a_result_is_judged_once_and_the_rest_stays(result: Any) -> None:
    judged: list[str] = []

    async def judge(message: ToolMessage) -> ToolMessage:
        judged.append(message.text)
        return message if message.text == "good" else message.model_copy(update={"content": "withheld"})

    before = messages_in(result)
    after = run(Judging(judge).judged(result))
    assert judged == before
    assert messages_in(after) == [text if text == "good" else "withheld" for text in before]
    if "bad" not in before:
        assert after is result
    if isinstance(result, Command):
        assert (after.goto, messages_in(result)) == ("next", before)  # the tool's own object is left alone


def test_the_same_message_twice_is_withheld_twice() -> None:
    message = ToolMessage("bad", tool_call_id="1")

    async def judge(one: ToolMessage) -> ToolMessage:
        return one.model_copy(update={"content": "withheld"})

    assert messages_in(run(Judging(judge).judged([message, {"a": (message,)}]))) == ["withheld"] * 2
