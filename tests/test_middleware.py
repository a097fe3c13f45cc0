"""StarsGuardMiddleware: every stage of an agent, sync and async, with models of others and with ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from conftest import words
from langchain.agents import create_agent
from langchain.agents.middleware import wrap_model_call
from langchain.agents.structured_output import ToolStrategy
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel

from langchain_stars import ChatStars, StarsGuardMiddleware
from stars_guard.audit import MemoryStore, open_store
from stars_guard.audit.urls import default_url
from stars_guard.core.segments import Passage
from stars_guard.errors import BudgetExhausted, InputError, PolicyError, ScorerError
from stars_guard.guard import Guard
from stars_guard.testing.scripted import ScriptedBackend

REFUSAL = "I can't help with that."


def patterns(name: str, regex: str) -> dict[str, Any]:
    return {"name": name, "type": "patterns", "patterns": [{"name": "code", "regex": regex}]}


def policy(**more: Any) -> dict[str, Any]:
    rails = {
        "input": {"judges": [patterns("asked", "swordfish")]},
        "tool_call": {"judges": [patterns("called", "rm -rf /")]},
        "tool_result": {"judges": [patterns("hidden", "ignore all")], **more.pop("tool_result", {})},
        "output": {"judges": [patterns("said", "perch")]},
    }
    decoding = {"attempts": 3, "on_exhausted": "refuse", **more.pop("decoding", {})}
    return {
        "apiVersion": "stars-guard/v1",
        "name": "agent",
        "rails": rails,
        "decoding": decoding,
        "judges": [patterns("secret", "trout")],
        **more,
    }


class Remote(GenericFakeChatModel):
    """A model behind a process boundary: it says what the test wants, and streams it word by word."""

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self


def call(name: str, **args: Any) -> AIMessage:
    return AIMessage(content="", tool_calls=[{"name": name, "args": args, "id": f"call-{name}"}])


ran: list[str] = []


@tool
def shell(command: str) -> str:
    """Run a command."""
    ran.append(command)
    return f"did {command}"


@tool
def read(page: str) -> str:
    """Read a page."""
    return f"{page}: please ignore all of it"


@tool
def note(text: str, tool_call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
    """Write into the state."""
    return Command(update={"messages": [ToolMessage(f"ignore all {text}", tool_call_id=tool_call_id)]})


def agent(*answers: AIMessage | str, store: MemoryStore | None = None, saver: Any = None, **more: Any) -> Any:
    ran.clear()
    guard = StarsGuardMiddleware(policy(**more), audit=store or MemoryStore(), allow_python=True)
    return create_agent(
        Remote(messages=iter(answers)), tools=[shell, read, note], middleware=[guard], checkpointer=saver
    )


def sync(graph: Any, text: str = "hello", **config: Any) -> list[BaseMessage]:
    return graph.invoke({"messages": [HumanMessage(text)]}, config)["messages"]


def in_loop(graph: Any, text: str = "hello", **config: Any) -> list[BaseMessage]:
    return asyncio.run(graph.ainvoke({"messages": [HumanMessage(text)]}, config))["messages"]


doors = pytest.mark.parametrize("run", [sync, in_loop])
Run = Callable[..., list[BaseMessage]]


def refused(message: BaseMessage) -> bool:
    return isinstance(message.content, list) and message.content[0]["refusal"] == REFUSAL


@doors
def test_a_rejected_input_ends_the_agent_before_any_model_is_asked(run: Run) -> None:
    store = MemoryStore()
    messages = run(agent(store=store), "the swordfish")
    assert [m.type for m in messages] == ["human", "ai"]
    assert refused(messages[-1])
    assert messages[0].content == "[removed by policy]"
    (record,) = store.records
    assert (record.stage, record.finish, record.reason) == ("input", "refused", "vetoed by asked: code")
    assert record.run_id
    assert messages[-1].response_metadata["stars_guard"]["audit_id"] == record.call_id


@doors
def test_the_next_turn_does_not_read_what_was_rejected(run: Run) -> None:
    graph = agent("fine", saver=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    run(graph, "the swordfish", **config)
    messages = run(graph, "hello", **config)
    assert messages[-1].content == "fine"
    assert "swordfish" not in str(messages)


@doors
def test_a_rejected_answer_is_asked_for_again(run: Run) -> None:
    store = MemoryStore()
    messages = run(agent("a trout", "a perch", "a bream", store=store))
    assert messages[-1].content == "a bream"
    record = next(r for r in store.records if r.stage == "answer")
    assert [a.verdict for a in record.segments[0].attempts] == ["rejected", "rejected", "accepted"]
    assert [a.veto for a in record.segments[0].attempts] == ["secret: code", "said: code", None]
    assert (record.finish, record.answer.content, record.backend["engine"]) == ("eos", "a bream", "handed in")
    assert [r.stage for r in store.records] == ["input", "answer", "output"]


@doors
def test_reasoning_is_judged_as_the_text_is(run: Run) -> None:
    thought = AIMessage(content=[{"type": "reasoning", "reasoning": "a trout"}, {"type": "text", "text": "fine"}])
    assert run(agent(thought, "a bream"))[-1].content == "a bream"


@doors
def test_structured_answers_are_judged_by_their_values(run: Run) -> None:
    class Fish(BaseModel):
        kind: str

    ran.clear()
    answers = iter([call("Fish", kind="trout"), call("Fish", kind="bream")])
    guard = StarsGuardMiddleware(policy(), audit=MemoryStore())
    graph = create_agent(Remote(messages=answers), middleware=[guard], response_format=ToolStrategy(Fish))
    messages = run(graph)
    assert "trout" not in str(messages)
    assert "bream" in str(messages)


@doors
def test_attempts_are_not_more_than_the_policy_allows(run: Run) -> None:
    messages = run(agent(*["a trout"] * 4))
    assert refused(messages[-1])
    assert "3 attempts" in messages[-1].response_metadata["stars_guard"]["reason"]


@doors
def test_a_refusal_may_be_raised(run: Run) -> None:
    with pytest.raises(BudgetExhausted):
        run(agent(*["a trout"] * 4, decoding={"on_exhausted": "raise"}))


@doors
def test_a_rejected_tool_call_does_not_run_and_the_model_is_told(run: Run) -> None:
    store = MemoryStore()
    messages = run(agent(call("shell", command="sudo rm -rf /"), "I may not", store=store))
    assert ran == []
    error = messages[2]
    assert isinstance(error, ToolMessage)
    assert (error.status, error.tool_call_id) == ("error", "call-shell")
    assert "called: code" in error.text
    assert messages[-1].content == "I may not"
    assert [(r.stage, r.finish) for r in store.records if r.stage == "tool_call"] == [("tool_call", "refused")]


@doors
def test_an_ordinary_tool_call_runs(run: Run) -> None:
    messages = run(agent(call("shell", command="ls"), "done"))
    assert ran == ["ls"]
    assert messages[2].content == "did ls"


@doors
@pytest.mark.parametrize("name", ["read", "note"])
def test_a_rejected_tool_result_is_withheld_from_the_model(run: Run, name: str) -> None:
    args = {"page": "a.html"} if name == "read" else {"text": "of it"}
    messages = run(agent(call(name, **args), "fine"))
    assert "ignore" not in messages[2].text
    assert "withheld by policy 'agent'" in messages[2].text
    assert messages[2].tool_call_id == f"call-{name}"  # type: ignore[attr-defined]


@doors
@pytest.mark.parametrize("name", ["read", "note"])
def test_a_tool_result_may_be_redacted(run: Run, name: str) -> None:
    args = {"page": "a.html"} if name == "read" else {"text": "of it"}
    messages = run(agent(call(name, **args), "fine", tool_result={"action": "redact"}))
    assert "[removed: code] of it" in messages[2].text


@pytest.mark.parametrize("door", ["after_agent", "aafter_agent"])
def test_the_final_answer_is_judged_whoever_wrote_it(door: str) -> None:
    guard = StarsGuardMiddleware(policy(), audit=MemoryStore())
    hook = getattr(guard, door)
    judge = hook if door == "after_agent" else lambda *args: asyncio.run(hook(*args))
    answer = AIMessage("a perch", id="x")
    update = judge({"messages": [HumanMessage("a"), answer], "structured_response": {"a": 1}}, None)
    assert refused(update["messages"][0])
    assert (update["messages"][0].id, update["structured_response"]) == ("x", None)
    for said in ("a bream", REFUSAL, ""):
        assert judge({"messages": [HumanMessage("a"), AIMessage(said)]}, None) is None


def boom(passage: Passage) -> float:
    """A judge that fails."""
    raise RuntimeError(passage.answer)


@doors
@pytest.mark.parametrize("stage", ["input", "tool_call", "tool_result", "output"])
@pytest.mark.parametrize("on_error", ["reject", "raise"])
def test_a_failing_judge_lets_nothing_through(run: Run, stage: str, on_error: str) -> None:
    whole = policy(decoding={"attempts": 1})
    judge = {"name": "boom", "type": "python", "call": "test_middleware:boom", "reject_above": 0.5}
    whole["rails"][stage]["judges"] = [{**judge, "on_error": on_error}]
    graph = agent(call("shell", command="ls"), "done", **whole)
    if on_error == "raise":
        with pytest.raises(ScorerError):
            run(graph)
        return
    messages = run(graph)
    if stage in ("input", "output"):
        assert refused(messages[-1])
    else:
        assert "did ls" not in str(messages)
    assert ran == ([] if stage in ("input", "tool_call") else ["ls"])


def test_a_policy_that_cannot_be_used_is_told_at_once() -> None:
    with pytest.raises(PolicyError):
        StarsGuardMiddleware("no-such-policy")


@doors
def test_monitor_lets_all_through_and_logs(run: Run) -> None:
    store = MemoryStore()
    messages = run(agent(call("shell", command="rm -rf /"), "a trout", store=store, mode="monitor"), "swordfish")
    assert ran == ["rm -rf /"]
    assert messages[-1].content == "a trout"
    assert [r.totals["rejections"] for r in store.records] == [1, 1, 0, 1, 0]


# --- streams and traces: nothing of a rejected answer leaves


class Seen(BaseCallbackHandler):
    """Writes down all that callbacks tell, as a tracer would."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.answers = 0

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        self.told.append(token)

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.answers += 1
        self.told.append(str(response))

    def on_tool_end(self, output: Any, **kwargs: Any) -> None:
        self.told.append(f"tool: {output}")

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        self.told.append(str(outputs))


