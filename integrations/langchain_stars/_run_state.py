"""What has happened in an agent's run, as rules about tool calls see it: built from the agent's messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolCall, ToolMessage

from langchain_stars._conversation import words
from langchain_stars._withheld_marks import did_not_run, is_withheld
from stars_guard.rules.run import PastCall, RunState

__all__ = ["at_call", "run_state"]


def run_state(messages: Sequence[BaseMessage], *, system: str = "") -> RunState:
    """The run up to a message that makes calls.

    Args:
        messages: what came before it.
        system: the system prompt, where it isn't among the messages.
    """
    results: dict[str, ToolMessage] = {}
    past: list[PastCall] = []
    for message in reversed(messages):  # an id may come again: a result belongs to the last call before it
        if isinstance(message, ToolMessage):
            results[message.tool_call_id] = message
        elif isinstance(message, AIMessage):
            past[:0] = [_past(call, results.get(str(call["id"]))) for call in message.tool_calls]
            for call in message.tool_calls:
                results.pop(str(call["id"]), None)
    said = (words(message) for message in messages if isinstance(message, SystemMessage))
    return RunState(
        calls=tuple(past),
        tokens=sum(_tokens(message) for message in messages),
        user=tuple(words(message) for message in messages if isinstance(message, HumanMessage)),
        system=(*([system] if system else []), *said),
    )


def at_call(run: RunState, earlier: Sequence[tuple[ToolCall, bool]], *, seconds: float) -> RunState:
    """The run up to one call of the message.

    Args:
        run: up to the message.
        earlier: the calls that stand before it in the message, and whether each was rejected.
        seconds: how long the run has taken.
    """
    calls = (*run.calls, *(_past(call, None, rejected) for call, rejected in earlier))
    return replace(run, calls=calls, seconds=seconds)


def _past(call: ToolCall, result: ToolMessage | None, rejected: bool = False) -> PastCall:
    rejected = rejected or is_withheld(call) or (result is not None and did_not_run(result))
    # of a call that was rejected nothing stays: its arguments may be withheld by now, and its id
    args: Mapping[str, Any] = call["args"] if isinstance(call["args"], Mapping) and not rejected else {}
    return PastCall(
        tool=call["name"],
        args=args,
        result=None if result is None or rejected else words(result),
        rejected=rejected,
        id="" if rejected else str(call["id"]),
    )


def _tokens(message: BaseMessage) -> int:
    usage = getattr(message, "usage_metadata", None) or {}
    return int(usage.get("total_tokens") or 0)
