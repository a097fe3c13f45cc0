"""A forbidden text in any string of any message or value is never delivered, neither to a model nor to a caller."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import thinned
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command
from pydantic import BaseModel, ConfigDict
from security.leaves import MARK, block_cases, message_cases

from langchain_stars import StarsGuardMiddleware, guard_runnable
from langchain_stars._plain import Unreadable
from langchain_stars._reading import read
from stars_guard.audit import MemoryStore
from stars_guard.errors import InputError, Refused


def judges(name: str) -> dict[str, Any]:
    return {"judges": [{"name": name, "type": "patterns", "patterns": [{"name": "word", "regex": MARK}]}]}


POLICY = {
    "apiVersion": "stars-guard/v1",
    "name": "leaves",
    "decoding": {"attempts": 1, "on_exhausted": "refuse"},
    "rails": {stage: judges(stage) for stage in ("input", "tool_call", "tool_result", "output")},
    **judges("answer"),
}


class Foreign(BaseChatModel):
    """Says one message after the other, and keeps what it was asked."""

    answers: list[Any] = []  # noqa: RUF012  # a pydantic field
    asked: list[Any] = []  # noqa: RUF012

    @property
    def _llm_type(self) -> str:
        return "foreign"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self.asked.append(messages)
        answer = self.answers.pop(0) if self.answers else AIMessage("done")
        return ChatResult(
            generations=[ChatGeneration(message=AIMessage(answer) if isinstance(answer, str) else answer)]
        )

    def says(self, *answers: Any) -> None:
        self.answers[:] = answers
        self.asked.clear()


def sync(runnable: Runnable[Any, Any], value: Any) -> Any:
    return runnable.invoke(value)


def in_loop(runnable: Runnable[Any, Any], value: Any) -> Any:
    return asyncio.run(runnable.ainvoke(value))


def streamed(runnable: Runnable[Any, Any], value: Any) -> Any:
    return list(runnable.stream(value))


def streamed_in_loop(runnable: Runnable[Any, Any], value: Any) -> Any:
    async def everything() -> list[Any]:
        return [piece async for piece in runnable.astream(value)]

    return asyncio.run(everything())


Door = Callable[[Runnable[Any, Any], Any], Any]
doors = pytest.mark.parametrize("run", [sync, in_loop])
all_doors = pytest.mark.parametrize("run", [sync, in_loop, streamed, streamed_in_loop])


def holds_mark(value: Any) -> bool:
    """Whether the mark is anywhere in a value, as it is or as JSON or base64 has it."""
    text = repr(_shown(value))
    return any(form in text for form in (MARK, "verboten\\\\u00c4", "dmVyYm90ZW7DhA", f"'{MARK[:3]}'", f"'{MARK[:4]}'"))


def _shown(value: Any) -> Any:
    """The value with the fields of messages in their place, for a message's own text leaves some out."""
    if isinstance(value, BaseMessage):
        return [type(value).__name__, _shown({**vars(value), **(value.model_extra or {})})]
    if isinstance(value, dict):
        return [(key, _shown(item)) for key, item in value.items()]
    return [_shown(item) for item in value] if isinstance(value, list | tuple) else value


def passed(run: Door, runnable: Runnable[Any, Any], value: Any) -> Any:
    """What is delivered; nothing where it is refused."""
    try:
        return run(runnable, value)
    except Refused:
        return None
    except InputError:
        return None


def guarded(runnable: Runnable[Any, Any]) -> Runnable[Any, Any]:
    return guard_runnable(runnable, POLICY, audit=MemoryStore())


def graph_of(model: Foreign) -> Runnable[Any, Any]:
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_edge(START, "model")
    builder.add_edge("model", END)
    return builder.compile()


CASES = [*message_cases()]
ANSWERS = [(name, message) for name, message in CASES if isinstance(message, AIMessage)]
RESULTS = [(name, message) for name, message in CASES if isinstance(message, ToolMessage)]


def test_the_generator_places_the_mark() -> None:
    assert len(CASES) > 500
    assert {type(message).__name__ for _, message in CASES} > {"AIMessage", "ChatMessage", "ToolMessage"}
    assert [name for name, message in CASES if not holds_mark(message)] == []