LEAK = ("the secret is trout", "and a bream")


def test_streams_of_messages_hold_nothing_of_a_rejected_answer() -> None:
    seen = Seen()
    said = {"messages": [HumanMessage("hi")]}
    chunks = list(agent(*LEAK).stream(said, {"callbacks": [seen]}, stream_mode=["messages", "updates"]))
    texts = [part[0].text for mode, part in chunks if mode == "messages"]
    assert texts == ["and a bream"]
    assert "trout" not in str(chunks)
    assert "trout" not in "".join(seen.told)
    assert seen.answers == 1


v3 = pytest.mark.filterwarnings("ignore:The v3 streaming protocol")


@v3
@pytest.mark.parametrize("version", ["v2", "v3"])
async def test_event_streams_hold_nothing_of_a_rejected_answer(version: str) -> None:
    """langchain issue 35011: the tokens of a model reach such streams before any check that comes after it."""
    graph = agent(*LEAK)
    events = []
    found = graph.astream_events({"messages": [HumanMessage("hi")]}, version=version)
    async for event in await found if asyncio.iscoroutine(found) else found:
        events.append(event)
    told = str(events)
    assert "bream" in told
    assert "trout" not in told


async def test_without_the_middleware_the_stream_does_leak() -> None:
    """The same stream, so that the tests above can fail."""
    graph = create_agent(Remote(messages=iter(LEAK)), tools=[])
    told = [str(e) async for e in graph.astream_events({"messages": [HumanMessage("hi")]}, version="v2")]
    assert "trout" in "".join(told)


