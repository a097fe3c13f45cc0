"""A text that is rejected is never shown: not in a stream, a callback, a trace, on the console or in an error."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any, get_args

import pytest
from hidden_scenarios import (
    BAD,
    INPUT,
    POLICY,
    SCENARIOS,
    Scripted,
    _handler,
    _quietly,
    agent,
    calls,
    collect,
    stream_views,
    view_of_callbacks,
    view_of_context,
)
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.output_parsers import StrOutputParser
from langchain_core.tools import tool
from langgraph.types import StreamMode

from langchain_stars import guard_runnable

pytestmark = pytest.mark.filterwarnings("ignore")

EACH = pytest.mark.parametrize("what", SCENARIOS)


def assert_hidden(seen: Any) -> None:
    assert seen
    text = repr(seen)
    at = text.find(BAD)
    assert at < 0, text[max(0, at - 400) : at + 20]


@EACH
def test_streams_show_nothing(what: str) -> None:
    for mode, subgraphs in stream_views():
        seen: list[Any] = [f"{mode} {subgraphs}"]
        made = SCENARIOS[what]()
        stream = made.stream(INPUT, stream_mode=mode, subgraphs=subgraphs)
        _quietly(partial(list, stream), seen)
        assert_hidden(seen)


@EACH
async def test_streams_that_are_awaited_show_nothing(what: str) -> None:
    # each mode by itself is the matter of the test before
    for mode in ("messages", "values", [*get_args(StreamMode)]):
        seen: list[Any] = [mode]
        await collect(SCENARIOS[what]().astream(INPUT, stream_mode=mode, subgraphs=True), seen)
        assert_hidden(seen)


@EACH
async def test_event_streams_show_nothing(what: str) -> None:
    for version in ("v1", "v2", "v3"):
        seen: list[Any] = [version]
        events = SCENARIOS[what]().astream_events(INPUT, version=version)
        try:
            stream = await events if inspect.isawaitable(events) else events
        except (TypeError, ValueError, NotImplementedError):
            continue  # a LangGraph without this version
        await collect(stream, seen)
        assert_hidden(seen)
    seen = ["log"]
    await collect(SCENARIOS[what]().astream_log(INPUT), seen)
    assert_hidden(seen)
    seen = ["as completed"]
    await collect(SCENARIOS[what]().abatch_as_completed([INPUT, INPUT], return_exceptions=True), seen)
    assert_hidden(seen)


@EACH
def test_batches_show_nothing(what: str) -> None:
    seen: list[Any] = ["batch"]
    made = SCENARIOS[what]()
    _quietly(lambda: made.batch([INPUT, INPUT]), seen)
    _quietly(lambda: list(SCENARIOS[what]().batch_as_completed([INPUT, INPUT])), seen)
    if hasattr(made, "stream_events"):
        _quietly(lambda: list(SCENARIOS[what]().stream_events(INPUT, version="v3")), seen)
    assert_hidden(seen)


@EACH
@pytest.mark.parametrize("base", [BaseCallbackHandler, AsyncCallbackHandler])
def test_callbacks_hear_nothing(what: str, base: Any) -> None:
    assert_hidden(view_of_callbacks(SCENARIOS[what](), base))


@EACH
def test_tracers_of_the_context_and_the_console_show_nothing(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTS_DOORS_HANDLER", "1")
    assert_hidden(view_of_context(SCENARIOS[what]()))


@pytest.mark.parametrize("is_bound", [False, True])
@pytest.mark.parametrize("base", [BaseCallbackHandler, AsyncCallbackHandler])
def test_callbacks_that_a_model_was_made_with_hear_what_is_released(base: Any, is_bound: bool) -> None:
    seen: list[Any] = []
    own: Any = {"callbacks": [_handler(base, seen)]}
    answers = [f"the {BAD}", "a good answer"]
    model: Any = Scripted(answers=answers).with_config(own) if is_bound else Scripted(answers=answers, **own)
    guarded = guard_runnable(model | StrOutputParser(), POLICY, audit="memory://", attempts=2)
    assert guarded.invoke("hi") == "a good answer"
    assert not seen
    if not is_bound:
        made = agent(Scripted(answers=[calls("search"), f"the {BAD}", "a good answer"], **own), [search])
        assert made.invoke(INPUT)["messages"][-1].text == "a good answer"
        assert "a good answer" in repr(seen)
        assert BAD not in repr(seen)


@tool
def search(q: str) -> str:
    """Searches."""
    return "found"
