"""Tool calls, ids and hidden fields in what a guarded chain gives, in whatever value they come."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from hidden_scenarios import BAD, INPUT, POLICY, Scripted, gives_it
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage
from langchain_core.runnables import RunnableGenerator, RunnableLambda
from pydantic import BaseModel, PrivateAttr, computed_field

from langchain_stars import StarsGuardMiddleware, guard_runnable
from stars_guard.errors import Refused

CALLS_ONLY = {**POLICY, "judges": [], "rails": {"tool_call": POLICY["rails"]["tool_call"]}}
CALL: dict[str, Any] = {"name": "shell", "args": {"command": BAD}, "id": "c1"}


class State(BaseModel):
    messages: list[AnyMessage]


VALUES: dict[str, Any] = {
    "a message": AIMessage("", tool_calls=[CALL]),
    "a state": {"messages": [AIMessage("", tool_calls=[CALL])]},
    "a model": State(messages=[AIMessage("", tool_calls=[CALL])]),
    "messages": [AIMessage("fine"), AIMessage("", tool_calls=[CALL])],
    "calls": [CALL],
    "parsed calls": [{"type": "shell", "args": {"command": BAD}}],
    "a provider's": {"tool_calls": [{"function": {"name": "shell", "arguments": f'{{"command": "{BAD}"}}'}}]},
    "deep": {"agents": {"one": [{"out": (AIMessage("", tool_calls=[CALL]),)}]}},
}


@pytest.mark.parametrize("what", VALUES)
def test_calls_meet_their_rail_in_every_value(what: str) -> None:
    guarded = guard_runnable(RunnableLambda(lambda _: VALUES[what]), CALLS_ONLY, audit="memory://")
    for door in (guarded.invoke, lambda given: list(guarded.stream(given))):
        try:
            seen = repr(door("hi"))
        except Refused as exc:
            seen = repr(exc)
        assert BAD not in seen


def test_the_id_of_a_chunk_is_judged_before_it_is_released() -> None:
    def chunks(_: Iterator[Any]) -> Iterator[Any]:
        for number in range(40):
            yield AIMessageChunk("harmless words ", id=BAD if number else None)

    seen: list[Any] = []
    for chunk in guard_runnable(RunnableGenerator(chunks), POLICY, audit="memory://").stream("hi"):
        seen.append(chunk)
        assert BAD not in repr(chunk)
    assert "refusal" in repr(seen[-1])


def test_a_harmless_id_goes_with_every_chunk() -> None:
    def chunks(_: Iterator[Any]) -> Iterator[Any]:
        for _number in range(40):
            yield AIMessageChunk("harmless words ", id="chatcmpl-1")

    found = list(guard_runnable(RunnableGenerator(chunks), POLICY, audit="memory://").stream("hi"))
    assert {chunk.id for chunk in found} == {"chatcmpl-1"}
    assert len(found) > 2


class Computed(BaseModel):
    first: str = BAD[:10]
    rest: str = BAD[10:]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def whole(self) -> str:
        return self.first + self.rest


class Private(BaseModel):
    _kept: str = PrivateAttr(BAD)


@dataclasses.dataclass
class Loose:
    text: str = "fine"

    def __post_init__(self) -> None:
        self.more = BAD


@pytest.mark.parametrize("kind", [Computed, Private, Loose])
def test_what_an_object_holds_beside_its_fields_is_read(kind: Any) -> None:
    with pytest.raises(Refused):
        guard_runnable(RunnableLambda(lambda _: kind()), POLICY, audit="memory://").invoke("hi")


def test_counts_of_tokens_hold_no_text() -> None:
    message = AIMessage("fine")
    message.usage_metadata = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2, "note": BAD}  # type: ignore[typeddict-unknown-key]
    found = guard_runnable(RunnableLambda(lambda _: message), POLICY, audit="memory://").invoke("hi")
    assert BAD not in repr(found)


GOOD = {"name": "gives_it", "args": {"q": "x"}, "id": "c1"}
WRITTEN = {"name": "gives_it", "arguments": '{"q": "x"}'}
BESIDES: dict[str, dict[str, Any]] = {
    "a name": {"content": [{"type": "tool_use", "id": "c1", "name": BAD, "input": {"q": "x"}}]},
    "a type": {"content": [{"type": BAD, "id": "c1", "input": {"q": "x"}}]},
    "a number": {"content": [{"type": "tool_use", "id": "c1", "index": BAD, "input": {"q": "x"}}]},
    "a second id": {"content": [{"type": "function_call", "id": "c1", "call_id": BAD, "arguments": '{"q": "x"}'}]},
    "second arguments": {"content": [{"type": "tool_use", "id": "c1", "input": {"q": "x"}, "args": {"q": BAD}}]},
    "a raw key": {"additional_kwargs": {"tool_calls": [{"id": "c1", "function": WRITTEN, "more": BAD}]}},
    "a raw type": {"additional_kwargs": {"tool_calls": [{"id": "c1", "function": WRITTEN, "type": BAD}]}},
    "a raw name": {"additional_kwargs": {"tool_calls": [{"id": "c1", "function": {**WRITTEN, "name": BAD}}]}},
}


@pytest.mark.parametrize("what", BESIDES)
def test_what_stands_beside_a_judged_call_is_judged_as_the_answer(what: str) -> None:
    answer = AIMessage(**{"content": "", **BESIDES[what]}, tool_calls=[GOOD])
    guard = StarsGuardMiddleware(POLICY, audit="memory://")
    made = create_agent(Scripted(answers=[answer, "done"]), tools=[gives_it], middleware=[guard])
    assert BAD not in repr(list(made.stream(INPUT, stream_mode=["messages", "values", "updates"])))


def test_a_rejected_name_does_not_keep_its_place() -> None:
    answer = AIMessage("", tool_calls=[{**GOOD, "name": BAD}])
    guard = StarsGuardMiddleware(POLICY, audit="memory://")
    made = create_agent(Scripted(answers=[answer, "done"]), tools=[gives_it], middleware=[guard])
    assert BAD not in repr(list(made.stream(INPUT, stream_mode=["messages", "values", "updates"])))