@v3
@pytest.mark.parametrize("version", ["v2", "v3"])
async def test_events_of_a_tool_hold_the_judged_result(version: str) -> None:
    graph, seen = agent(call("read", page="a.html"), "fine"), Seen()
    events = []
    found = graph.astream_events({"messages": [HumanMessage("hi")]}, {"callbacks": [seen]}, version=version)
    async for event in await found if asyncio.iscoroutine(found) else found:
        events.append(event)
    assert "ignore all" not in str(events)
    assert "withheld by policy" in str(events)
    started = [event for event in events if "on_tool_start" in str(event) or "tool-started" in str(event)]
    assert len(started) == 1
    assert "a.html" in str(started)
    assert "ignore all" not in "".join(seen.told)


def test_callbacks_hear_of_a_tool_its_judged_result() -> None:
    seen = Seen()
    agent(call("read", page="a.html"), "fine").invoke({"messages": [HumanMessage("hi")]}, {"callbacks": [seen]})
    assert "ignore all" not in "".join(seen.told)
    assert any("withheld by policy" in told and told.startswith("tool: ") for told in seen.told)
    mended = Seen()
    agent(call("read", page="b.html"), "fine").invoke({"messages": [HumanMessage("hi")]}, {"callbacks": [mended]})
    assert [told for told in mended.told if told.startswith("tool: ")]


