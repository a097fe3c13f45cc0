"""Agents whose tool calls a person is asked about, how runs pause and go on, and what a restart forgets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hidden_scenarios import Scripted
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from langchain_stars import StarsGuardMiddleware, _call_decisions, _trust
from langchain_stars._remembered import Remembered
from stars_guard.audit import CallRecord, MemoryStore
from stars_guard.core.segments import Passage

__all__ = [
    "APPROVE",
    "DOORS",
    "POLICY",
    "Run",
    "answers",
    "asked",
    "calling",
    "edit",
    "policy",
    "ran",
    "restart",
    "results",
    "tools",
]

RULES: list[dict[str, Any]] = [
    {
        "name": "big",
        "tools": ["send"],
        "when": "args.amount > 100",
        "action": "ask",
        "message": "More than you usually send.",
    },
    {"name": "huge", "tools": ["send"], "when": "args.amount > 1000", "action": "reject"},
    {"name": "never", "tools": ["wipe"], "action": "reject"},
    {"name": "mail", "tools": ["mail"], "action": "ask"},
]
POLICY: dict[str, Any] = {
    "apiVersion": "stars-guard/v1",
    "name": "approvals",
    "rails": {
        "input": {"judges": [{"name": "input", "type": "patterns", "patterns": [{"name": "x", "regex": "EVIL"}]}]},
        "tool_call": {
            "rules": RULES,
            "judges": [{"name": "call", "type": "patterns", "patterns": [{"name": "x", "regex": "EVIL"}]}],
        },
    },
}
APPROVE = {"type": "approve"}

ran: list[tuple[Any, ...]] = []
"""What the tools were really called with."""


def policy(*more_rules: dict[str, Any], **tool_call: Any) -> dict[str, Any]:
    """The policy with more rules, and other fields of its rail for tool calls."""
    rail = {**POLICY["rails"]["tool_call"], "rules": [*RULES, *more_rules], **tool_call}
    return {**POLICY, "rails": {**POLICY["rails"], "tool_call": rail}}


@tool
def send(to: str, amount: int) -> str:
    """Send money."""
    ran.append(("send", to, amount))
    return f"sent {amount} to {to}"


@tool
def mail(to: str, text: str) -> str:
    """Send a mail."""
    ran.append(("mail", to, text))
    return f"mailed {to}"


@tool
def wipe(disk: str) -> str:
    """Delete everything."""
    ran.append(("wipe", disk))
    return "wiped"


tools: Sequence[BaseTool] = (send, mail, wipe)


def calling(*calls: tuple[Any, ...], ids: str = "call") -> AIMessage:
    """A message that calls ``send``, or the tools that are named: ``("mail", {...})``."""
    made = []
    for number, (first, second) in enumerate(calls):
        named = isinstance(second, dict)
        args = second if named else {"to": first, "amount": second}
        made.append({"name": first if named else "send", "args": args, "id": f"{ids}_{number}"})
    return AIMessage("", tool_calls=made)


def edit(name: str = "send", **args: Any) -> dict[str, Any]:
    """A person's edit."""
    return {"type": "edit", "edited_action": {"name": name, "args": args}}


@dataclass
class Run:
    """One thread of an agent.

    Attributes:
        is_async: which of the agent's doors are used.
        saver: None for an agent that can't be resumed.
    """

    answers: Sequence[Any]
    policy: Any = field(default_factory=lambda: POLICY)
    is_async: bool = False
    saver: Any = field(default_factory=InMemorySaver)
    store: MemoryStore = field(default_factory=MemoryStore)
    inner: Sequence[Any] = ()
    outer: Sequence[Any] = ()
    tools: Sequence[Any] = tools
    more: dict[str, Any] = field(default_factory=dict)
    thread: str = "1"

    def __post_init__(self) -> None:
        ran.clear()
        self.model: Any = Scripted(answers=list(self.answers))
        self.build()

    def build(self) -> None:
        """Make the agent, as a new process would."""
        guard = StarsGuardMiddleware(self.policy, audit=self.store, allow_python=True)
        self.agent: Any = create_agent(
            self.model,
            list(self.tools),
            middleware=[*self.outer, guard, *self.inner],
            checkpointer=self.saver,
            **self.more,
        )

    def __call__(self, given: Any, **more: Any) -> Any:
        config = {"configurable": {"thread_id": self.thread}, **more.pop("config", {})}
        if self.is_async:
            return asyncio.run(self.agent.ainvoke(given, config, **more))
        return self.agent.invoke(given, config, **more)

    def begin(self, text: str = "hi", **more: Any) -> Any:
        """Give the agent a message of the user."""
        return self({"messages": [("user", text)]}, **more)

    def resume(self, *decisions: Any, **more: Any) -> Any:
        """Answer the question."""
        return self.resume_with({"decisions": list(decisions), **more})

    def resume_with(self, answer: Any) -> Any:
        """Answer the question with whatever."""
        return self(Command(resume=answer))

    @property
    def records(self) -> list[CallRecord]:
        """Those of tool calls."""
        return [record for record in self.store.records if record.stage == "tool_call"]


DOORS = [False, True]


def asked(state: Any) -> dict[str, Any]:
    """What a person is asked."""
    (one,) = state["__interrupt__"]
    value: dict[str, Any] = one.value
    return value


def results(state: Any) -> list[str]:
    """What the model reads as the results of the calls."""
    return [message.text for message in state["messages"] if isinstance(message, ToolMessage)]


def restart() -> None:
    """Forget what a process remembers of judged messages and calls."""
    _trust._remembered = Remembered(_trust.MOST_REMEMBERED)
    _call_decisions._decided = Remembered(_call_decisions.MOST_REMEMBERED)


answers: dict[str, list[str]] = {"moody": []}
"""What `moody` was asked."""


def moody(passage: Passage) -> float:
    """A judge that changes its mind: it lets each text pass once, and never again."""
    seen = answers["moody"]
    seen.append(passage.segment)
    return float(seen.count(passage.segment) > 1)
