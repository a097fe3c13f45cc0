"""ChatStars with tools and schemas: LangChain's doors around the core's calls."""

from __future__ import annotations

import json
import operator
from collections.abc import Sequence
from functools import reduce
from typing import Any, TypedDict

import pytest
from conftest import guard, rewarding, vetoing
from langchain.agents import create_agent
from langchain.agents.middleware import wrap_model_call
from langchain_core.caches import InMemoryCache
from langchain_core.exceptions import ModelRefusalError, OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel, Field

from langchain_stars import ChatStars
from langchain_stars._messages import to_messages
from stars_guard.backends.base import OpenRequest
from stars_guard.core.messages import Message
from stars_guard.errors import BackendUnavailable, InputError
from stars_guard.testing.scripted import ScriptedBackend

CALL = '<tool_call>[{"name": "get_weather", "arguments": {"city": "Paris"}}]</tool_call>'


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"It rains in {city}."


def add(x: int, y: int) -> int:
    """Adds.

    Args:
        x: one.
        y: other.
    """
    return x + y


class Joke(BaseModel):
    """A joke."""

    setup: str = Field(description="its beginning")
    punchline: str


class JokeDict(TypedDict):
    """A joke."""

    setup: str
    punchline: str


def writing(answer: str | None = None, *, size: int = 4) -> ScriptedBackend:
    """Writes an answer; by default it calls the weather tool, and once it has the weather says so."""

    def script(messages: Sequence[Message], prefix: tuple[str, ...], rng: Any) -> str | None:
        last = messages[-1]
        whole = answer if answer is not None else last.content if last.role == "tool" else f"Let me see. {CALL}"
        done = len("".join(prefix))
        return whole[done : done + size] or None

    return ScriptedBackend(script)


def chat(*judges: Any, backend: ScriptedBackend | None = None, **settings: Any) -> ChatStars:
    made = guard(
        *(judges or [rewarding(lambda p: 9.0)]), backend=backend or writing(), **{"max_tokens": 99, **settings}
    )
    return ChatStars(guard=made)


def records(model: ChatStars) -> list[Any]:
    assert model.guard is not None
    return model.guard.audit.read()


def test_tools_of_every_kind_are_bound() -> None:
    named = {"type": "function", "function": {"name": "raw", "description": "d", "parameters": {"type": "object"}}}
    bound = chat().bind_tools([get_weather, add, Joke, named], tool_choice="any", parallel_tool_calls=False)
    names = [one["function"]["name"] for one in bound.kwargs["tools"]]  # type: ignore[attr-defined]
    assert names == ["get_weather", "add", "Joke", "raw"]
    toolset = chat()._options(None, None, bound.kwargs).tools  # type: ignore[attr-defined]
    assert toolset is not None
    assert (toolset.forced, toolset.parallel, toolset.strict) == (tuple(names), False, False)
    assert toolset.tools[1].parameters["properties"]["x"]["type"] == "integer"


@pytest.mark.parametrize(
    ("choice", "forced"),
    [
        (None, ()),
        ("auto", ()),
        (False, ()),
        ("any", ("get_weather", "add")),
        ("required", ("get_weather", "add")),
        (True, ("get_weather", "add")),
        ("add", ("add",)),
        ({"type": "function", "function": {"name": "add"}}, ("add",)),
        ("none", None),
    ],
)
def test_tool_choice(choice: Any, forced: Any) -> None:
    model = chat()
    bound = model.bind_tools([get_weather, add], tool_choice=choice)
    toolset = model._options(None, None, bound.kwargs).tools  # type: ignore[attr-defined]
    assert (toolset and toolset.forced) == forced


def test_what_is_no_tool_or_choice_is_named() -> None:
    with pytest.raises(InputError, match="no tool is named nothing"):
        chat().bind_tools([get_weather], tool_choice="nothing")
    with pytest.raises(InputError, match="not a function"):
        chat().bind_tools([{"type": "web_search_preview"}])
    with pytest.raises(InputError, match="response_format"):
        chat().invoke("hi", response_format={"type": "xml"})


