"""The last door before a tool: the call with which it is really invoked is judged, whoever changed it on the way.

Middleware inside the guard may change a call that was judged, or its tool: a person's edit, a retry, a redirect. So the
tool itself is replaced by one that has its arguments judged before it runs.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from langchain.agents.middleware.types import ToolCallRequest
from langchain_core.messages import BaseMessage, ToolCall
from langchain_core.tools import BaseTool
from langgraph.prebuilt import ToolRuntime
from langgraph.store.base import BaseStore

from langchain_stars._hidden_runs import hidden_runs, quiet_config, quiet_runtime
from langchain_stars._trust import digest_of_call
from langchain_stars._waiting import AWAITING, BLOCKING, Waiting, run

__all__ = ["ToolDoor"]

JudgeCall = Callable[[Waiting, ToolCall], Awaitable[BaseMessage | None]]
"""Judges a call. Gives the message that stands for its result where the call is rejected."""


class ToolDoor:
    """Stands before every tool of one tool call.

    Args:
        judge: judges a call that differs from the one that has been judged.
        judged: the call that has been judged already.
        hidden: whether nobody sees the tool run.
    """

    def __init__(self, judge: JudgeCall, judged: ToolCall, *, hidden: bool) -> None:
        self._judge = judge
        self._judged = (judged["name"], copy.deepcopy(judged["args"]))  # it may be changed where it is
        self._digest = digest_of_call(*self._judged, None)
        self.hidden = hidden

    def hiding(self) -> AbstractContextManager[None]:
        """Around whatever runs behind the door."""
        return hidden_runs() if self.hidden else nullcontext()

    def request(self, request: ToolCallRequest) -> ToolCallRequest:
        """The request with a judged tool. So is every request that is made from it, with whichever tool."""
        door = self

        class JudgedRequest(ToolCallRequest):
            def __setattr__(self, name: str, value: Any) -> None:
                if name == "tool" and isinstance(value, BaseTool):
                    value = door._tool(value)
                elif name == "runtime" and door.hidden:
                    value = quiet_runtime(value)
                super().__setattr__(name, value)

        return JudgedRequest(request.tool_call, request.tool, request.state, request.runtime)

    def _tool(self, tool: BaseTool) -> BaseTool:
        """The same tool, whose calls are judged."""
        if isinstance(tool.__dict__.get(_MARK), ToolDoor):
            return tool
        plain = tool.model_copy(update={"callbacks": None}) if self.hidden else tool
        same = plain.model_copy()

        def blocking(name: str) -> Callable[..., Any]:
            def call(given: Any, *args: Any, **kwargs: Any) -> Any:
                if (refused := run(self._refusal(BLOCKING, tool, given, kwargs))) is not None:
                    return refused
                with self.hiding():
                    return getattr(plain, name)(given, *self._quiet(args), **self._quiet_named(kwargs))

            return call

        def awaiting(name: str) -> Callable[..., Any]:
            async def call(given: Any, *args: Any, **kwargs: Any) -> Any:
                if (refused := await self._refusal(AWAITING, tool, given, kwargs)) is not None:
                    return refused
                with self.hiding():
                    return await getattr(plain, name)(given, *self._quiet(args), **self._quiet_named(kwargs))

            return call

        doors = {name: blocking(name) for name in ("invoke", "run")}
        doors |= {name: awaiting(name) for name in ("ainvoke", "arun")}
        # a pydantic model takes fields alone; these go before the methods of its class
        same.__dict__.update(doors, **{_MARK: self})
        return same

    async def _refusal(self, waiting: Waiting, tool: BaseTool, given: Any, about: Mapping[str, Any]) -> Any:
        """What stands for the tool's result where its call is rejected, or None."""
        is_call = isinstance(given, Mapping) and given.get("type") == "tool_call"
        args = given["args"] if is_call else given if isinstance(given, Mapping) else {"input": given}
        own = tool._filter_injected_args(dict(args))
        own = {name: value for name, value in own.items() if not isinstance(value, (ToolRuntime, BaseStore))}
        # equal is not the same: True is 1 to Python, and another value to a tool
        if (tool.name, own) == self._judged and digest_of_call(tool.name, own, None) == self._digest:
            return None
        call_id = given.get("id") if is_call else about.get("tool_call_id")
        return await self._judge(waiting, ToolCall(name=tool.name, args=own, id=call_id, type="tool_call"))

    def _quiet(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(quiet_config(arg) if self.hidden and isinstance(arg, Mapping) else arg for arg in args)

    def _quiet_named(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if not self.hidden:
            return dict(kwargs)
        quiet = {"config": quiet_config(kwargs.get("config")) if "config" in kwargs else None, "callbacks": None}
        return {name: quiet.get(name, value) for name, value in kwargs.items()}


_MARK = "_stars_guard_door"
