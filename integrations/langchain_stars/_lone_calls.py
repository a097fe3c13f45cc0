"""Tool calls of a `ChatStars` that stands in no guarded agent: rules decide about them, and nobody can be asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from langchain_core.messages import BaseMessage, ToolCall

from langchain_stars._agent_facts import AgentFacts
from langchain_stars._call_decisions import CallDecisions
from langchain_stars._waiting import Waiting
from stars_guard.core.events import Called, Event, Finished
from stars_guard.core.messages import InvalidCall
from stars_guard.core.tools import Toolset
from stars_guard.guard import Guard

__all__ = ["LoneCalls"]

E = TypeVar("E", bound=Event)


class LoneCalls:
    """Takes the calls out of an answer's events that a rule rejects, or about which a person should be asked.

    They become calls that can't be made, with the reason and without their arguments.

    Args:
        messages: the conversation before the answer.
        toolset: what the model may call.
        in_agent: whether a middleware decides instead, which can ask.
    """

    def __init__(
        self,
        waiting: Waiting,
        guard: Guard,
        messages: Sequence[BaseMessage],
        toolset: Toolset | None,
        *,
        in_agent: bool,
    ) -> None:
        self._is_idle = in_agent or not guard.policy.rails.tool_call.needs_facts
        self._earlier: list[tuple[ToolCall, bool]] = []
        self._reasons: dict[str, str] = {}
        if not self._is_idle:
            tools = {tool.name: tool.parameters for tool in (toolset.tools if toolset is not None else ())}
            facts = AgentFacts(tools=tools, system="")
            self._decisions = CallDecisions(waiting, guard, messages, context={}, facts=facts)

    async def without_rejected(self, event: E) -> E:
        """The event with the calls that may be made."""
        if self._is_idle or not isinstance(event, Called | Finished) or not event.tool_calls:
            return event
        kept, gone = [], [*event.invalid_tool_calls]
        for call in event.tool_calls:
            if call.id not in self._reasons:
                made = ToolCall(name=call.name, args=dict(call.arguments), id=call.id, type="tool_call")
                checked = await self._decisions.of(made, None, earlier=self._earlier)
                self._earlier.append((made, not checked.allowed))
                self._reasons[call.id] = "" if checked.allowed else f"not allowed by the policy: {checked.reason}"
            if reason := self._reasons[call.id]:
                gone.append(InvalidCall(id=call.id, name=call.name, arguments=reason, error=reason))
            else:
                kept.append(call)
        return replace(event, tool_calls=tuple(kept), invalid_tool_calls=tuple(gone))
