"""Custom events of `ChatStars`: what was accepted and rejected, while it happens."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from conftest import guard
from langchain.agents import create_agent
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda

from langchain_stars import ChatStars
from stars_guard.audit import MemoryStore


class Ours(ChatStars):
    """On a scripted backend: where segments come from is not what is tested here."""

    def __init__(self, content: str = "full") -> None:
        super().__init__(guard=guard(audit={"content": content}))

    @property
    def records(self) -> list[Any]:
        assert self.guard is not None
        assert isinstance(self.guard.audit, MemoryStore)
        return self.guard.audit.records


def told_of(model: Ours, events: list[Any]) -> list[Any]:
    return [(event["name"], event["data"]) for event in events if event["event"] == "on_custom_event"]


def decided(record: Any) -> list[Any]:
    return [
        (f"stars_guard.segment.{attempt.verdict}", segment.index, attempt.attempt, attempt.reason, attempt.reward)
        for segment in record.segments
        for attempt in segment.attempts
        if attempt.verdict != "surplus"
    ]


def as_decided(told: list[Any]) -> list[Any]:
    return [(name, d["segment"], d["attempt"], d["reason"], d["reward"]) for name, d in told]


async def test_event_streams_tell_each_decision() -> None:
    model = Ours()
    events = [event async for event in model.astream_events("hello", version="v2")]
    told = told_of(model, events)
    assert as_decided(told) == decided(model.records[0])
    assert {name for name, _ in told} == {"stars_guard.segment.accepted", "stars_guard.segment.rejected"}
    assert model.records[0].run_id in {event["run_id"] for event in events if event["event"] == "on_custom_event"}


async def test_in_a_chain_and_with_invoke_inside_it_too() -> None:
    model = Ours()
    chain = RunnableLambda(lambda text: text) | model
    events = [event async for event in chain.astream_events("hello", version="v2")]
    assert as_decided(told_of(model, events)) == decided(model.records[0])


class Listener(BaseCallbackHandler):
    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        self.told.append((name, data))


class AsyncListener(AsyncCallbackHandler):
    def __init__(self) -> None:
        self.told: list[Any] = []

    async def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        self.told.append((name, data))


@pytest.mark.parametrize("door", ["invoke", "stream", "ainvoke", "astream"])
def test_callbacks_are_told_by_every_door(door: str) -> None:
    model, listener = Ours(), AsyncListener() if door.startswith("a") else Listener()
    config: Any = {"callbacks": [listener]}

    async def astream() -> None:
        async for _ in model.astream("hello", config):
            pass

    match door:
        case "invoke":
            model.invoke("hello", config)
        case "stream":
            list(model.stream("hello", config))
        case "ainvoke":
            asyncio.run(model.ainvoke("hello", config))
        case _:
            asyncio.run(astream())
    assert listener.told
    assert as_decided(listener.told) == decided(model.records[0])


@pytest.mark.parametrize(("content", "held"), [("full", "content"), ("hash", "sha256"), ("none", None)])
def test_text_is_in_an_event_as_far_as_the_policy_says(content: str, held: str | None) -> None:
    model, listener = Ours(content=content), Listener()
    model.invoke("hello", {"callbacks": [listener]})
    data = [data for name, data in listener.told if name.endswith("rejected")]
    assert data
    assert all({"content", "sha256"} & set(one) == ({held} if held else set()) for one in data)
    assert all(one["chars"] > 0 for one in data)


async def test_a_graph_that_is_streamed_tells_too() -> None:
    """There the model is invoked, and LangChain streams it all the same."""
    model = Ours()
    graph = create_agent(model)
    said: Any = {"messages": [HumanMessage("hello")]}
    events = [event async for event in graph.astream_events(said, version="v2")]
    assert as_decided(told_of(model, events)) == decided(model.records[0])
    assert model.records[0].run_id
