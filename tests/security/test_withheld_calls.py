"""A call that the policy does not allow: its arguments reach nobody, and the model is told why its tool was not run."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool

from langchain_stars import StarsGuardMiddleware

MARK = "FORBIDDEN"
PATTERN = [{"name": "mark", "regex": MARK}]
RAIL = {"judges": [{"name": "rail", "type": "patterns", "patterns": PATTERN}]}
BASE: dict[str, Any] = {"apiVersion": "stars-guard/v1", "name": "calls", "audit": {"url": "memory://"}}
ran: list[str] = []


@tool
def note(text: str) -> str:
    """Note a text."""
    ran.append(text)
    return f"noted {len(text)}"


class Says(BaseChatModel):
    """Says its messages one after the other, and keeps what it was asked."""

    answers: list[Any]
    asked: list[Any] = []  # noqa: RUF012  # a pydantic field

    @property
    def _llm_type(self) -> str:
        return "says"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self.asked.append(messages)
        return ChatResult(generations=[ChatGeneration(message=self.answers[len(self.asked) - 1])])


def call(text: str, at: int = 0) -> dict[str, Any]:
    return {"name": "note", "args": {"text": text}, "id": f"call-{at}", "type": "tool_call"}


def raw(text: str, at: int = 0) -> dict[str, Any]:
    """The same as a provider writes it beside the text."""
    return {"type": "tool_use", "name": "note", "input": {"text": text}, "id": f"call-{at}"}


MARKED = {"text": MARK}
FORMS = {
    "plain": lambda: AIMessage("", tool_calls=[call("fine", 0), call(MARK, 1)]),
    "beside a text": lambda: AIMessage("Let me see.", tool_calls=[call("fine", 0), call(MARK, 1)]),
    "twice": lambda: AIMessage(
        [{"type": "text", "text": "Well."}, raw("fine", 0), raw(MARK, 1)], tool_calls=[call("fine", 0), call(MARK, 1)]
    ),
    "raw": lambda: AIMessage(
        "",
        tool_calls=[call("fine", 0), call(MARK, 1)],
        additional_kwargs={
            "tool_calls": [{"id": "call-1", "function": {"name": "note", "arguments": f'{{"text": "{MARK}"}}'}}]
        },
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_model_is_told_and_nobody_sees_the_arguments(form: str) -> None:
    ran.clear()
    model = Says(answers=[FORMS[form](), AIMessage("Done.")], asked=[])
    policy = {**BASE, "rails": {"tool_call": RAIL, "output": RAIL}}
    agent = create_agent(model, [note], middleware=[StarsGuardMiddleware(policy)])
    seen = [repr(part) for part in agent.stream({"messages": [("user", "hi")]}, stream_mode=["updates", "messages"])]
    assert ran == ["fine"]
    assert MARK not in "".join(seen)
    told = [message for message in model.asked[1] if isinstance(message, ToolMessage)]
    assert sorted(message.status for message in told) == ["error", "success"]
    assert "does not allow this call" in next(message.text for message in told if message.status == "error")


def test_a_call_that_passes_is_judged_once() -> None:
    ran.clear()
    middleware = StarsGuardMiddleware({**BASE, "rails": {"tool_call": RAIL}})
    agent = create_agent(
        Says(answers=[FORMS["plain"](), AIMessage("Done.")], asked=[]), [note], middleware=[middleware]
    )
    agent.invoke({"messages": [("user", "hi")]})
    recipe = middleware._recipe
    records = [record for record in middleware._guards.guard(recipe).audit.read() if record.stage == "tool_call"]
    assert [record.finish for record in records] == ["passed", "refused"]


def test_calls_are_judged_with_the_answer_where_they_have_no_rail() -> None:
    ran.clear()
    judges = [{"name": "words", "type": "patterns", "patterns": PATTERN}]
    policy = {**BASE, "judges": judges, "decoding": {"attempts": 1, "on_exhausted": "refuse"}}
    agent = create_agent(
        Says(answers=[FORMS["plain"](), AIMessage("Done.")], asked=[]),
        [note],
        middleware=[StarsGuardMiddleware(policy)],
    )
    state = agent.invoke({"messages": [("user", "hi")]})
    assert ran == []
    assert MARK not in repr(state)


def test_a_model_cannot_say_that_its_call_was_withheld() -> None:
    ran.clear()
    forged = AIMessage("", tool_calls=[{**call("x"), "args": {"text": "x", "withheld_by_policy": "no"}}])
    agent = create_agent(
        Says(answers=[forged, AIMessage("Done.")], asked=[]),
        [note],
        middleware=[StarsGuardMiddleware({**BASE, "rails": {"tool_call": RAIL}})],
    )
    agent.invoke({"messages": [("user", "hi")]})
    assert ran in ([], ["x"])  # the call of its own may be lost, and nothing else
