"""A forbidden text in any string of any message or value is never delivered, neither to a model nor to a caller."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import thinned
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.types import Command
from pydantic import BaseModel, ConfigDict
from security.leaves import MARK, block_cases, message_cases
from security.marked_ways import (
    ANSWERS,
    CASES,
    RESULTS,
    Door,
    commands,
    guarded,
    holds_mark,
    in_loop,
    into_a_chain,
    into_an_agent,
    out_of_a_chain,
    out_of_a_tool,
    out_of_an_agent,
    passed,
    streamed,
    streamed_in_loop,
    sync,
)

from langchain_stars._plain import Unreadable
from langchain_stars._reading import read
from stars_guard.errors import InputError

doors = pytest.mark.parametrize("run", [sync, in_loop])
all_doors = pytest.mark.parametrize("run", [sync, in_loop, streamed, streamed_in_loop])


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
    cases = CASES if run is sync and shape == "list" else thinned(CASES, 5 if run is sync else 23)
    assert into_a_chain(run, cases, shape) == []


@all_doors
@pytest.mark.parametrize("shape", ["model", "graph"])
def test_nothing_in_a_chains_answer_reaches_its_caller(run: Door, shape: str) -> None:
    all_of_them = run in (sync, streamed) and shape == "model"
    cases = ANSWERS if all_of_them else thinned(ANSWERS, 5 if run is sync else 11)
    assert out_of_a_chain(run, cases, shape) == []


# --- agents


@doors
@pytest.mark.parametrize("after", ["hello", None])
def test_nothing_in_an_agents_input_reaches_its_model(run: Door, after: str | None) -> None:
    cases = thinned(CASES, 3 if run is sync and after else 13 if run is sync else 41)
    assert into_an_agent(run, cases, after) == []


@doors
def test_nothing_in_an_agents_answer_reaches_its_caller(run: Door) -> None:
    assert out_of_an_agent(run, ANSWERS if run is sync else thinned(ANSWERS, 17)) == []


@doors
def test_nothing_in_a_tools_result_reaches_the_model_or_the_caller(run: Door) -> None:
    assert out_of_a_tool(run, [*(RESULTS if run is sync else thinned(RESULTS, 17)), *commands()]) == []


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
