"""What an agent's streams show of a tool while it runs, which is nothing where its result is judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from langgraph.stream import StreamTransformer

from stars_guard.policy import Policy

__all__ = ["ToolOutputFilter", "withholds_results"]

_WITHHELD = "[judged first: see the tool's result]"


def withholds_results(policy: Policy) -> bool:
    """Whether a tool's result must not be seen before it has been judged."""
    return policy.mode == "enforce" and bool(policy.rails.tool_result.judges)


class ToolOutputFilter(StreamTransformer):
    """Empties what tools write while they run, where the policy judges their results.

    Args:
        policy: gives the policy's newest version.
    """

    before_builtins: ClassVar[bool] = True
    required_stream_modes: ClassVar[tuple[str, ...]] = ("tools",)

    def __init__(self, scope: tuple[str, ...] = (), *, policy: Callable[[], Policy]) -> None:
        super().__init__(scope)
        self._policy = policy

    def init(self) -> dict[str, Any]:
        return {}

    def process(self, event: Any) -> bool:
        data = event["params"].get("data")
        if event["method"] != "tools" or not withholds_results(self._policy()):
            return True
        if isinstance(data, dict) and "delta" in data:
            data["delta"] = _WITHHELD
        return True
