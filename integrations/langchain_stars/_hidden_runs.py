"""Runs that streams and traces do not see, because what they write may yet be rejected.

LangChain and LangGraph show a run in many ways: callbacks of the surrounding run, handlers in context variables
(`collect_runs`, `register_configure_hook`, LangSmith), the console (`set_debug`, `set_verbose`), the surrounding
graph's stream, and the writers that a node or tool is given. `hidden_runs` closes all of them, and the caches too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, cast

from langchain_core.callbacks import BaseCallbackManager, CallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers.context import _configure_hooks, tracing_v2_callback_var
from langsmith.run_helpers import tracing_context

from langchain_stars._judged_cache import no_caches
from langchain_stars._silent_handlers import SILENT

__all__ = ["current_run_id", "hidden_runs", "quiet_config", "quiet_runtime", "surrounding_callbacks"]

_STREAM, _RUNTIME = "__pregel_stream", "__pregel_runtime"
"""Where LangGraph's configuration holds the surrounding graph's stream, and the writer for custom data."""

_DELTAS = "langgraph_tool_call_writer"
"""The context variable of LangGraph's that holds the writer of a tool's deltas."""


def current_run_id() -> str | None:
    """The LangChain run that the code is in, for the audit record."""
    manager = (var_child_runnable_config.get() or {}).get("callbacks")
    run_id = getattr(manager, "parent_run_id", None)
    return str(run_id) if run_id else None


def surrounding_callbacks() -> CallbackManager:
    """All that listens to the code's runs: callbacks of the surrounding run, and those of the context."""
    config = var_child_runnable_config.get() or {}
    return CallbackManager.configure(
        config.get("callbacks"), inheritable_tags=config.get("tags"), inheritable_metadata=config.get("metadata")
    )


@contextmanager
def hidden_runs() -> Iterator[None]:
    """Nobody sees runs that begin inside, and no cache that the program shares keeps or gives their answers.

    Handlers that the code inside brings itself are called, because they belong to what is hidden.
    """
    with ExitStack() as stack:
        stack.enter_context(_set(var_child_runnable_config, quiet_config(var_child_runnable_config.get())))
        stack.enter_context(tracing_context(enabled=False))
        stack.enter_context(_set(tracing_v2_callback_var, None))
        for var, _, handler_class, env_var in list(_configure_hooks):
            # where a variable of the environment asks for a handler, only another handler in its place prevents it
            made_anyway = env_var is not None and handler_class is not None
            stack.enter_context(_set(var, SILENT[0] if made_anyway else None))
        for var in copy_context():
            if var.name == _DELTAS:
                stack.enter_context(_set(var, None))
        stack.enter_context(no_caches())
        yield


@contextmanager
def _set(var: ContextVar[Any], value: Any) -> Iterator[None]:
    token = var.set(value)
    try:
        yield
    finally:
        var.reset(token)


def quiet_config(config: Mapping[str, Any] | None) -> RunnableConfig:
    """A configuration whose runs nobody sees. What a graph needs to pause and to go on stays in it."""
    config = config or {}
    callbacks = config.get("callbacks")
    parent = callbacks.parent_run_id if isinstance(callbacks, BaseCallbackManager) else None
    quiet = CallbackManager(handlers=list(SILENT), inheritable_handlers=list(SILENT), parent_run_id=parent)
    graph = {name: value for name, value in (config.get("configurable") or {}).items() if name != _STREAM}
    if _RUNTIME in graph:
        graph[_RUNTIME] = quiet_runtime(graph[_RUNTIME])
    return cast("RunnableConfig", {**config, "callbacks": quiet, "configurable": graph})


def quiet_runtime(runtime: Any) -> Any:
    """A runtime of a node or tool whose writer writes nowhere."""
    if not dataclasses.is_dataclass(runtime) or isinstance(runtime, type):
        return runtime
    changes: dict[str, Any] = {}
    if hasattr(runtime, "stream_writer"):
        changes["stream_writer"] = _nowhere
    if hasattr(runtime, "config"):
        changes["config"] = quiet_config(runtime.config)
    return dataclasses.replace(runtime, **changes)


def _nowhere(data: Any) -> None:
    """A stream writer that writes nothing."""