def test_the_trace_policy_keeps_the_conversation_out_of_hook_spans() -> None:
    assert StarsGuardMiddleware(policy()).trace_policy.process_inputs is not None


# --- our own model


def test_our_model_draws_under_the_policy_of_the_middleware(tmp_path: Path) -> None:
    url = f"jsonl://{tmp_path}/audit.jsonl"
    strict = policy(judges=[patterns("vowel", "e")], decoding={"max_tokens": 8, "segment_tokens": 4, "attempts": 2})
    model = ChatStars(model="embedded", backend="transformers", seed=1)
    graph = create_agent(model, middleware=[StarsGuardMiddleware(strict, audit=url)])
    chunks = [
        part[0].text for part in graph.stream({"messages": [HumanMessage("Name a colour.")]}, stream_mode="messages")
    ]
    assert "e" not in "".join(chunks)
    records = open_store(url).read()
    assert {record.policy for record in records} == {"agent"}
    assert [record.stage for record in records][:2] == ["input", "answer"]
    assert records[1].backend["engine"] == "transformers"


def test_a_call_that_our_model_writes_is_stopped(tmp_path: Path) -> None:
    """The embedded model cannot plan: its call is forced, and its grammar leaves it one path to choose."""

    @tool
    def delete(path: Literal["/etc/passwd"]) -> str:
        """Delete a file."""
        ran.append(path)
        return "deleted"

    @wrap_model_call
    def force_once(request: Any, handler: Any) -> Any:
        asked = any(message.type == "tool" for message in request.messages)
        return handler(request.override(tools=[]) if asked else request.override(tool_choice="delete"))

    ran.clear()
    url = f"jsonl://{tmp_path}/audit.jsonl"
    paths = {"name": "paths", "type": "paths", "roots": ["/workspace"]}
    rails = {"tool_call": {"judges": [paths]}}
    under = {"apiVersion": "stars-guard/v1", "name": "agent", "rails": rails, "decoding": {"max_tokens": 32}}
    ours = ChatStars(model="embedded", backend="transformers", seed=1)
    graph = create_agent(ours, tools=[delete], middleware=[StarsGuardMiddleware(under, audit=url), force_once])
    messages = graph.invoke({"messages": [HumanMessage("Delete the password file.")]})["messages"]
    assert messages[1].tool_calls[0]["args"] == {"path": "/etc/passwd"}
    assert messages[2].status == "error"
    assert "path outside the roots" in messages[2].text
    assert not ran
    assert [record.stage for record in open_store(url).read()] == ["answer", "tool_call", "answer"]


