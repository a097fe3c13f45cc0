"""What a person is asked about tool calls, in the form of LangChain's human-in-the-loop middleware."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from langchain.agents.middleware.human_in_the_loop import ActionRequest, HITLRequest, ReviewConfig
from langchain_core.messages import ToolCall

from stars_guard.core.vocabulary import HumanDecision

__all__ = ["request_for"]


def request_for(
    asked: Sequence[tuple[ToolCall, str]],
    *,
    decisions: Collection[HumanDecision],
    schemas: Mapping[str, Mapping[str, Any]],
) -> HITLRequest:
    """The value of the interrupt: an action and what may be decided about it for each call, in their order.

    Args:
        asked: the calls, and why a person is asked about each.
        decisions: those that the policy allows.
        schemas: of the arguments of each tool.
    """
    actions = [
        ActionRequest(name=call["name"], args=call["args"], description=_described(call, why)) for call, why in asked
    ]
    return HITLRequest(
        action_requests=actions,
        review_configs=[_config(call["name"], decisions, schemas.get(call["name"])) for call, _ in asked],
    )


def _config(name: str, decisions: Collection[HumanDecision], schema: Mapping[str, Any] | None) -> ReviewConfig:
    config = ReviewConfig(action_name=name, allowed_decisions=list(decisions))
    if schema is not None:
        config["args_schema"] = dict(schema)
    return config


def _described(call: ToolCall, why: str) -> str:
    args = json.dumps(call["args"], ensure_ascii=False, default=str)
    return f"{why}\n\nTool: {call['name']}\nArgs: {args}"
