"""What an agent's state keeps for rules about tool calls: nobody but the guard sees it or can set it.

The node that asks a person, and a tool's own door, know neither the agent's tools nor its system prompt. A model call
does, so it leaves both in the state. The state also has which calls of the last message a person approved.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypedDict

from langchain_core.tools import BaseTool

from langchain_stars._conversation import words
from langchain_stars._schemas import described_tool
from stars_guard.core.tools import Tool
from stars_guard.errors import InputError

if TYPE_CHECKING:  # a model needs no agent
    from langchain.agents.middleware.types import ModelRequest

__all__ = [
    "AgentFacts",
    "approvals_of",
    "approved",
    "facts_of",
    "known_facts",
    "seconds_of",
    "tool_of",
    "tools_of",
]


class AgentFacts(TypedDict):
    """What a model call tells of its agent.

    Attributes:
        tools: the JSON schema of the arguments of each tool.
        system: the system prompt.
    """

    tools: Mapping[str, Mapping[str, Any]]
    system: str


def tools_of(request: ModelRequest[Any]) -> list[Tool]:
    """The tools that run in the agent. What runs at a provider makes no call that a rule could see."""
    found = []
    for tool in request.tools:
        try:
            described = described_tool(tool).get("function")
        except InputError:
            continue
        if isinstance(tool, BaseTool) and isinstance(described, Mapping):
            schema = described.get("parameters") or {"type": "object", "properties": {}}
            with suppress(InputError):  # no model can call it by such a name
                found.append(Tool(name=described["name"], description="", parameters=schema))
    return found


def tool_of(facts: AgentFacts, name: str) -> Tool | None:
    """A tool of the agent, by its name."""
    schema = facts["tools"].get(name)
    return None if schema is None else Tool(name=name, description="", parameters=schema)


def facts_of(request: ModelRequest[Any], tools: Sequence[Tool]) -> AgentFacts:
    """What a model call tells of its agent.

    Args:
        tools: as `tools_of` gives them. Describing them takes time.
    """
    return AgentFacts(
        tools={tool.name: tool.parameters for tool in tools},
        system=words(request.system_message) if request.system_message else "",
    )


def known_facts(state: Any) -> AgentFacts:
    """What the last model call has left in the state."""
    found = _get(state, "stars_guard_agent")
    return found or AgentFacts(tools={}, system="")


def seconds_of(state: Any, *, at: float | None = None) -> float:
    """How long the run has taken, without the time in which a person was asked.

    Args:
        at: the end, in seconds since 1970; the default is now.
    """
    began = _get(state, "stars_guard_began")
    return 0.0 if began is None else max(0.0, (time.time() if at is None else at) - began)


def approved(state: Any, digest: str | None, *, by: str) -> str | None:
    """The digest of the policy under which a person has approved a call; None where nobody has.

    Args:
        digest: of the call and of where it stands.
        by: the middleware, where an agent has several.
    """
    for mark in _get(state, "stars_guard_approved") or ():
        owner, policy, known = mark.rsplit(":", 2)
        if digest is not None and owner == by and known == digest:
            return str(policy)
    return None


def approvals_of(state: Any, digests: Sequence[str], *, policy: str, by: str) -> dict[str, Any]:
    """The update of a state after which these calls are approved, and no others of the same middleware."""
    before = _get(state, "stars_guard_approved") or ()
    others = [mark for mark in before if mark.rsplit(":", 2)[0] != by]
    marks = [*others, *(f"{by}:{policy}:{digest}" for digest in digests)]
    return {} if list(before) == marks else {"stars_guard_approved": marks}


def _get(state: Any, name: str) -> Any:
    return state.get(name) if isinstance(state, Mapping) else getattr(state, name, None)