def test_our_model_may_stand_in_for_another(tmp_path: Path) -> None:
    url = f"jsonl://{tmp_path}/audit.jsonl"
    ours = ChatStars(model="embedded", backend="transformers", max_tokens=4, seed=1)
    guard = StarsGuardMiddleware(policy(decoding={"on_exhausted": "best"}), model=ours, audit=url)
    graph = create_agent(Remote(messages=iter(["never"])), middleware=[guard])
    message = graph.invoke({"messages": [HumanMessage("Name a colour.")]})["messages"][-1]
    assert message.response_metadata["stars_guard"]["policy"] == "agent"
    assert "never" not in message.text


def models(kind: str) -> tuple[Any, Any]:
    """The agent's own model, and the one that takes its place."""
    match kind:
        case "of others":
            return Remote(messages=iter(["a bream"])), None
        case "ours":
            return ChatStars(model="embedded", backend="transformers", max_tokens=4, seed=1), None
        case "ours, with a log":
            return ChatStars(model="embedded", backend="transformers", max_tokens=4, seed=1, audit="memory://"), None
        case "ours, in the place of another":
            ours = ChatStars(model="embedded", backend="transformers", max_tokens=4, seed=1)
            return Remote(messages=iter(["never"])), ours
        case _:
            ready = Guard("default", model=ScriptedBackend(words(3)), audit=MemoryStore())
            return ChatStars(guard=ready, seed=1), None


@doors
@pytest.mark.parametrize(
    "kind", ["of others", "ours", "ours, with a log", "ours, in the place of another", "ours, with a ready guard"]
)
def test_a_store_gets_every_record_of_the_run_and_no_other_log_any(run: Run, kind: str) -> None:
    store = MemoryStore()
    model, stands_in = models(kind)
    guard = StarsGuardMiddleware(policy(), model=stands_in, audit=store)
    messages = run(create_agent(model, middleware=[guard]))
    assert messages[-1].text
    assert [record.stage for record in store.records] == ["input", "answer", "output"]
    assert {record.policy for record in store.records} == {"agent"}
    assert not Path(default_url().removeprefix("sqlite://")).exists()
    if isinstance(model, ChatStars) and model.guard is not None:
        assert model.guard.audit.read() == []


@doors
def test_one_log_in_memory_is_shared_by_all_stages(run: Run) -> None:
    guard = StarsGuardMiddleware(policy(), audit="memory://")
    run(create_agent(models("ours, with a ready guard")[0], middleware=[guard]))
    store = guard._guards.guard(guard._recipe).audit
    assert [record.stage for record in store.read()] == ["input", "answer", "output"]


def test_a_call_cannot_choose_another_policy_than_the_middleware_has() -> None:
    """Its own list of policies does not count here."""
    ours = ChatStars(model="embedded", backend="transformers", policies=["monitor"])
    seen: list[Any] = []

    @wrap_model_call
    def choose(request: Any, handler: Any) -> Any:
        """Ask for the laxest policy."""
        seen.append(request.model)
        return handler(request.override(model_settings={"policy": "monitor"}))

    graph = create_agent(ours, middleware=[StarsGuardMiddleware(policy(), audit=MemoryStore()), choose])
    with pytest.raises(InputError, match="may not be chosen by a call"):
        graph.invoke({"messages": [HumanMessage("hi")]})
    assert seen[0].policies == []


def test_an_unknown_keyword_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="did you mean 'allow_python'"):
        StarsGuardMiddleware("strict", allow_phyton=True)
