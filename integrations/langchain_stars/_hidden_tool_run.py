"""The run of a tool whose result is judged: streams and traces see its start and the judged result only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from langchain.agents.middleware.types import ToolCallRequest
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tools import BaseTool

from langchain_stars._waiting import Waiting
from stars_guard.policy import Policy

__all__ = ["ToolRun", "tool_run", "withholds_results"]


def withholds_results(policy: Policy) -> bool:
    """Whether a tool's result must not be seen before it has been judged."""
    return policy.mode == "enforce" and bool(policy.rails.tool_result.judges)


class ToolRun:
    """What the block of `tool_run` works on.

    Attributes:
        result: what streams and traces see as the tool's result. Set it before the block ends.
    """

    def __init__(self) -> None:
        self.result: Any = None


@asynccontextmanager
async def tool_run(waiting: Waiting, request: ToolCallRequest, *, hidden: bool) -> AsyncIterator[ToolRun]:
    """The tool's run around a block that handles the request, and raises only what may be shown.

    Args:
        hidden: whether streams and traces see a run of ours, with the block's ``result``, instead of the tool's own.
    """
    shown = ToolRun()
    if not hidden or request.tool is None:
        yield shown
        return
    manager: Any = waiting.callback_manager.configure(*_inherited(request.tool))
    manager = await waiting.result(manager.on_tool_start(**_start(request)))
    try:
        yield shown
    except BaseException as exc:
        await waiting.result(manager.on_tool_error(exc))
        raise
    await waiting.result(manager.on_tool_end(shown.result))


def _inherited(tool: BaseTool) -> tuple[Any, ...]:
    """The arguments of ``configure``: callbacks, tags and metadata of the node and of the tool."""
    config = var_child_runnable_config.get() or {}
    return (
        config.get("callbacks"),
        tool.callbacks,
        tool.verbose,
        config.get("tags"),
        tool.tags,
        config.get("metadata"),
        tool.metadata,
    )


def _start(request: ToolCallRequest) -> dict[str, Any]:
    tool, call = request.tool, request.tool_call
    assert tool is not None  # noqa: S101
    return {
        "serialized": {"name": tool.name, "description": tool.description},
        "input_str": str(call["args"]),
        "name": tool.name,
        "inputs": call["args"],
        "tool_call_id": call["id"],
    }
