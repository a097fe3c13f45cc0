"""What happens to a tool call: the policy's rules and judges are asked once, and their answer is kept.

A call passes several doors: the answer of the model, the node that asks a person, the tool. Each decides, and none
believes another one's word in the messages. What was decided in this process about the same call after the same run is
remembered, so that a judge isn't asked twice and can't say two things.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from functools import cached_property
from typing import Any

from langchain_core.messages import BaseMessage, ToolCall
from pydantic import BaseModel

from langchain_stars._agent_facts import AgentFacts, tool_of
from langchain_stars._conversation import transcript
from langchain_stars._hidden_runs import current_run_id
from langchain_stars._plain import Unreadable
from langchain_stars._reading import Reading, reading_of_call
from langchain_stars._remembered import Remembered
from langchain_stars._run_state import at_call, run_state
from langchain_stars._trust import call_was_judged, digest_in_message, remember_call
from langchain_stars._waiting import Waiting
from stars_guard.calling.checks import Checked
from stars_guard.core.arguments import has_lone_surrogate
from stars_guard.core.messages import Message
from stars_guard.core.tool_call_events import Approval
from stars_guard.guard import Guard
from stars_guard.rules.run import PastCall, RunState

__all__ = ["MOST_REMEMBERED", "CallDecisions", "context_of", "rejected_alone"]

MOST_REMEMBERED = 10_000
"""Decisions that the process keeps. A call whose decision is gone is judged again."""


class CallDecisions:
    """Decides about the calls of one message of a model.

    Args:
        before: the messages before it.
        context: what the app says about the run, as `context_of` gives it.
        facts: what a model call tells of its agent.
        run_id: the caller's run, for the records.

    Attributes:
        seconds: how long the run has taken.
    """

    def __init__(
        self,
        waiting: Waiting,
        guard: Guard,
        before: Sequence[BaseMessage],
        *,
        context: Mapping[str, Any],
        facts: AgentFacts,
        seconds: float = 0.0,
        run_id: str | None = None,
    ) -> None:
        self._waiting, self._guard = waiting, guard
        self._before = before
        self._context = context
        self._facts, self.seconds = facts, seconds
        self._run_id = run_id or current_run_id()

    @cached_property
    def _transcript(self) -> list[Message]:
        return transcript(self._before)

    @cached_property
    def _before_message(self) -> RunState:
        return run_state(self._before, system=self._facts["system"])

    async def of(
        self, call: ToolCall, message_id: str | None, *, earlier: Sequence[tuple[ToolCall, bool]] = ()
    ) -> Checked:
        """What happens to a call.

        Args:
            message_id: of the message that makes it. Nothing is remembered of a message without an id.
            earlier: the calls before it in its message, and whether each was rejected.
        """
        run = self._run(earlier)
        key = self._key(call, message_id, run)
        if key is not None and (known := _decided.get(key)) is not None:
            return known
        judged = call_was_judged(call, self._guard.policy, message_id)
        checked = await self._check(call, run, judged=judged)
        if checked.allowed:  # a judge may ask a person too, and must not be left out the next time
            remember_call(call, self._guard.policy, message_id)
        if checked.action != "reject" and key is not None:
            _decided.add(key, checked)
        return checked

    async def answered(
        self,
        call: ToolCall,
        message_id: str | None,
        approval: Approval,
        *,
        earlier: Sequence[tuple[ToolCall, bool]],
        judged: bool,
    ) -> Checked:
        """What happens to a call after a person was asked.

        Args:
            judged: whether rules and judges have decided about exactly this call when the person was asked.
        """
        checked = await self._check(call, self._run(earlier), judged=judged, approval=approval)
        if checked.allowed:
            remember_call(call, self._guard.policy, message_id)
        return checked

    def _key(self, call: ToolCall, message_id: str | None, run: RunState) -> str | None:
        if message_id is None:
            return None
        past = asdict(replace(run, seconds=0.0))
        around = [past, self._context, self._facts["tools"].get(call["name"])]
        said = json.dumps(around, sort_keys=True, default=repr)
        return digest_in_message(call, message_id, self._guard.policy.sha256, said)

    def _run(self, earlier: Sequence[tuple[ToolCall, bool]]) -> RunState:
        return at_call(self._before_message, earlier, seconds=self.seconds)

    async def _check(self, call: ToolCall, run: RunState, *, judged: bool, approval: Approval | None = None) -> Checked:
        try:
            reading = reading_of_call(call)
        except Unreadable as exc:
            return _unread(self._guard, exc.message)
        if reading.call is None:
            return _unread(self._guard, "the arguments of the call cannot be read")
        if has_lone_surrogate(call.get("args")):  # no judge can be given it as the tool would get it
            return _unread(self._guard, "the arguments of the call hold half a character")
        return await self._waiting.check_call(
            self._guard,
            reading.call.name,
            reading.call.arguments,
            tool=tool_of(self._facts, call["name"]),
            text=reading.text,
            forms=reading.forms,
            messages=self._transcript,
            run=run,
            context=self._context,
            run_id=self._run_id,
            judged=judged,
            approval=approval,
        )


def _unread(guard: Guard, reason: str) -> Checked:
    watched = guard.policy.mode == "enforce" and guard.policy.rails.tool_call.is_used
    return Checked(stage="tool_call", allowed=not watched, text="", reason=reason)


async def rejected_alone(
    waiting: Waiting, guard: Guard, calls: Sequence[Reading], *, messages: Sequence[Message], run_id: str | None = None
) -> Checked | None:
    """The first call of an answer that may not be made outside an agent, where nobody can be asked; None where all may.

    Args:
        messages: the conversation before the answer.
    """
    past: list[PastCall] = []
    for call in calls if guard.policy.rails.tool_call.is_used else ():
        if call.call is None or has_lone_surrogate(call.text):
            checked = _unread(guard, "the arguments of a call cannot be read")
        else:
            checked = await waiting.check_call(
                guard,
                call.call.name,
                call.call.arguments,
                text=call.text,
                forms=call.forms,
                messages=messages,
                run=RunState(
                    calls=tuple(past),
                    user=tuple(message.content for message in messages if message.role == "user"),
                    system=tuple(message.content for message in messages if message.role == "system"),
                ),
                run_id=run_id,
            )
            past.append(PastCall(tool=call.call.name, args=call.call.arguments, id=call.call.id))
        if not checked.allowed:
            return checked
    return None


def context_of(runtime: Any) -> dict[str, Any]:
    """The run's context as rules read it: LangGraph's own, as far as it is JSON."""
    given = getattr(runtime, "context", None)
    if isinstance(given, BaseModel):
        given = given.model_dump()
    elif is_dataclass(given) and not isinstance(given, type):
        given = {name: getattr(given, name) for name in given.__dataclass_fields__}
    if not isinstance(given, Mapping):
        return {}
    return {name: value for name, value in given.items() if isinstance(name, str) and _is_json(value)}


def _is_json(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


_decided: Remembered[str, Checked] = Remembered(MOST_REMEMBERED)