@pytest.mark.parametrize("version", ["v0", "v1"])
async def test_every_door_gives_the_same_calls(version: str) -> None:
    model = chat()
    model.output_version = version
    bound = model.bind_tools([get_weather])
    messages = [
        bound.invoke("weather?"),
        await bound.ainvoke("weather?"),
        reduce(operator.add, bound.stream("weather?")),
        reduce(operator.add, [chunk async for chunk in bound.astream("weather?")]),
    ]
    for message in messages:
        (call,) = message.tool_calls  # type: ignore[union-attr]
        assert (call["name"], call["args"], message.text) == ("get_weather", {"city": "Paris"}, "Let me see. ")
        assert message.response_metadata["finish_reason"] == "tool_calls"
        assert [block["type"] for block in message.content_blocks] == ["text", "tool_call"]
        assert "<tool_call>" not in json.dumps(message.content)
    (chunk,) = [c for c in bound.stream("weather?") if isinstance(c, AIMessageChunk) and c.tool_call_chunks]
    assert chunk.text == ""


def test_what_is_no_call_stays_none_when_chunks_are_merged() -> None:
    for answer in ('<tool_call>{"arguments": {"x": 1}}</tool_call>', '<tool_call>{"name": "get_weather", "argum'):
        bound = chat(backend=writing(answer)).bind_tools([get_weather])
        for message in (bound.invoke("hi"), reduce(operator.add, bound.stream("hi"))):
            assert isinstance(message, AIMessage)
            assert message.tool_calls == []
            assert message.invalid_tool_calls[0]["args"] == answer


def test_conversations_with_tools_are_read() -> None:
    call = AIMessage("", tool_calls=[{"name": "get_weather", "args": {"city": "Oslo"}, "id": "1"}])
    blocks = AIMessage([{"type": "text", "text": "a"}, {"type": "tool_use", "id": "1", "name": "x", "input": {}}])
    system, user, first, result, last = to_messages(
        [SystemMessage("s"), HumanMessage("u"), call, ToolMessage("rain", tool_call_id="1"), blocks]
    )
    assert first.tool_calls[0].arguments == {"city": "Oslo"}
    assert (result.role, result.content, result.tool_call_id, result.name) == ("tool", "rain", "1", "get_weather")
    assert (system.role, user.role, last.content) == ("system", "user", "a")
    image = [{"type": "image", "base64": "x", "mime_type": "image/png"}]
    with pytest.raises(InputError, match="image"):
        to_messages([ToolMessage(image, tool_call_id="1")])


JOKE = json.dumps({"setup": "Why?", "punchline": "Because."})
JOKE_CALL = f'<tool_call>[{{"name": "NAME", "arguments": {JOKE}}}]</tool_call>'
METHODS = ["json_schema", "function_calling", "json_mode"]


def answers(method: str, name: str = "Joke") -> ScriptedBackend:
    return writing(JOKE_CALL.replace("NAME", name) if method == "function_calling" else JOKE)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schema", [Joke, JokeDict, {**Joke.model_json_schema(), "title": "joke"}])
def test_structured_output(method: Any, schema: Any) -> None:
    name = schema["title"] if isinstance(schema, dict) else schema.__name__
    model = chat(backend=answers(method, name), segment_tokens=2)
    wanted = json.loads(JOKE)
    asked = model.with_structured_output(schema, method=method)
    for result in (asked.invoke("joke"), *asked.stream("joke")):
        assert (result.model_dump() if isinstance(result, Joke) else result) == wanted
        assert isinstance(result, Joke) == (schema is Joke)
    both = model.with_structured_output(schema, method=method, include_raw=True).invoke("joke")
    assert both["parsing_error"] is None
    assert both["raw"].response_metadata["stars_guard"]["proposals"] == 1
    assert both["parsed"]
    (record, *_) = records(model)
    assert record.decoding["segment_tokens"] == record.decoding["max_tokens"]
    assert record.grammar_sha256


@pytest.mark.parametrize("method", METHODS)
def test_a_refusal_is_told_from_what_cannot_be_parsed(method: Any) -> None:
    refusing = chat(vetoing("Because"), backend=answers(method), on_exhausted="refuse")
    with pytest.raises(ModelRefusalError) as caught:
        refusing.with_structured_output(Joke, method=method).invoke("joke")
    assert caught.value.raw_message is not None
    both = refusing.with_structured_output(Joke, method=method, include_raw=True).invoke("joke")
    assert isinstance(both["parsing_error"], ModelRefusalError)
    assert both["parsed"] is None
    short = chat(backend=answers(method), max_tokens=3)
    with pytest.raises(OutputParserException, match="length"):
        short.with_structured_output(Joke, method=method).invoke("joke")
    if method != "function_calling":
        with pytest.raises(OutputParserException):
            chat(backend=writing('{"other": 1}')).with_structured_output(Joke, method=method).invoke("joke")


