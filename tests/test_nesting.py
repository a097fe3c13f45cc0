"""JSON of any depth, from the model or from the caller, is an error that has a name and never a `RecursionError`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from conftest import guard, rewarding
from hypothesis import example, given, settings
from hypothesis import strategies as st
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, HumanMessage

from langchain_stars import ChatStars
from langchain_stars._messages import to_messages
from stars_guard.core.events import Finished
from stars_guard.core.grammar import Grammar
from stars_guard.core.messages import Message, ToolCall
from stars_guard.core.nesting import MOST_NESTED, TooDeep, is_too_deep, read_json
from stars_guard.core.tools import Tool, Toolset
from stars_guard.errors import InputError, ScorerError
from stars_guard.guard import CallOptions
from stars_guard.prompting.call_rendering import render_call
from stars_guard.prompting.tool_calls import HERMES, Llama3Form, MistralForm
from stars_guard.scorers.http import HttpScorer
from stars_guard.testing import ScriptedBackend

DEPTHS = st.one_of(st.integers(1, 80), st.sampled_from([300, 900, 990, 1000, 3000, 100_000]))
SHAPES = {"lists": ("[", "]"), "objects": ('{"a":', "}"), "both": ('[{"a":', "}]")}


def nested(depth: int, shape: str = "lists") -> str:
    """JSON text whose containers nest so deep."""
    begin, end = SHAPES[shape]
    return begin * (depth // len(end)) + "1" + end * (depth // len(end))


def value(depth: int, inner: Any = 1) -> Any:
    made = inner
    for _ in range(depth):
        made = [made]
    return made


@given(depth=DEPTHS, shape=st.sampled_from(list(SHAPES)))
@example(depth=MOST_NESTED, shape="lists")
@example(depth=MOST_NESTED + 1, shape="lists")
@settings(deadline=None)
def test_a_text_is_read_up_to_the_limit(depth: int, shape: str) -> None:
    text = nested(depth, shape)
    if depth // len(SHAPES[shape][1]) * len(SHAPES[shape][1]) <= MOST_NESTED:
        assert json.dumps(read_json(text), separators=(",", ":")) == text
    else:
        with pytest.raises(TooDeep):
            read_json(text)


def test_what_holds_itself_or_is_shared_often_is_measured_at_once() -> None:
    itself: list[Any] = []
    itself.append(itself)
    assert is_too_deep(itself)
    wide: Any = 1
    for _ in range(MOST_NESTED):
        wide = [wide, wide]
    assert not is_too_deep(wide)


@given(depth=DEPTHS, shape=st.sampled_from(list(SHAPES)), form=st.integers(0, 5))
@settings(deadline=None)
def test_a_call_of_a_model_is_read_or_invalid(depth: int, shape: str, form: int) -> None:
    text = nested(depth, shape)
    begin, body = [
        ("<tool_call>", f'{{"name": "f", "arguments": {{"x": {text}}}}}'),
        ("<tool_call>", f'{{"name": "f", "arguments": {json.dumps(text)}}}'),
        ("<tool_call>", text),
        ("[TOOL_CALLS]", f'[{{"name": "f", "arguments": {{"x": {text}}}}}]'),
        ("[TOOL_CALLS]", f'f[ARGS]{{"x": {text}}}'),
        ("{", f'{{"name": "f", "parameters": {{"x": {text}}}}}'),
    ][form]
    calls = {"<tool_call>": HERMES, "{": Llama3Form(), "[TOOL_CALLS]": MistralForm()}[begin].read(body)
    assert calls
    for call in calls:
        assert (call.arguments is None) == bool(call.error)
        if call.arguments is None:
            assert depth < 3 * MOST_NESTED or "nested too deeply" in call.error
        else:
            ToolCall(id="1", name="f", arguments=call.arguments)


@given(depth=DEPTHS)
@settings(deadline=None, max_examples=30)
def test_judges_see_all_of_a_call_however_deep(depth: int) -> None:
    assert "rm -rf /" in render_call("shell", {"deep": value(depth, "rm -rf /"), "key": value(depth, {"rm -rf /": 1})})


CALLER: dict[str, Callable[[Any], object]] = {
    "a tool call": lambda deep: ToolCall(id="1", name="f", arguments={"x": deep}),
    "a tool": lambda deep: Tool(name="f", description="", parameters={"x": deep}),
    "a schema": lambda deep: Grammar.json_schema({"x": deep}),
    "a LangChain message": lambda deep: to_messages(
        [AIMessage("", tool_calls=[{"id": "1", "name": "f", "args": {"x": deep}}])]
    ),
}


@pytest.mark.parametrize("what", CALLER)
@pytest.mark.parametrize("depth", [MOST_NESTED, 900, 100_000])
def test_what_a_caller_passes_in_is_an_input_error(what: str, depth: int) -> None:
    CALLER[what](value(MOST_NESTED - 1))
    deep = value(depth)
    try:
        if what == "a LangChain message" and depth > 900:
            return  # pydantic itself refuses it
        with pytest.raises(InputError, match="nested too deeply"):
            CALLER[what](deep)
    finally:
        while isinstance(deep, list):  # taken apart from outside: so deep a list overflows the stack where it is freed
            deep = deep[0]


def answering(text: str) -> ScriptedBackend:
    """A model that writes a text, and ends."""
    pieces = [text[at : at + 50] for at in range(0, len(text), 50)]
    return ScriptedBackend(lambda m, prefix, r: pieces[len(prefix)] if len(prefix) < len(pieces) else None)


@pytest.mark.parametrize("depth", [MOST_NESTED + 1, 2000])
async def test_a_deep_call_ends_as_an_invalid_call(depth: int) -> None:
    text = f'<tool_call>{{"name": "f", "arguments": {{"x": {nested(depth)}}}}}</tool_call>'
    made = guard(rewarding(lambda p: 9.0), backend=answering(text), segment_tokens=500, max_tokens=500)
    tools = Toolset(tools=(Tool(name="f", description="", parameters={"type": "object"}),))
    done = await made.generate([Message(role="user", content="x")], CallOptions(tools=tools))
    assert isinstance(done, Finished)
    assert not done.tool_calls
    (invalid,) = done.invalid_tool_calls
    assert "nested too deeply" in invalid.error
    chat = ChatStars(guard=made)
    bound = chat.bind_tools([{"name": "f", "description": "", "parameters": {"type": "object"}}])
    merged = None
    async for chunk in bound.astream([HumanMessage("x")]):
        merged = chunk if merged is None else merged + chunk
    assert merged is not None
    assert merged.invalid_tool_calls
    assert not merged.tool_calls


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
async def test_a_deep_answer_under_a_schema_is_a_parsing_error(method: Any) -> None:
    made = guard(rewarding(lambda p: 9.0), backend=answering(nested(5000)), segment_tokens=500, max_tokens=500)
    chat = ChatStars(guard=made)
    runnable = chat.with_structured_output({"title": "t", "type": "object", "properties": {}}, method=method)
    with pytest.raises(OutputParserException, match="nested too deeply"):
        await runnable.ainvoke("x")


async def test_a_deep_reply_of_a_classifier_is_its_failure() -> None:
    scorer = HttpScorer(url="http://127.0.0.1:1/", body={}, score="score", retries=0)
    reply = httpx.MockTransport(lambda request: httpx.Response(200, text=nested(100_000)))
    scorer._client = httpx.AsyncClient(transport=reply)
    with pytest.raises(ScorerError, match="nested too deeply"):
        await scorer._send("{}")
    await scorer.aclose()
