"""The messages that no rail has seen yet: what a client sends, and what reaches a model past the other rails.

Everything in an agent's input is input, whoever is said to have written it, except what this guard has judged before:
in this process, or in an earlier turn of a conversation that a checkpointer keeps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Annotated, Any, NotRequired

from langchain.agents.middleware.types import PrivateStateAttr
from langchain_core.messages import BaseMessage, HumanMessage, RemoveMessage, ToolMessage
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.graph.message import REMOVE_ALL_MESSAGES

from langchain_stars._block_keys import is_usual
from langchain_stars._conversation import REMOVED, last_turn, message_of_refusal, transcript
from langchain_stars._facts_state import FactsState
from langchain_stars._hidden_runs import current_run_id
from langchain_stars._plain import Unreadable
from langchain_stars._reading import read
from langchain_stars._trust import fingerprint, remember, was_judged
from langchain_stars._waiting import Waiting
from stars_guard.calling.checks import Checked
from stars_guard.core.messages import Message
from stars_guard.core.vocabulary import Stage
from stars_guard.guard import Guard

__all__ = [
    "GuardedState",
    "check_reading",
    "judged_input",
    "judged_so_far",
    "rejected_before_model",
    "removed",
    "unjudged_in",
]


class GuardedState(FactsState):
    """An agent's state with the fingerprints of the messages that were judged in earlier turns.

    No input can set them and no output shows them.
    """

    stars_guard_judged: NotRequired[Annotated[Sequence[str], PrivateStateAttr]]


async def check_reading(
    waiting: Waiting,
    guard: Guard,
    stage: Stage,
    value: Any,
    *,
    messages: Sequence[Message] = (),
    run_id: str | None = None,
) -> Checked:
    """Judge all texts of a value. What nobody can read is rejected, unless the policy only watches."""
    try:
        reading = read(value)
    except Unreadable as exc:
        watched = guard.policy.mode == "enforce" and bool(dict(guard.policy.rails.items())[stage].judges)
        return Checked(stage=stage, allowed=not watched, text="", reason=exc.message)
    return await waiting.check(
        guard, stage, reading.text, forms=reading.forms, messages=messages, run_id=run_id or current_run_id()
    )


async def judged_input(
    waiting: Waiting, guard: Guard, state: Mapping[str, Any], *, by: str = ""
) -> dict[str, Any] | None:
    """Judge what is new in a state, and all of the user's last turn.

    Args:
        by: the middleware, where an agent has several: one doesn't count what another has judged.

    Returns:
        None, or the update that takes the rejected messages out and ends the agent with the refusal.
    """
    messages: Sequence[BaseMessage] = state["messages"]
    turn, known = last_turn(messages), _judged_before(state, by)
    rejected: dict[int, Checked] = {}
    for index in chain(_unjudged(guard, messages[:turn], known), range(turn, len(messages))):
        if (found := await _rejected(waiting, guard, messages, index)) is None:
            remember(messages[index], guard.policy)
        else:
            rejected[index] = found
    if not rejected:
        return None
    first = next(iter(rejected.values()))
    refusal = message_of_refusal(guard, first.reason, first.audit_id, said=first.refusal)
    return {"messages": [*_taken_out(guard, messages, rejected), refusal], "jump_to": "end"}


async def rejected_before_model(
    waiting: Waiting, guard: Guard, messages: Sequence[BaseMessage], state: Any, *, by: str = ""
) -> Checked | None:
    """The first rejection among the messages that a model is about to read and that no rail has seen.

    These are the words of a person who was asked about a call, and what other middleware puts into the conversation.
    """
    for index in _unjudged(guard, messages, _judged_before(state, by)):
        if (found := await _rejected(waiting, guard, messages, index)) is not None:
            return found
        remember(messages[index], guard.policy)
    return None


async def _rejected(waiting: Waiting, guard: Guard, messages: Sequence[BaseMessage], index: int) -> Checked | None:
    """The rejection of a message that nobody has judged, or None. What is said to be a tool's is judged as that too."""
    stages: list[Stage] = ["input", "tool_result"] if isinstance(messages[index], ToolMessage) else ["input"]
    for stage in stages:
        checked = await check_reading(waiting, guard, stage, messages[index], messages=_before(messages, index))
        if not checked.allowed:
            return checked
    return None


def unjudged_in(guard: Guard, state: Mapping[str, Any], *, before: int, by: str = "") -> list[int]:
    """Indexes of the messages that no rail has seen as they are now.

    Args:
        before: the index of the first message that is not asked about.
        by: as `judged_input` takes it.
    """
    return list(_unjudged(guard, state["messages"][:before], _judged_before(state, by)))


def _unjudged(guard: Guard, messages: Sequence[BaseMessage], known: Collection[str]) -> Iterator[int]:
    """The same, one by one: a message may be remembered before the next is asked for."""
    for index, message in enumerate(messages):
        if not was_judged(message, guard.policy) and fingerprint(message, guard.policy) not in known:
            yield index


def judged_so_far(guard: Guard, state: Mapping[str, Any], *, by: str = "") -> dict[str, Any]:
    """The update of a state that tells the next turn which of the messages were judged."""
    config = var_child_runnable_config.get() or {}
    if not guard.policy.rails.input.judges or "thread_id" not in config.get("configurable", {}):
        return {}  # without a thread there is no next turn that a checkpointer would bring
    known = _judged_before(state, by)
    found = [(message, fingerprint(message, guard.policy)) for message in state["messages"]]
    judged = [mark for message, mark in found if mark and (mark in known or was_judged(message, guard.policy))]
    if set(judged) == known:
        return {}
    others = [mark for mark in state.get("stars_guard_judged") or () if mark.rpartition(":")[0] != by]
    return {"stars_guard_judged": [*others, *(f"{by}:{mark}" if by else mark for mark in judged)]}


def _judged_before(state: Any, by: str) -> set[str]:
    marks = state.get("stars_guard_judged") if isinstance(state, Mapping) else None
    owned = [mark.rpartition(":") for mark in marks or ()]
    return {mark for owner, _, mark in owned if owner == by}


def _before(messages: Sequence[BaseMessage], index: int) -> list[Message]:
    return transcript(messages[:index]) if index else []


def _taken_out(guard: Guard, messages: Sequence[BaseMessage], rejected: Mapping[int, Any]) -> list[BaseMessage]:
    """The messages that take the place of those that were rejected."""
    # what was rejected must not be read at the next turn, which judges only what is new
    if all(is_usual(messages[index].id or "") for index in rejected):
        return [removed(guard, messages[index].id) for index in rejected]
    whole = [removed(guard) if index in rejected else message for index, message in enumerate(messages)]
    return [RemoveMessage(id=REMOVE_ALL_MESSAGES), *whole]  # an id may be what was rejected


def removed(guard: Guard, id: str | None = None) -> HumanMessage:  # noqa: A002
    """What stands in the place of a message that was rejected."""
    message = HumanMessage(REMOVED, id=id)
    remember(message, guard.policy)
    return message
