"""The run of a tool whose result is judged: streams and traces are told the judged result, and nothing before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from langchain.agents.middleware.types import ToolCallRequest
from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tools import BaseTool

from langchain_stars._hidden_runs import unseen

__all__ = ["Told", "atold", "told"]


class Told:
    """What the block of `told` works on.

    Attributes:
        request: to be handled in the place of the caller's; the tool in it is the same, but nobody sees it run.
        result: what is told when the block ends: to be set in it.
    """

    def __init__(self, request: ToolCallRequest) -> None:
        self.request = request
        self.result: Any = None


@contextmanager
def told(request: ToolCallRequest, *, hidden: bool) -> Iterator[Told]:
    """A tool's run that says ``result`` when the block ends; the plain run of the tool where it is not ``hidden``."""
    run = Told(request)
    if not hidden or request.tool is None:
        yield run
        return
    run.request = request.override(tool=_unseen(request.tool))
    manager = CallbackManager.configure(*_inherited(request.tool)).on_tool_start(**_start(request))
    try:
        yield run
    except BaseException as exc:
        manager.on_tool_error(exc)
        raise
    manager.on_tool_end(run.result)


@asynccontextmanager
async def atold(request: ToolCallRequest, *, hidden: bool) -> AsyncIterator[Told]:
    """As `told`."""
    run = Told(request)
    if not hidden or request.tool is None:
        yield run
        return
    run.request = request.override(tool=_unseen(request.tool))
    manager = await AsyncCallbackManager.configure(*_inherited(request.tool)).on_tool_start(**_start(request))
    try:
        yield run
    except BaseException as exc:
        await manager.on_tool_error(exc)
        raise
    await manager.on_tool_end(run.result)


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


def _unseen(tool: BaseTool) -> BaseTool:
    plain = tool.model_copy(update={"callbacks": None})
    same = plain.model_copy()

    def invoke(given: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        with unseen():
            return plain.invoke(given, _quiet(config), **kwargs)

    async def ainvoke(given: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        with unseen():
            return await plain.ainvoke(given, _quiet(config), **kwargs)

    # a pydantic model takes fields alone; these go before the methods of its class
    same.__dict__.update(invoke=invoke, ainvoke=ainvoke)
    return same


def _quiet(config: RunnableConfig | None) -> RunnableConfig:
    return {**(config or {}), "callbacks": None}