@pytest.mark.parametrize("name", ["read", "block"])
def test_every_string_is_read(name: str) -> None:
    cases = [*message_cases(chunks=True), *CASES] if name == "read" else [*block_cases()]
    unread = []
    for place, value in cases:
        try:
            found = read(value)
        except Unreadable:
            continue
        if not any(MARK in text for text in (found.text, *found.forms)):
            unread.append(place)
    assert unread == []


# --- chains


@all_doors
@pytest.mark.parametrize("shape", ["list", "state", "prompt"])
def test_nothing_in_a_chains_input_reaches_its_model(run: Door, shape: str) -> None:
    model = Foreign()
    chain: Runnable[Any, Any] = guarded(graph_of(model) if shape == "state" else model)
    if shape == "prompt":
        prompt = ChatPromptTemplate.from_messages([("system", "be brief"), ("placeholder", "{messages}")])
        chain = guarded(prompt | model)
    leaks = []
    for name, message in CASES if run is sync and shape == "list" else thinned(CASES, 5 if run is sync else 23):
        model.says()
        given = [message, HumanMessage("hello")]
        out = passed(run, chain, given if shape == "list" else {"messages": given})
        if holds_mark(model.asked) or holds_mark(out):
            leaks.append(name)
    assert leaks == []


@all_doors
@pytest.mark.parametrize("shape", ["model", "graph"])
def test_nothing_in_a_chains_answer_reaches_its_caller(run: Door, shape: str) -> None:
    model = Foreign()
    chain = guarded(graph_of(model) if shape == "graph" else model)
    leaks = []
    for name, answer in (
        ANSWERS if run in (sync, streamed) and shape == "model" else thinned(ANSWERS, 5 if run is sync else 11)
    ):
        model.says(answer.model_copy(deep=True))
        if holds_mark(passed(run, chain, "hello" if shape == "model" else {"messages": [HumanMessage("hello")]})):
            leaks.append(name)
    assert leaks == []


# --- agents


@tool
def look(page: str) -> Any:
    """Look at a page."""
    return results[-1]


results: list[Any] = []


def agent(model: Foreign) -> Any:
    return create_agent(model, tools=[look], middleware=[StarsGuardMiddleware(POLICY, audit=MemoryStore())])


@doors
@pytest.mark.parametrize("after", ["hello", None])
def test_nothing_in_an_agents_input_reaches_its_model(run: Door, after: str | None) -> None:
    model = Foreign()
    graph, leaks = agent(model), []
    for name, message in thinned(CASES, 3 if run is sync and after else 13 if run is sync else 41):
        model.says()
        history = [message, *([HumanMessage(after)] if after else [])]
        if holds_mark(passed(run, graph, {"messages": history})) or holds_mark(model.asked):
            leaks.append(name)
    assert leaks == []


@doors
def test_nothing_in_an_agents_answer_reaches_its_caller(run: Door) -> None:
    model = Foreign()
    graph, leaks = agent(model), []
    for name, answer in ANSWERS if run is sync else thinned(ANSWERS, 17):
        model.says(answer.model_copy(deep=True))
        if holds_mark(passed(run, graph, {"messages": [HumanMessage("hello")]})):
            leaks.append(name)
    assert leaks == []


def call() -> AIMessage:
    return AIMessage("", tool_calls=[{"name": "look", "args": {"page": "a"}, "id": "c1"}])


