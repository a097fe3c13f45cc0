"""What middleware and tools change inside an agent is judged before it leaves, wherever they put it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hidden_scenarios import BAD, INPUT, POLICY, Scripted, agent, calls, gives_it
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain.agents.middleware.types import ExtendedModelResponse, ModelResponse
from langchain.tools import ToolRuntime
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.types import Command

from langchain_stars import ChatStars, StarsGuardMiddleware, guard_runnable
from stars_guard.guard import Guard
from stars_guard.testing import ScriptedBackend

pytestmark = pytest.mark.filterwarnings("ignore")

LOOSE: dict[str, Any] = {"apiVersion": "stars-guard/v1", "name": "loose", "judges": []}
NO_OUTPUT = {**POLICY, "rails": {name: rail for name, rail in POLICY["rails"].items() if name != "output"}}
ALL_VIEWS = ["messages", "values", "updates", "debug", "tasks"]


def ours(text: str = "fine", policy: Any = LOOSE) -> ChatStars:
    pieces = [text[at : at + 6] for at in range(0, len(text), 6)]
    backend = ScriptedBackend(lambda m, prefix, r: pieces[len(prefix)] if len(prefix) < len(pieces) else None)
    return ChatStars(guard=Guard(policy, model=backend, audit="memory://"))


def hook(name: str, function: Callable[..., Any]) -> AgentMiddleware:
    made: AgentMiddleware = type(f"Inner_{name}", (AgentMiddleware,), {name: function})()
    return made


def final(*messages: Any) -> Callable[..., Any]:
    return lambda self, state, runtime: {"messages": list(messages)}


def same_id(self: Any, state: Any, runtime: Any) -> Any:
    return {"messages": [HumanMessage(BAD, id=state["messages"][0].id)]}


def changes_in_place(self: Any, state: Any, runtime: Any) -> None:
    state["messages"][0].content = BAD


def commands(self: Any, request: Any, handler: Any) -> Any:
    update = {"messages": [AIMessage(BAD), AIMessage("fine")]}
    return ExtendedModelResponse(model_response=handler(request), command=Command(update=update))


LATE: dict[str, AgentMiddleware] = {
    "before the last message, after the model": hook("after_model", final(AIMessage(BAD), AIMessage("fine"))),
    "before the last message, at the end": hook("after_agent", final(AIMessage(BAD), AIMessage("fine"))),
    "of a person": hook("after_agent", final(HumanMessage(BAD), AIMessage("fine"))),
    "of the system": hook("after_agent", final(SystemMessage(BAD), AIMessage("fine"))),
    "of a tool": hook("after_agent", final(ToolMessage(BAD, tool_call_id="c"), AIMessage("fine"))),
    "in the place of another": hook("after_agent", same_id),
    "in place": hook("after_agent", changes_in_place),
    "beside a model's answer": hook("wrap_model_call", commands),
}


@pytest.mark.parametrize("where", LATE)
def test_a_message_that_comes_late_is_judged(where: str) -> None:
    made = agent(Scripted(answers=["fine"]), inner=[LATE[where]])
    state = made.invoke(INPUT)
    assert BAD not in repr(state)
    assert state["messages"][-1].response_metadata["finish_reason"] == "refused"


def test_a_state_that_a_tool_changes_in_place_is_judged() -> None:
    @tool
    def meddle(q: str, runtime: ToolRuntime) -> str:
        """Meddle with the state."""
        runtime.state["messages"][0].content = BAD
        runtime.state["messages"].append(AIMessage(BAD))
        return "done"

    made = agent(Scripted(answers=[calls("meddle"), "fine"]), [meddle])
    assert BAD not in repr(made.invoke(INPUT))


def copied(model: Any) -> Any:
    return model.model_copy(update={"guard": ours(BAD).guard})


def copied_deep(model: Any) -> Any:
    made = model.model_copy(deep=True)
    made.__dict__["guard"] = ours(BAD).guard
    return made


def changed(model: Any) -> Any:
    model.guard = ours(BAD).guard
    return model


def changed_behind(model: Any) -> Any:
    model.__dict__["guard"] = ours(BAD).guard
    return model


@pytest.mark.parametrize("change", [copied, copied_deep, changed, changed_behind])
def test_a_guarded_model_that_is_changed_is_a_foreign_one(change: Any) -> None:
    inner = hook(
        "wrap_model_call", lambda self, request, handler: handler(request.override(model=change(request.model)))
    )
    guard = StarsGuardMiddleware(NO_OUTPUT, audit="memory://")
    made = create_agent(ours(), tools=[], middleware=[guard, inner])
    assert BAD not in repr(list(made.stream(INPUT, stream_mode=ALL_VIEWS)))


@pytest.mark.parametrize("field", ["name", "id", "of_its_own"])
def test_every_field_of_a_shown_answer_counts(field: str) -> None:
    def edits(self: Any, request: Any, handler: Any) -> Any:
        response = handler(request)
        setattr(response.result[0], field, BAD)
        return response

    guard = StarsGuardMiddleware(NO_OUTPUT, audit="memory://")
    made = create_agent(ours(), tools=[], middleware=[guard, hook("wrap_model_call", edits)])
    assert BAD not in repr(list(made.stream(INPUT, stream_mode=ALL_VIEWS)))


def test_the_answer_of_an_agent_with_a_name_is_judged_once() -> None:
    guard = StarsGuardMiddleware(NO_OUTPUT, audit="memory://")
    state = create_agent(ours(), tools=[], middleware=[guard], name="bob").invoke(INPUT)
    assert state["messages"][-1].name == "bob"
    assert [record.stage for record in guard._guards._memory.records] == ["input", "answer"]


def test_a_reply_beside_a_shown_call_is_judged() -> None:
    def replies(self: Any, request: Any, handler: Any) -> Any:
        if isinstance(request.messages[-1], ToolMessage):
            return AIMessage("fine")
        (answer,) = handler(request).result
        return ModelResponse(result=[answer, *(ToolMessage(BAD, tool_call_id=one["id"]) for one in answer.tool_calls)])

    guard = StarsGuardMiddleware(NO_OUTPUT, audit="memory://")
    model = ours('<tool_call>{"name":"gives_it","arguments":{"q":"x"}}</tool_call>')
    made = create_agent(model, tools=[gives_it], middleware=[guard, hook("wrap_model_call", replies)])
    assert BAD not in repr(list(made.stream(INPUT, stream_mode=ALL_VIEWS)))


def test_what_a_looser_policy_has_passed_is_judged_again() -> None:
    asked: list[str] = []

    class Asked(Scripted):
        def _generate(self, messages: Any, **kwargs: Any) -> Any:  # type: ignore[override]
            asked.append(repr(messages))
            return super()._generate(messages, **kwargs)

    saver, config = InMemorySaver(), {"configurable": {"thread_id": "1"}}
    patterns = {"name": "in", "type": "patterns", "patterns": [{"name": "k", "regex": "zzz"}]}
    before = StarsGuardMiddleware({**LOOSE, "rails": {"input": {"judges": [patterns]}}}, audit="memory://")
    create_agent(Scripted(answers=["fine"]), tools=[], middleware=[before], checkpointer=saver).invoke(
        {"messages": [HumanMessage(f"say {BAD}")]}, config
    )
    made = agent(Asked(answers=["fine"]), checkpointer=saver)
    assert made.invoke(INPUT, config)["messages"][-1].response_metadata["finish_reason"] == "refused"
    made.invoke(INPUT, config)
    assert asked
    assert BAD not in repr(asked)


def test_a_field_that_was_not_judged_is_new() -> None:
    made = agent(Scripted(answers=["fine", "fine"]))
    first, answer = made.invoke(INPUT)["messages"]
    forged = AIMessage(**answer.model_dump(exclude={"type"}), of_its_own=BAD)
    assert BAD not in repr(made.invoke({"messages": [first, forged, HumanMessage("more")]}))


MORE: dict[str, Callable[[Any], list[Any]]] = {
    "a document": lambda messages: [*messages, HumanMessage(f"found {BAD}")],
    "a turn before": lambda messages: [AIMessage(BAD), *messages],
    "a result": lambda messages: [*messages, calls("look"), ToolMessage(BAD, tool_call_id="c1")],
    "a name": lambda messages: [*messages, HumanMessage("fine", name=BAD)],
    "an edit": lambda messages: [messages[0].model_copy(update={"content": BAD})],
    "in place": lambda messages: [setattr(messages[0], "content", BAD), *messages][1:],
}


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("is_ours", [False, True])
@pytest.mark.parametrize("what", MORE)
def test_what_is_put_before_a_model_is_judged(what: str, is_ours: bool, is_async: bool) -> None:
    asked: list[str] = []

    class Asked(Scripted):
        def _generate(self, messages: Any, **kwargs: Any) -> Any:  # type: ignore[override]
            asked.append(repr(messages))
            return super()._generate(messages, **kwargs)

    def more(self: Any, request: Any, handler: Any) -> Any:
        return handler(request.override(messages=MORE[what](request.messages)))

    name = "awrap_model_call" if is_async else "wrap_model_call"
    model = ours(policy=LOOSE) if is_ours else Asked(answers=["fine"])
    made = agent(model, inner=[hook(name, more)])
    state = asyncio.run(made.ainvoke(INPUT)) if is_async else made.invoke(INPUT)
    assert not asked
    assert state["messages"][-1].response_metadata["finish_reason"] == "refused"


def test_what_is_put_before_a_model_and_passes_is_judged_once() -> None:
    def more(self: Any, request: Any, handler: Any) -> Any:
        return handler(request.override(messages=[*request.messages, HumanMessage("found: a fine text")]))

    guard = StarsGuardMiddleware(POLICY, audit="memory://")
    made = create_agent(Scripted(answers=["fine"]), tools=[], middleware=[guard, hook("wrap_model_call", more)])
    assert [made.invoke(INPUT)["messages"][-1].text for _ in range(2)] == ["fine"] * 2
    stages = [record.stage for record in guard._guards._memory.records]
    assert stages == ["input", "input", "answer", "output", "input", "answer", "output"]


def asks_a_model(passage: Any) -> float:
    """A judge that asks a model of LangChain."""
    return float("yes" in Scripted(answers=["no"]).invoke(f"Is this EVIL? {passage.answer}").text)


async def awaits_a_model(passage: Any) -> float:
    """A judge that asks a model of LangChain."""
    return float("yes" in (await Scripted(answers=["no"]).ainvoke(f"Is this EVIL? {passage.answer}")).text)


@pytest.mark.parametrize("judge", [asks_a_model, awaits_a_model])
@pytest.mark.parametrize("is_ours", [False, True])
def test_a_judge_may_ask_a_model(judge: Any, is_ours: bool) -> None:
    asks = {"name": "asks", "type": "python", "call": f"{__name__}:{judge.__name__}", "reject_above": 0.5}
    guard = StarsGuardMiddleware({**POLICY, "judges": [asks]}, audit="memory://", allow_python=True)
    made = create_agent(ours() if is_ours else Scripted(answers=["fine"]), tools=[], middleware=[guard])
    assert made.invoke(INPUT)["messages"][-1].text == "fine"
    assert asyncio.run(made.ainvoke(INPUT))["messages"][-1].text == "fine"


class Hears(BaseCallbackHandler):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.heard.append(repr(response.generations))


@pytest.mark.parametrize("is_async", [False, True])
def test_a_model_that_is_assigned_has_no_callbacks_of_its_own(is_async: bool) -> None:
    hears = Hears()

    def assigns(self: Any, request: Any, handler: Any) -> Any:
        request.model = Scripted(answers=[BAD], callbacks=[hears])
        return handler(request)

    name = "awrap_model_call" if is_async else "wrap_model_call"
    made = agent(Scripted(answers=["fine"]), inner=[hook(name, assigns)])
    seen = asyncio.run(made.ainvoke(INPUT)) if is_async else made.invoke(INPUT)
    assert BAD not in repr([seen, hears.heard])


def test_listeners_inside_a_guarded_chain_hear_nothing() -> None:
    heard: list[str] = []
    model = Scripted(answers=[f"one {BAD}"]).with_listeners(on_end=lambda run: heard.append(repr(run.outputs)))
    retried = RunnableLambda(lambda text: f"say {text}") | model.with_retry()
    for inside in (model, retried, {"a": model} | RunnableLambda(str)):
        guarded = guard_runnable(inside, POLICY, audit="memory://")
        assert BAD not in repr([guarded.invoke("hi"), list(guarded.stream("hi")), asyncio.run(guarded.ainvoke("hi"))])
    assert BAD not in repr(heard)


def test_a_result_that_a_client_sends_meets_the_rail_of_results() -> None:
    asked: list[str] = []

    class Asked(Scripted):
        def _generate(self, messages: Any, **kwargs: Any) -> Any:  # type: ignore[override]
            asked.append(repr(messages))
            return super()._generate(messages, **kwargs)

    rails = {"tool_result": POLICY["rails"]["tool_result"]}
    guard = StarsGuardMiddleware({**POLICY, "judges": [], "rails": rails}, audit="memory://")
    sent = [HumanMessage("hi"), calls("gives_it"), ToolMessage(BAD, tool_call_id="c1"), HumanMessage("go on")]
    made = create_agent(Asked(answers=["fine"]), tools=[], middleware=[guard])
    assert BAD not in repr(made.invoke({"messages": sent}))
    assert not asked


@pytest.mark.parametrize("is_assigned", [False, True])
def test_what_middleware_writes_in_a_model_call_is_not_streamed(is_assigned: bool) -> None:
    def writes(self: Any, request: Any, handler: Any) -> Any:
        if is_assigned:
            request.runtime = request.runtime
        response = handler(request.override(messages=request.messages))
        request.runtime.stream_writer(response.result[0].text)
        get_stream_writer()(response.result[0].text)
        return response

    made = agent(Scripted(answers=[BAD]), inner=[hook("wrap_model_call", writes)])
    assert BAD not in repr(list(made.stream(INPUT, stream_mode=[*ALL_VIEWS, "custom"])))
