"""Whether a tool may run: what the rules and judges say about the call, and what a person has said."""

from __future__ import annotations

from dataclasses import replace

from langchain.agents.middleware.types import ToolCallRequest
from langchain_core.messages import BaseMessage, ToolCall

from langchain_stars._agent_facts import approved, known_facts, seconds_of
from langchain_stars._approval import pending_calls
from langchain_stars._call_decisions import CallDecisions, context_of
from langchain_stars._conversation import messages_in_state
from langchain_stars._tool_results import call_not_run
from langchain_stars._trust import digest_in_message
from langchain_stars._waiting import Waiting
from langchain_stars._withheld_marks import reason_to_withhold
from stars_guard.core.tool_call_events import Approval
from stars_guard.guard import Guard

__all__ = ["refusal_to_run"]


async def refusal_to_run(
    waiting: Waiting, guard: Guard, request: ToolCallRequest, call: ToolCall, *, by: str = "", run_id: str | None = None
) -> BaseMessage | None:
    """What stands for the result of a call that must not run, or None where it may.

    It doesn't matter how the agent has come here: a jump past the node that asks a person finds no approval.

    Args:
        request: with the agent's state.
        call: the one that is about to run, which may differ from the request's.
        by: the middleware, where an agent has several.
        run_id: the caller's run, for the records.
    """
    if (withheld := reason_to_withhold(call)) is not None:
        return call_not_run(guard, call, withheld)
    messages, state = messages_in_state(request.state), request.state
    pending = pending_calls(messages)
    mark: str | None = None
    if pending is not None:
        if (answer := pending.answers.get(str(call["id"]))) is not None:
            return answer  # it was rejected, or has run
        mark = approved(state, digest_in_message(call, pending.message.id), by=by)
    if mark == guard.policy.sha256:
        return None
    decisions = CallDecisions(
        waiting,
        guard,
        messages[: pending.index] if pending is not None else messages,
        context=context_of(request.runtime),
        facts=known_facts(state),
        seconds=seconds_of(state),
        run_id=run_id,
    )
    message_id = pending.message.id if pending is not None else None
    earlier = pending.before(pending.place_of(call), (), {}) if pending is not None else []
    checked = await decisions.of(call, message_id, earlier=earlier)
    if checked.allowed or (checked.action == "ask" and mark is not None):  # approved under a policy that has changed
        return None
    if checked.action == "ask":
        unasked = Approval(outcome="unasked", asked=checked.audit_id, reason="the agent went past the question")
        checked = await decisions.answered(call, message_id, unasked, earlier=earlier, judged=True)
    return call_not_run(guard, call, replace(checked, allowed=False))
