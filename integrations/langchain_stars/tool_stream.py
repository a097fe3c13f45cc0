"""What streams of an agent show of its tools: nothing that has not been judged."""

from __future__ import annotations

from typing import Any, ClassVar

from langgraph.stream import StreamTransformer

from langchain_stars.live import LiveGuard

__all__ = ["ToolOutputFilter"]

_WITHHELD = "[judged first: see the tool's message]"


class ToolOutputFilter(StreamTransformer):
    """Empties the events of running tools where the policy judges tool results.

    A tool's own events come before its result has been judged. The message with the judged result follows in the
    ``messages`` and ``values`` of the same stream.
    """

    before_builtins: ClassVar[bool] = True
    required_stream_modes: ClassVar[tuple[str, ...]] = ("tools",)

    def __init__(self, scope: tuple[str, ...] = (), *, guards: LiveGuard) -> None:
        super().__init__(scope)
        self._guards = guards

    def init(self) -> dict[str, Any]:
        return {}

    def process(self, event: Any) -> bool:
        policy = self._guards.current.policy
        data = event["params"].get("data")
        if event["method"] != "tools" or policy.mode != "enforce" or not policy.rails.tool_result.judges:
            return True
        if isinstance(data, dict):
            for name in ("delta", "output", "message"):
                if name in data:
                    data[name] = _WITHHELD
        return True
