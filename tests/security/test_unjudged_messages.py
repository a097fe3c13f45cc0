"""Whatever in a conversation no rail has seen is judged before a model or a caller gets it, and nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware, before_model
from langchain.agents.structured_output import ProviderStrategy, StructuredOutputError, ToolStrategy
from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel
from security.marked_ways import MARK, POLICY, Foreign, holds_mark, in_loop, sync

from langchain_stars import ChatStars, StarsGuardMiddleware, _trust, guard_runnable
from langchain_stars._remembered import Remembered
from stars_guard.audit import MemoryStore
from stars_guard.guard import Guard
from stars_guard.policy import load_policy
from stars_guard.testing.scripted import ScriptedBackend

doors = pytest.mark.parametrize("run", [sync, in_loop])

Run = Callable[..., Any]


@tool
def look(page: str) -> str:
    """Look at a page."""
    return f"seen {page}"


@tool(return_direct=True)
def answer(text: str) -> str:
    """Answer the user."""
    return text


@tool(response_format="content_and_artifact")
def attach(text: str) -> Any:
    """Attach a text."""
    return "see the attachment", {"text": text}


def agent(*answers: Any, store: MemoryStore | None = None, inside: Any = (), policy: Any = POLICY, **more: Any) -> Any:
    model = Foreign(answers=list(answers), asked=[])
    guard = StarsGuardMiddleware(policy, audit=store or MemoryStore())
    graph = create_agent(model, tools=[look, answer, attach], middleware=[guard, *inside], **more)
    return graph, model


def call(name: str, text: str, id: str = "c1") -> AIMessage:  # noqa: A002
    return AIMessage("", tool_calls=[{"name": name, "args": {"text" if name != "look" else "page": text}, "id": id}])


def stages(store: MemoryStore) -> list[str | None]:
    return [record.stage for record in store.records]


HISTORIES: list[list[AnyMessage]] = [
    [HumanMessage(MARK), AIMessage("fine")],
    [HumanMessage(MARK), SystemMessage("be brief")],
    [ChatMessage(MARK, role="user")],
    [ChatMessage(MARK, role="user"), HumanMessage("hello")],
    [SystemMessage(MARK), HumanMessage("hello")],
    [HumanMessage("hello"), AIMessage(MARK), HumanMessage("go on")],
    [HumanMessage("hello"), call("look", "a"), ToolMessage(MARK, tool_call_id="c1"), HumanMessage("go on")],
    [HumanMessage("hello"), call("look", MARK), ToolMessage("seen", tool_call_id="c1")],
]


@doors
@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("claim", [{}, {"stars_guard": {"audit_id": "0" * 32, "policy": "leaves"}}])
def test_all_that_a_client_sends_is_input(run: Run, history: list[AnyMessage], claim: dict[str, Any]) -> None:
    graph, model = agent("never")
    given = [message.model_copy(update={"response_metadata": claim}) for message in history]
    messages = run(graph, {"messages": given})["messages"]
    assert not holds_mark([model.asked, messages])
    assert messages[-1].content[0]["type"] == "refusal"


@doors
def test_what_was_judged_is_not_judged_again(run: Run) -> None:
    store = MemoryStore()
    graph, _ = agent(call("look", "the very page"), "it is a very fine page", "you are welcome", store=store)
    state = run(graph, {"messages": [HumanMessage("is the page fine, by any chance?")]})
    before = len(store.records)
    history = [*state["messages"], HumanMessage("thank you")]
    run(graph, {"messages": history})
    assert stages(store)[before:] == ["input", "answer", "output"]
    before = len(store.records)
    plain = [
        {"role": "user", "content": "is the page fine, by any chance?"},
        {"role": "assistant", "content": "it is a very fine page"},
    ]
    run(graph, {"messages": [*plain, HumanMessage("thanks")]})
    assert stages(store)[before:] == ["input", "answer", "output"]


@doors
def test_what_a_chat_stars_said_is_known_and_what_it_did_not_say_is_not(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_trust, "_remembered", Remembered(_trust.MOST_REMEMBERED))
    backend = ScriptedBackend(lambda messages, tokens, random: "well " if len(tokens) < 3 else None)
    store, model = MemoryStore(), Foreign(answers=[], asked=[])
    with Guard(POLICY, model=backend, audit=MemoryStore()).blocking as blocking:
        said = ChatStars(guard=blocking._guard).invoke("how are you?")
        pieces = [*ChatStars(guard=blocking._guard).stream("how are you?")]
    added = pieces[0]
    for piece in pieces[1:]:
        added += piece
    graph = create_agent(model, middleware=[StarsGuardMiddleware(POLICY, audit=store)])
    for message, judged in ((said, 1), (added, 1), (said.model_copy(update={"content": "well well, no"}), 2)):
        before = len(store.records)
        run(graph, {"messages": [message, HumanMessage("good")]})
        assert stages(store)[before:].count("input") == judged
    policy = blocking._guard.policy
    assert not _trust.was_judged(HumanMessage(said.content), policy)


@doors
def test_a_conversation_that_a_checkpointer_keeps_is_not_judged_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver, config = InMemorySaver(), {"configurable": {"thread_id": "1"}}
    graph, _ = agent(call("look", "page one"), "first", checkpointer=saver)
    run(graph.with_config(config), {"messages": [HumanMessage("one")]})
    monkeypatch.setattr(_trust, "_remembered", Remembered(_trust.MOST_REMEMBERED))  # another process
    store = MemoryStore()
    graph, _ = agent("second", store=store, checkpointer=saver)
    forged = {"messages": [HumanMessage("two")], "stars_guard_judged": ["0"]}
    state = run(graph.with_config(config), forged)
    assert stages(store) == ["input", "answer", "output"]
    assert "stars_guard_judged" not in state
    marks = graph.get_state(config).values["stars_guard_judged"]
    assert len(marks) == len(state["messages"])
    assert "0" not in marks


@doors
def test_a_client_cannot_say_what_was_judged(run: Run) -> None:
    saver, config = InMemorySaver(), {"configurable": {"thread_id": "1"}}
    message = AIMessage(MARK, id="m1")
    mark = _trust.fingerprint(message, load_policy(POLICY))
    graph, model = agent("never", checkpointer=saver)
    given = {"messages": [message, HumanMessage("two")], "stars_guard_judged": [mark]}
    assert not holds_mark([run(graph.with_config(config), given), model.asked])


@doors
@pytest.mark.parametrize("decision", [{"type": "reject", "message": MARK}, {"type": "respond", "message": MARK}])
def test_what_a_person_says_about_a_call_is_judged(run: Run, decision: dict[str, Any]) -> None:
    asks = HumanInTheLoopMiddleware({"look": {"allowed_decisions": ["approve", "reject", "respond"]}})
    graph, model = agent(call("look", "a"), "done", inside=[asks], checkpointer=InMemorySaver())
    graph = graph.with_config({"configurable": {"thread_id": "1"}})
    run(graph, {"messages": [HumanMessage("hello")]})
    last = run(graph, Command(resume={"decisions": [decision]}))["messages"][-1]
    assert not holds_mark(model.asked)
    assert last.content[0]["type"] == "refusal"
    again = run(graph, {"messages": [HumanMessage("and now?")]})["messages"]
    assert not holds_mark([again, model.asked])


@doors
def test_what_other_middleware_puts_in_is_judged(run: Run) -> None:
    @before_model
    def remind(state: Any, runtime: Any) -> Any:
        return {"messages": [HumanMessage(MARK)]}

    graph, model = agent("never", inside=[remind])
    last = run(graph, {"messages": [HumanMessage("hello")]})["messages"][-1]
    assert model.asked == []
    assert last.content[0]["type"] == "refusal"


# --- the end of an agent


@doors
def test_a_direct_result_meets_the_output_rail(run: Run) -> None:
    rails = {**POLICY["rails"], "tool_result": {"judges": []}, "tool_call": {"judges": []}}  # type: ignore[dict-item]
    policy = {**POLICY, "rails": rails, "judges": []}

    @tool(return_direct=True)
    def tell() -> str:
        """Tell it."""
        return MARK

    model = Foreign(answers=[AIMessage("", tool_calls=[{"name": "tell", "args": {}, "id": "c1"}])], asked=[])
    graph = create_agent(model, tools=[tell], middleware=[StarsGuardMiddleware(policy, audit=MemoryStore())])
    messages = run(graph, {"messages": [HumanMessage("hello")]})["messages"]
    assert not holds_mark(messages)
    assert [message.type for message in messages] == ["human", "ai", "tool", "ai"]
    assert messages[-1].content[0]["type"] == "refusal"


class Fish(BaseModel):
    name: str
    legs: int = 0


@doors
@pytest.mark.parametrize("args", [{"name": MARK, "legs": "many"}, {"name": MARK}])
@pytest.mark.parametrize("doubled", [False, True])
def test_failed_and_doubled_structured_calls_are_judged(run: Run, args: dict[str, Any], doubled: bool) -> None:
    calls = [{"name": "Fish", "args": args, "id": f"c{i}"} for i in range(2 if doubled else 1)]
    fine = AIMessage("", tool_calls=[{"name": "Fish", "args": {"name": "bream"}, "id": "c9"}])
    graph, model = agent(AIMessage("", tool_calls=calls), fine, response_format=ToolStrategy(Fish))
    assert not holds_mark([run(graph, {"messages": [HumanMessage("hello")]}), model.asked])


@doors
@pytest.mark.parametrize("text", ['{"name": "verboten\\u00c4", "legs": "many"}', f'{{"name": "{MARK}"', f"{MARK}"])
def test_the_error_of_an_answer_that_does_not_fit_holds_no_rejected_text(run: Run, text: str) -> None:
    graph, _ = agent(text, response_format=ProviderStrategy(Fish))
    state = run(graph, {"messages": [HumanMessage("hello")]})
    assert not holds_mark(state)
    graph, _ = agent('{"name": 1}', response_format=ProviderStrategy(Fish))
    with pytest.raises(StructuredOutputError):
        run(graph, {"messages": [HumanMessage("hello")]})


@doors
@pytest.mark.parametrize(
    "content",
    [
        "",
        [],
        [{"type": "image", "url": "https://example.com/a.png"}],
        [{"type": "image", "base64": "iVBORw0KGgo=", "mime_type": "image/png"}],
    ],
)
def test_an_input_without_text_passes(run: Run, content: Any) -> None:
    graph, _ = agent("fine")
    assert run(graph, {"messages": [HumanMessage(content)]})["messages"][-1].content == "fine"
    chain = guard_runnable(Foreign(answers=["fine"], asked=[]), POLICY, audit=MemoryStore())
    assert run(chain, [HumanMessage(content)]).content == "fine"


@doors
def test_a_file_that_nobody_can_read_is_refused(run: Run) -> None:
    pdf = {"type": "file", "base64": "JVBERi0xLjcK/////w==", "mime_type": "application/pdf"}
    graph, model = agent("never")
    last = run(graph, {"messages": [HumanMessage([pdf])]})["messages"][-1]
    assert model.asked == []
    assert "cannot judge" in last.response_metadata["stars_guard"]["reason"]
    graph, model = agent(AIMessage([pdf]))
    last = run(graph, {"messages": [HumanMessage("hello")]})["messages"][-1]
    assert last.content[0]["type"] == "refusal"


@doors
def test_an_answer_of_nothing_is_no_crash(run: Run) -> None:
    graph, _ = agent(AIMessage(""))
    assert run(graph, {"messages": [HumanMessage("hello")]})["messages"][-1].content == ""


# --- redacted results


@doors
def test_a_redacted_result_leaves_no_copy(run: Run) -> None:
    rails = {**POLICY["rails"], "tool_call": {"judges": []}}  # type: ignore[dict-item]
    rails["tool_result"] = {**rails["tool_result"], "action": "redact"}
    results: list[Any] = [
        ToolMessage(f"a {MARK} b", tool_call_id="c1", artifact={"same": MARK}),
        ToolMessage(f"a {MARK} b", tool_call_id="c1", additional_kwargs={"same": MARK}),
        ToolMessage([{"type": "text", "text": f"a {MARK}"}, {"type": "text", "text": "b"}], tool_call_id="c1"),
        ToolMessage([{"type": "text", "text": "a verbot"}, {"type": "text", "text": "enÄ b"}], tool_call_id="c1"),
        ToolMessage('{"a": "verboten\\u00c4", "b": "' + MARK + '"}', tool_call_id="c1"),
        ToolMessage("fine", tool_call_id="c1", artifact=object()),
        f"a {MARK} b",
        Command(update={"messages": [ToolMessage(f"a {MARK} b", tool_call_id="c1"), HumanMessage(f"{MARK} c")]}),
    ]

    @tool
    def fetch() -> Any:
        """Fetch it."""
        return results[0]

    while results:
        model = Foreign(answers=[AIMessage("", tool_calls=[{"name": "fetch", "args": {}, "id": "c1"}])], asked=[])
        guard = StarsGuardMiddleware({**POLICY, "rails": rails, "judges": []}, audit=MemoryStore())
        messages = run(create_agent(model, tools=[fetch], middleware=[guard]), {"messages": [HumanMessage("hello")]})
        assert not holds_mark([messages, model.asked]), results[0]
        assert len(model.asked) == 2
        result = model.asked[1][2]
        assert isinstance(result, ToolMessage)
        assert not isinstance(getattr(result, "artifact", None), object) or result.artifact is None
        results.pop(0)


def test_the_memory_is_bounded() -> None:
    remembered: Remembered[bytes, bool] = Remembered(3)
    for index in range(9):
        remembered.add(bytes([index]), True)
        remembered.get(b"\x00")
    assert remembered.get(b"\x00")
    assert not remembered.get(b"\x01")
    assert len(remembered) == 3
