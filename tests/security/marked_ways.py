"""Every way into and out of chains and agents that forbid a mark, with messages that hold it in one of their places.

The functions `into_…` and `out_of_…` give the places whose mark came through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command

from langchain_stars import StarsGuardMiddleware, guard_runnable
from stars_guard.audit import MemoryStore
from stars_guard.errors import InputError, Refused

from .leaves import MARK, message_cases

__all__ = [
    "ANSWERS",
    "CASES",
    "MARK",
    "POLICY",
    "RESULTS",
    "Case",
    "Door",
    "Foreign",
    "commands",
    "guarded",
    "holds_mark",
    "in_loop",
    "into_a_chain",
    "into_an_agent",
    "out_of_a_chain",
    "out_of_a_tool",
    "out_of_an_agent",
    "passed",
    "streamed",
    "streamed_in_loop",
    "sync",
]


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
Case = tuple[str, BaseMessage]


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


def into_a_chain(run: Door, cases: Iterable[Case], shape: str = "list") -> list[str]:
    """The chain's input reaches its model, or comes back."""
    model = Foreign()
    chain: Runnable[Any, Any] = guarded(graph_of(model) if shape == "state" else model)
    if shape == "prompt":
        prompt = ChatPromptTemplate.from_messages([("system", "be brief"), ("placeholder", "{messages}")])
        chain = guarded(prompt | model)
    leaks = []
    for name, message in cases:
        model.says()
        given = [message, HumanMessage("hello")]
        out = passed(run, chain, given if shape == "list" else {"messages": given})
        if holds_mark(model.asked) or holds_mark(out):
            leaks.append(name)
    return leaks


def out_of_a_chain(run: Door, cases: Iterable[Case], shape: str = "model") -> list[str]:
    """The chain's answer reaches its caller."""
    model = Foreign()
    chain = guarded(graph_of(model) if shape == "graph" else model)
    leaks = []
    for name, answer in cases:
        model.says(answer.model_copy(deep=True))
        if holds_mark(passed(run, chain, "hello" if shape == "model" else {"messages": [HumanMessage("hello")]})):
            leaks.append(name)
    return leaks


@tool
def look(page: str) -> Any:
    """Look at a page."""
    return results[-1]


results: list[Any] = []


def agent(model: Foreign) -> Any:
    return create_agent(model, tools=[look], middleware=[StarsGuardMiddleware(POLICY, audit=MemoryStore())])


def into_an_agent(run: Door, cases: Iterable[Case], after: str | None = "hello") -> list[str]:
    """The agent's input reaches its model, or comes back."""
    model = Foreign()
    graph, leaks = agent(model), []
    for name, message in cases:
        model.says()
        history = [message, *([HumanMessage(after)] if after else [])]
        if holds_mark(passed(run, graph, {"messages": history})) or holds_mark(model.asked):
            leaks.append(name)
    return leaks


def out_of_an_agent(run: Door, cases: Iterable[Case]) -> list[str]:
    """The agent's answer reaches its caller."""
    model = Foreign()
    graph, leaks = agent(model), []
    for name, answer in cases:
        model.says(answer.model_copy(deep=True))
        if holds_mark(passed(run, graph, {"messages": [HumanMessage("hello")]})):
            leaks.append(name)
    return leaks


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


def out_of_a_tool(run: Door, cases: Iterable[tuple[str, Any]]) -> list[str]:
    """The tool's result reaches the model or the caller."""
    model = Foreign()
    graph, leaks = agent(model), []
    for name, result in cases:
        model.says(call())
        result = result.model_copy(deep=True) if isinstance(result, BaseMessage) else result
        results.append(result)
        if isinstance(result, ToolMessage) and not holds_mark(result.tool_call_id):
            result.tool_call_id = "c1"
        out = passed(run, graph, {"messages": [HumanMessage("hello")]})
        if holds_mark(out) or holds_mark(model.asked):
            leaks.append(name)
    return leaks
