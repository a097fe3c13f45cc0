"""Where an agent stops and a person is asked: after the model has called tools and before one of them runs."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage
from langgraph.types import interrupt

from langchain_stars._agent_facts import approvals_of, known_facts, seconds_of
from langchain_stars._call_decisions import CallDecisions, context_of
from langchain_stars._human_answers import Said, said_of
from langchain_stars._human_request import request_for
from langchain_stars._kept_decisions import KeptDecision, KeptDecisions, has_checkpointer, is_in_graph
from langchain_stars._tool_results import answered_by_person, call_not_run
from langchain_stars._trust import digest_in_message, fingerprint, remember, remember_call, was_judged
from langchain_stars._waiting import Waiting
from langchain_stars._withheld_calls import with_calls
from langchain_stars._withheld_marks import did_not_run, is_withheld
from stars_guard.calling.checks import Checked
from stars_guard.core.tool_call_events import Approval
from stars_guard.core.vocabulary import ApprovalOutcome
from stars_guard.guard import Guard

__all__ = ["ASKED", "DECIDED", "pending_calls", "settled_calls"]

ASKED, DECIDED = "stars_guard.tool_call.asked", "stars_guard.tool_call.decided"
"""The names of the custom events."""


@dataclass(frozen=True, slots=True)
class _Pending:
    """The last message that calls tools, and what is known of its calls.

    Attributes:
        index: of the message in the conversation.
        answers: the messages that stand for results already, by the id of their call.
    """

    index: int
    message: AIMessage
    answers: Mapping[str, ToolMessage]

    def open(self) -> Iterator[tuple[int, ToolCall]]:
        """The calls that would run, with their indexes."""
        for index, call in enumerate(self.message.tool_calls):
            if not is_withheld(call) and str(call["id"]) not in self.answers:
                yield index, call

    def place_of(self, call: ToolCall) -> int:
        """The index of a call among those of the message, or how many there are."""
        calls = self.message.tool_calls
        same = [index for index, one in enumerate(calls) if one["id"] == call["id"]]
        exact = [
            index for index in same if calls[index]["name"] == call["name"] and calls[index]["args"] == call["args"]
        ]
        return min(exact or same or [len(calls)])

    def before(
        self, index: int, rejected: Collection[int], edited: Mapping[int, ToolCall]
    ) -> list[tuple[ToolCall, bool]]:
        """The calls before one in its message, as `CallDecisions.of` takes them."""
        found = []
        for number, call in enumerate(self.message.tool_calls[:index]):
            answer = self.answers.get(str(call["id"]))
            gone = number in rejected or is_withheld(call) or (answer is not None and did_not_run(answer))
            found.append((edited.get(number, call), gone))
        return found


def pending_calls(messages: Sequence[BaseMessage]) -> _Pending | None:
    """The last message of the model, if it calls tools."""
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if isinstance(message, AIMessage):
            if not message.tool_calls:
                return None
            after = [one for one in messages[index + 1 :] if isinstance(one, ToolMessage)]
            return _Pending(index, message, {one.tool_call_id: one for one in reversed(after)})
    return None


async def settled_calls(
    waiting: Waiting, guard: Guard, state: Mapping[str, Any], runtime: Any, *, by: str = ""
) -> dict[str, Any] | None:
    """Decide about the calls of the last message, and ask a person about those of which a rule says so.

    Args:
        by: the middleware, where an agent has several.

    Returns:
        None, or the update of the state: which calls are approved, the message with the calls as a person has edited
        them, and a message in the place of the result of each call that must not run.
    """
    pending = pending_calls(state["messages"])
    if not _asks(guard) or pending is None or not any(True for _ in pending.open()):
        return None
    return await _Asking(waiting, guard, state, runtime, pending, by).settled()


def _asks(guard: Guard) -> bool:
    return guard.policy.mode == "enforce" and guard.policy.rails.tool_call.may_ask


class _Asking:
    def __init__(
        self, waiting: Waiting, guard: Guard, state: Mapping[str, Any], runtime: Any, pending: _Pending, by: str
    ) -> None:
        self._waiting, self._guard, self._state, self._pending, self._by = waiting, guard, state, pending, by
        self._id = pending.message.id
        self._facts = known_facts(state)
        self._decisions = CallDecisions(
            waiting,
            guard,
            state["messages"][: pending.index],
            context=context_of(runtime),
            facts=self._facts,
            seconds=seconds_of(state),
        )
        self._rejected: set[int] = set()
        self._running: dict[int, ToolCall] = {}  # those that may run, as a person has edited them
        self._answers: list[ToolMessage] = []

    async def settled(self) -> dict[str, Any]:
        """The update of the state."""
        kept = KeptDecisions.read(await self._kept())
        self._trust(kept)
        self._decisions.seconds = seconds_of(self._state, at=kept.at)  # a person's time is not the run's
        for one in kept.calls:
            if one.action == "reject":
                self._reject(one.index, _checked(one))
        asked = [one for one in kept.calls if one.action == "ask"]
        waited = 0.0
        if asked and not has_checkpointer():
            said = [Said(decision=None)] * len(asked)
        elif asked:
            said = self._ask(asked)
            waited = max(0.0, time.time() - kept.at)
        for one, word in zip(asked, said if asked else (), strict=True):
            await self._settle(one, word, kept, waited)
        for one in kept.calls:
            if one.action == "allow":
                await self._allow(one)
        return self._update(waited)

    async def _kept(self) -> Mapping[str, Any]:
        # without a checkpointer nothing is kept, and the node doesn't run again
        if not (is_in_graph() and has_checkpointer()):
            return await self._decided()
        return await self._waiting.task("stars_guard_decisions", self._decided)

    async def _decided(self) -> dict[str, Any]:
        """What the rules and the judges say about each call, as a checkpointer keeps it."""
        found: list[KeptDecision] = []
        rejected: set[int] = set()
        for index, call in self._pending.open():
            checked = await self._decisions.of(call, self._id, earlier=self._pending.before(index, rejected, {}))
            if checked.action == "reject":
                rejected.add(index)
            found.append(
                KeptDecision(
                    index=index,
                    action=checked.action,
                    reason=checked.reason,
                    message=checked.message,
                    rule=checked.rule,
                    audit_id=checked.audit_id,
                )
            )
            if checked.action == "ask":
                await self._tell(ASKED, found[-1])
        judged = [mark for one in self._messages if (mark := self._fingerprint_of_judged(one))]
        policy = self._guard.policy.sha256
        return KeptDecisions(policy=policy, at=time.time(), calls=tuple(found), judged=tuple(judged)).plain()

    def _fingerprint_of_judged(self, message: BaseMessage) -> str | None:
        return fingerprint(message, self._guard.policy) if was_judged(message, self._guard.policy) else None

    def _trust(self, kept: KeptDecisions) -> None:
        """Take note of what was judged before the pause, as this process may be another one."""
        if kept.policy != self._guard.policy.sha256:
            return
        calls = self._pending.message.tool_calls
        for one in kept.calls:
            if one.action == "allow":
                remember_call(calls[one.index], self._guard.policy, self._id)
        known = set(kept.judged)
        for message in self._messages:
            if fingerprint(message, self._guard.policy) in known:
                remember(message, self._guard.policy)

    def _ask(self, asked: Sequence[KeptDecision]) -> list[Said]:
        calls, terms = self._pending.message.tool_calls, self._guard.policy.rails.tool_call.approval
        request = request_for(
            [(calls[one.index], _why(self._guard, one)) for one in asked],
            decisions=terms.decisions,
            schemas=self._facts["tools"],
        )
        return said_of(interrupt(request), count=len(asked), allowed=terms.decisions)

    async def _settle(self, one: KeptDecision, said: Said, kept: KeptDecisions, waited: float) -> None:
        """Do what a person said about a call, and write it down."""
        call, approval = self._pending.message.tool_calls[one.index], self._approval(one, said, waited)
        if approval.outcome == "edited" and said.action is not None:
            name, args = said.action
            call = ToolCall(name=name, args=args, id=call["id"], type="tool_call")
        before = self._pending.before(one.index, self._rejected, self._running)
        is_same = approval.outcome == "approved" and kept.policy == self._guard.policy.sha256
        checked = await self._decisions.answered(call, self._id, approval, earlier=before, judged=is_same)
        await self._tell(DECIDED, one, checked, approval)
        if checked.allowed:
            self._running[one.index] = call
        elif approval.outcome in ("rejected", "responded"):
            self._rejected.add(one.index)
            self._answers.append(answered_by_person(self._guard, call, checked, said.message, approval.outcome))
        else:
            self._reject(one.index, checked)

    async def _allow(self, one: KeptDecision) -> None:
        """Let a call run that nobody was asked about. It is looked at again where a person has edited one before it."""
        calls = self._pending.message.tool_calls
        call = calls[one.index]
        if any(calls[index] != edited for index, edited in self._running.items() if index < one.index):
            before = self._pending.before(one.index, self._rejected, self._running)
            checked = await self._decisions.of(call, self._id, earlier=before)
            if checked.action == "ask":
                unasked = Approval(outcome="unasked", asked=checked.audit_id, reason="an earlier call was edited")
                checked = await self._decisions.answered(call, self._id, unasked, earlier=before, judged=True)
            if not checked.allowed:
                self._reject(one.index, checked)
                return
        self._running[one.index] = call

    def _approval(self, one: KeptDecision, said: Said, waited: float) -> Approval:
        outcome, reason = _OUTCOMES.get(said.decision or "", "invalid"), said.problem
        if not has_checkpointer():
            outcome, reason = "unasked", "there is no checkpointer"
        elif waited > self._guard.policy.rails.tool_call.approval.within:
            outcome, reason = "expired", ""
        elif said.action is not None and (problem := self._problem_of_edit(*said.action)):
            outcome, reason = "invalid", problem
        return Approval(outcome=outcome, by=said.by, asked=one.audit_id, seconds=waited, reason=reason)

    def _problem_of_edit(self, name: str, args: Mapping[str, Any]) -> str:
        tools = self._facts["tools"]
        if not tools:
            return ""  # the agent itself answers a call of a tool that it doesn't have
        if name not in tools:
            return "the edited call names a tool that the agent does not have"
        schema = tools[name]
        known = schema.get("properties") or {}
        if schema.get("additionalProperties") in (None, False) and not set(args) <= set(known):
            return "the edited call has an argument that the tool does not have"
        return ""

    def _reject(self, index: int, checked: Checked) -> None:
        self._rejected.add(index)
        self._answers.append(call_not_run(self._guard, self._pending.message.tool_calls[index], checked))

    def _update(self, waited: float) -> dict[str, Any]:
        message = self._pending.message
        changed = {index: call for index, call in self._running.items() if call != message.tool_calls[index]}
        if changed:
            message = with_calls(message, changed)
            if was_judged(self._pending.message, self._guard.policy):
                remember(message, self._guard.policy)
        digests = [digest_in_message(message.tool_calls[index], message.id) for index in self._running]
        known = [one for one in digests if one is not None]
        messages: list[BaseMessage] = [*([message] if changed else []), *self._answers]
        update = approvals_of(self._state, known, policy=self._guard.policy.sha256, by=self._by)
        if messages:
            update["messages"] = messages
        if waited and (began := self._state.get("stars_guard_began")) is not None:
            update["stars_guard_began"] = began + waited
        return update

    @property
    def _messages(self) -> Sequence[BaseMessage]:
        found: Sequence[BaseMessage] = self._state["messages"]
        return found

    async def _tell(
        self, name: str, one: KeptDecision, checked: Checked | None = None, approval: Approval | None = None
    ) -> None:
        """Report to callbacks, without any argument of the call."""
        call = self._pending.message.tool_calls[one.index]
        data: dict[str, Any] = {
            "policy": self._guard.policy.name,
            "tool": call["name"],
            "rule": one.rule,
            "asked": one.audit_id,
        }
        if checked is not None and approval is not None:
            data |= {
                "outcome": approval.outcome,
                "decided_by": approval.by,
                "seconds": approval.seconds,
                "allowed": checked.allowed,
                "reason": checked.reason,
                "audit_id": checked.audit_id,
            }
        if is_in_graph():
            await self._waiting.tell(name, data)


_OUTCOMES: Mapping[str, ApprovalOutcome] = {
    "approve": "approved",
    "edit": "edited",
    "reject": "rejected",
    "respond": "responded",
}


def _checked(one: KeptDecision) -> Checked:
    return Checked(
        stage="tool_call", allowed=False, text="", reason=one.reason, message=one.message, audit_id=one.audit_id
    )


def _why(guard: Guard, one: KeptDecision) -> str:
    rule = f"{one.message}\n\n" if one.message else ""
    return f"{rule}Policy {guard.policy.name!r} asks for your approval ({one.reason})."