def test_methods_are_checked() -> None:
    with pytest.raises(InputError, match="unknown method"):
        chat().with_structured_output(Joke, method="xml")  # type: ignore[arg-type]


def test_a_cache_knows_tools_and_schemas() -> None:
    model = chat()
    keys = {
        model._get_llm_string(**bound.kwargs)  # type: ignore[attr-defined]
        for bound in (
            model.bind(),
            model.bind_tools([get_weather]),
            model.bind_tools([get_weather], tool_choice="any"),
            model.bind_tools([add]),
            model.bind(response_format={"type": "json_object"}),
        )
    }
    assert len(keys) == 5
    model.cache = InMemoryCache()
    bound = model.bind_tools([get_weather])
    first, again = bound.invoke("hi"), bound.invoke("hi")
    assert first.tool_calls == again.tool_calls != []
    assert len(records(model)) == 1


class Unsteady(ScriptedBackend):
    """Cannot be reached the first time."""

    asked = 0

    async def open(self, request: OpenRequest) -> Any:
        self.asked += 1
        if self.asked == 1:
            raise BackendUnavailable("the server is away")
        return await super().open(request)


def test_retries_and_fallbacks() -> None:
    assert BackendUnavailable.retryable
    unsteady = chat(backend=Unsteady(writing().script))
    again = unsteady.bind_tools([get_weather]).with_retry(
        retry_if_exception_type=(BackendUnavailable,), wait_exponential_jitter=False
    )
    assert again.invoke("hi").tool_calls
    first = chat(backend=Unsteady(writing().script)).with_fallbacks([chat(backend=writing("plan B"))])
    assert first.invoke("hi").text == "plan B"


async def test_batches_as_they_come() -> None:
    bound = chat().bind_tools([get_weather])
    found = {index: message async for index, message in bound.abatch_as_completed(["a", "b", "c"])}
    assert sorted(found) == [0, 1, 2]
    assert len({message.tool_calls[0]["id"] for message in found.values()}) == 3


def test_an_agent_and_its_checkpoints() -> None:
    """Messages with calls survive a checkpoint, and the conversation goes on from there."""
    saver = InMemorySaver()
    thread: Any = {"configurable": {"thread_id": "1"}}
    state = create_agent(chat(), [get_weather], checkpointer=saver).invoke(
        {"messages": [HumanMessage("weather?")]}, thread
    )
    assert [message.type for message in state["messages"]] == ["human", "ai", "tool", "ai"]
    assert state["messages"][-1].text == "It rains in Paris."
    again = create_agent(chat(), [get_weather], checkpointer=saver)
    assert again.get_state(thread).values["messages"] == state["messages"]
    assert len(again.invoke({"messages": [HumanMessage("and now?")]}, thread)["messages"]) == 8


@wrap_model_call
def first_a_tool(request: Any, handler: Any) -> Any:
    """The model must call a tool first."""
    done = any(isinstance(message, ToolMessage) for message in request.messages)
    return handler(request if done else request.override(tool_choice="any"))


def test_an_agent_on_the_small_model() -> None:
    """What the model does not think of by itself, it does with the grammar forced."""
    model = ChatStars(model="embedded", backend="transformers", audit="memory://", max_tokens=40, temperature=0.0)
    agent = create_agent(model, [get_weather], middleware=[first_a_tool])
    state = agent.invoke({"messages": [HumanMessage("What is the weather in Paris?")]})
    call, result = state["messages"][1:3]
    assert call.tool_calls[0]["args"] == {"city": "Paris"}
    assert result.content == "It rains in Paris."
    assert state["messages"][-1].type == "ai"


def test_an_optional_field_on_the_small_model() -> None:
    class Brief(BaseModel):
        """A joke."""

        setup: str = Field(max_length=60)
        punchline: str | None = Field(default=None, max_length=60)

    model = ChatStars(model="embedded", backend="transformers", audit="memory://", max_tokens=60, temperature=0.0)
    for ask in ("Give me the setup to a joke about cats, no punchline.", "Tell me a joke about cats."):
        assert isinstance(model.with_structured_output(Brief).invoke(ask), Brief)