def commands() -> Iterator[tuple[str, Any]]:
    answer = ToolMessage("fine", tool_call_id="c1")
    for message in (HumanMessage(MARK), AIMessage(MARK), SystemMessage(MARK), ChatMessage(MARK, role="user")):
        yield f"Command.{message.type}", Command(update={"messages": [answer, message]})
    yield "Command.dict", Command(update={"messages": [answer, {"role": "user", "content": MARK}]})
    yield "Command.tuple", Command(update={"messages": [answer, ("user", MARK)]})
    yield "Command.string", Command(update={"messages": [answer, MARK]})
    yield "Command.other", Command(update={"messages": [answer], "jump_to": MARK})
    yield (
        "Command.tool dict",
        Command(update={"messages": [{"role": "tool", "content": MARK, "tool_call_id": "c1", "type": "tool"}, answer]}),
    )
    yield "Command in a list", [Command(update={"messages": [answer]}), Command(update={"messages": [("user", MARK)]})]
    yield "document", [Document(MARK)]
    yield "mapping", {"a": {"b": MARK}}
    yield "set", {MARK}
    yield "bytes", MARK.encode()


@doors
def test_nothing_in_a_tools_result_reaches_the_model_or_the_caller(run: Door) -> None:
    model = Foreign()
    graph, leaks = agent(model), []
    for name, result in [*(RESULTS if run is sync else thinned(RESULTS, 17)), *commands()]:
        model.says(call())
        result = result.model_copy(deep=True) if isinstance(result, BaseMessage) else result
        results.append(result)
        if isinstance(result, ToolMessage) and not holds_mark(result.tool_call_id):
            result.tool_call_id = "c1"
        out = passed(run, graph, {"messages": [HumanMessage("hello")]})
        if holds_mark(out) or holds_mark(model.asked):
            leaks.append(name)
    assert leaks == []


# --- values of an app's own


class Model(BaseModel):
    model_config = ConfigDict(extra="allow")
    fish: Any = None


@dataclasses.dataclass
class Data:
    fish: Any = None


WAYS: list[Callable[[str], Any]] = [
    lambda text: {"messages": [HumanMessage(text)]},
    lambda text: {"a": {"messages": [("user", text)]}},
    lambda text: {"a": [AIMessage("a", additional_kwargs={"refusal": text})]},
    lambda text: {"a": {text}},
    lambda text: {text: 1},
    lambda text: {1: "a", "1": text},
    lambda text: text.encode(),
    lambda text: Model(fish=[text]),
    lambda text: Model(other=text),
    lambda text: Data(fish={"a": HumanMessage(text)}),
    lambda text: Data(fish=(text,)),
    lambda text: Path(text) if text.strip("./\\\0") and "/" not in text and "\0" not in text else text,
    lambda text: Document("a", metadata={"b": text}),
    lambda text: {"a": json.dumps({"b": text})},
    lambda text: {"a": json.dumps({"b": json.dumps(text)})},
    lambda text: Command(update={"a": text}),
    lambda text: frozenset({(text,)}),
]

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
PIECES = st.sampled_from(
    ["Привет", "Ärger", "毒", "😀", '"', "'", "\t", "\n^", "\\", "\\u", "{", "${x}", "<b>", "\u200d"]
)


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(TEXTS, PIECES), min_size=1, max_size=4).map("".join), st.sampled_from(WAYS))
def test_every_text_is_read_as_it_is(text: str, way: Callable[[str], Any]) -> None:
    found = read(way(text))
    assert any(text in one for one in (found.text, *found.forms))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("text", [MARK, f"\n{MARK}", f'"\t{MARK}\\'])
def test_no_value_goes_in_or_comes_out_unread(way: Callable[[str], Any], text: str) -> None:
    asked: list[Any] = []
    passed(sync, guarded(RunnableLambda(lambda value: asked.append(value) or "fine")), way(text))
    assert asked == []
    assert passed(sync, guarded(RunnableLambda(lambda _: way(text))), "hello") in (None, "I can't help with that.")


@pytest.mark.parametrize("value", [object(), lambda: 1, {"a": object()}, [b"%PDF-1.7\xff\xfe"], Data(fish=object())])
def test_what_cannot_be_read_is_an_error(value: Any) -> None:
    with pytest.raises(InputError):
        guarded(RunnableLambda(lambda _: "fine")).invoke(value)
    with pytest.raises(InputError):
        guarded(RunnableLambda(lambda _: value)).invoke("hello")


def test_what_holds_itself_is_an_error() -> None:
    ring: list[Any] = []
    ring += [ring, ring]
    with pytest.raises(InputError):
        read(ring)
