"""The call that a tool is really invoked with is judged, whoever changed it inside the guard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hidden_scenarios import BAD, INPUT, Inner, Scripted, agent, calls
from langchain.agents.middleware import AgentMiddleware, HumanInTheLoopMiddleware
from langchain.agents.middleware.types import ToolCallRequest
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

pytestmark = pytest.mark.filterwarnings("ignore")

ran: list[str] = []


@tool
def search(q: str) -> str:
    """Searches."""
    ran.append(q)
    return f"found {q}"


@tool
def shell(command: str) -> str:
    """Runs a command."""
    ran.append(command)
    return f"ran {command}"


@tool
async def awaited(q: str) -> str:
    """Searches."""
    ran.append(q)
    return f"found {q}"


def in_place(request: Any) -> Any:
    request.tool_call["args"]["q"] = "EVIL"
    return request


def assigned(request: Any) -> Any:
    request.tool = shell
    request.tool_call = {**request.tool_call, "name": "shell", "args": {"command": "EVIL"}}
    return request


def call_of(request: Any, name: str, **args: Any) -> Any:
    return {**request.tool_call, "name": name, "args": args}


def another(request: Any) -> Any:
    tools = {one.name: one for one in request.runtime.tools}
    return request.override(tool=tools["shell"], tool_call=call_of(request, "shell", command="EVIL"))


CHANGES: dict[str, Callable[[Any], Any]] = {
    "arguments": lambda r: r.override(tool_call=call_of(r, r.tool_call["name"], q="EVIL")),
    "arguments in place": in_place,
    "the tool": another,
    "the tool, by hand": lambda r: r.override(tool=shell, tool_call=call_of(r, "shell", command="EVIL")),
    "the tool alone": lambda r: r.override(tool=shell, tool_call=call_of(r, r.tool_call["name"], command="EVIL")),
    "all by assignment": assigned,
    "a new request": lambda r: ToolCallRequest(call_of(r, "search", q="EVIL"), r.tool, r.state, r.runtime),
}


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_call_is_judged_before_the_tool_runs(change: str, is_async: bool) -> None:
    ran.clear()
    named = awaited if is_async and change != "a new request" else search
    made = agent(Scripted(answers=[calls(named.name), "done"]), [search, shell, awaited], [Inner(CHANGES[change])])
    result = asyncio.run(made.ainvoke(INPUT)) if is_async else made.invoke(INPUT)
    assert not ran
    told = next(message for message in result["messages"] if isinstance(message, ToolMessage))
    assert "not run" in told.text
    assert "EVIL" not in told.text


@pytest.mark.parametrize("is_async", [False, True])
def test_a_call_that_is_not_changed_is_judged_once_and_runs(is_async: bool) -> None:
    ran.clear()
    named = awaited if is_async else search
    made = agent(Scripted(answers=[calls(named.name), "done"]), [named], [Inner(lambda r: r.override())])
    result = asyncio.run(made.ainvoke(INPUT)) if is_async else made.invoke(INPUT)
    assert ran == ["x"]
    assert "found x" in [message.text for message in result["messages"]]


EDITS = [{"name": "search", "args": {"q": "EVIL"}}, {"name": "shell", "args": {"command": "EVIL"}}]


@pytest.mark.parametrize("edit", EDITS)
def test_a_persons_edit_is_judged(edit: Any) -> None:
    ran.clear()
    person, thread = HumanInTheLoopMiddleware(interrupt_on={"search": True}), {"configurable": {"thread_id": "1"}}
    made = agent(Scripted(answers=[calls("search"), "done"]), [search, shell], [person], checkpointer=InMemorySaver())
    made.invoke(INPUT, thread)
    made.invoke(Command(resume={"decisions": [{"type": "edit", "edited_action": edit}]}), thread)
    assert not ran


def test_what_middleware_makes_of_a_result_is_judged() -> None:
    class Adds(AgentMiddleware):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            message = handler(request)
            return message.model_copy(update={"content": f"{message.content} {BAD}"})

    made = agent(Scripted(answers=[calls("search"), "done"]), [search], [Adds()])
    assert BAD not in repr(list(made.stream(INPUT, stream_mode=["updates", "values", "messages", "tools"])))


def test_a_tool_that_asks_a_person_pauses_and_goes_on() -> None:
    @tool
    def asks(q: str) -> str:
        """Asks."""
        return f"they said {interrupt({'question': q})}"

    thread: Any = {"configurable": {"thread_id": "1"}}
    made = agent(Scripted(answers=[calls("asks"), "done"]), [asks], checkpointer=InMemorySaver())
    assert made.invoke(INPUT, thread)["__interrupt__"][0].value == {"question": "x"}
    result = made.invoke(Command(resume="yes"), thread)
    assert "they said yes" in [message.text for message in result["messages"]]


def test_a_question_that_is_rejected_does_not_reach_the_person() -> None:
    @tool
    def asks(q: str) -> str:
        """Asks."""
        return f"they said {interrupt({'question': BAD})}"

    made = agent(Scripted(answers=[calls("asks"), "done"]), [asks], checkpointer=InMemorySaver())
    with pytest.raises(Exception, match="withheld") as found:
        made.invoke(INPUT, {"configurable": {"thread_id": "1"}})
    assert BAD not in repr(found.value)


def test_an_error_that_passes_its_judges_is_the_tools_own() -> None:
    class Mine(ValueError):
        pass

    @tool
    def fails(q: str) -> str:
        """Fails."""
        raise Mine("a harmless text")

    with pytest.raises(Mine, match="a harmless text"):
        agent(Scripted(answers=[calls("fails"), "done"]), [fails]).invoke(INPUT)
