"""Agents in which a text is rejected, one for each place that a text can come from, and all views of a run."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, get_args

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain.tools import ToolRuntime
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler, dispatch_custom_event
from langchain_core.globals import set_debug, set_verbose
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langchain_core.tracers.context import collect_runs, register_configure_hook
from langgraph.config import get_config, get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import StreamMode

from langchain_stars import StarsGuardMiddleware, guard_runnable

BAD = "AKIAABCDEFGHIJKLMNOP"
_KEY = {"type": "patterns", "patterns": [{"name": "k", "regex": r"AKIA[A-Z0-9]{16}|EVIL"}]}
POLICY: dict[str, Any] = {
    "apiVersion": "stars-guard/v1",
    "name": "doors",
    "decoding": {"attempts": 2, "on_exhausted": "refuse"},
    "judges": [{"name": "key", **_KEY}],
    "rails": {
        stage: {"judges": [{"name": stage, **_KEY}]} for stage in ("input", "tool_call", "tool_result", "output")
    },
}
INPUT: Any = {"messages": [("user", "hi")]}


class Scripted(BaseChatModel):
    """Another maker's model, which says its answers one after the other and streams them word by word."""

    answers: list[Any]
    at: int = 0

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _next(self) -> AIMessage:
        answer = self.answers[min(self.at, len(self.answers) - 1)]
        self.at += 1
        return AIMessage(answer) if isinstance(answer, str) else answer.model_copy(deep=True)

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._next())])

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        message = self._next()
        if message.tool_calls:
            parts = [AIMessageChunk(**message.model_dump(exclude={"type"}), chunk_position="last")]
        else:
            parts = [AIMessageChunk(content=word + " ") for word in message.text.split(" ")]
        for part in parts:
            chunk = ChatGenerationChunk(message=part)
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


def calls(name: str, args: dict[str, Any] | None = None) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": args or {"q": "x"}, "id": "c1", "type": "tool_call"}])


def guard(**kwargs: Any) -> StarsGuardMiddleware:
    return StarsGuardMiddleware(policy=POLICY, audit="memory://", **kwargs)


def agent(model: Any, tools: Any = (), inner: Any = (), **kwargs: Any) -> Any:
    return create_agent(model, tools=list(tools), middleware=[guard(), *inner], **kwargs)


def _inner() -> Any:
    return create_agent(Scripted(answers=[f"inner says {BAD} now"]), tools=[], name="inner")


@tool
def asks_an_agent(q: str) -> str:
    """Runs an agent."""
    return str(_inner().invoke(INPUT)["messages"][-1].content)


@tool
async def awaits_an_agent(q: str) -> str:
    """Runs an agent."""
    return str((await _inner().ainvoke(INPUT))["messages"][-1].content)


@tool
def asks_with_runtime(q: str, runtime: ToolRuntime) -> str:
    """Runs an agent in the configuration of the tool's runtime."""
    return str(_inner().invoke(INPUT, runtime.config)["messages"][-1].content)


@tool
def asks_with_config(q: str, config: RunnableConfig) -> str:
    """Streams an agent in the tool's configuration."""
    return str(list(_inner().stream(INPUT, config, stream_mode="values")))


@tool
def streams_a_model(q: str, runtime: ToolRuntime) -> str:
    """Streams a model."""
    return "".join(chunk.text for chunk in Scripted(answers=[f"says {BAD} now"]).stream(q, runtime.config))


@tool
def streams_in_context(q: str) -> str:
    """Streams a model."""
    return "".join(chunk.text for chunk in Scripted(answers=[f"says {BAD} now"]).stream(q, get_config()))


@tool
def writes_by_context(q: str) -> str:
    """Writes to the stream."""
    get_stream_writer()({"progress": BAD})
    return "ok"


@tool
def writes_by_runtime(q: str, runtime: ToolRuntime) -> str:
    """Writes to the stream."""
    runtime.stream_writer({"progress": BAD})
    return "ok"


@tool
def writes_by_config(q: str, runtime: ToolRuntime) -> str:
    """Writes to the stream."""
    runtime.config["configurable"]["__pregel_runtime"].stream_writer({"progress": BAD})
    return "ok"


@tool
def emits_deltas(q: str, runtime: ToolRuntime) -> str:
    """Writes to the stream of tools."""
    runtime.emit_output_delta(f"delta {BAD}")
    return "ok"


@tool
def tells_an_event(q: str) -> str:
    """Dispatches a custom event."""
    dispatch_custom_event("progress", {"text": BAD})
    return "ok"


@tool
def gives_it(q: str) -> str:
    """Gives it back."""
    return f"page {BAD}"


@tool
def fails_with_it(q: str) -> str:
    """Fails."""
    try:
        raise KeyError(f"cause {BAD}")
    except KeyError as exc:
        raise ValueError(f"failed {BAD}") from exc


@tool
def fails_at_depth(q: str) -> str:
    """Fails with an error whose own text is harmless."""
    try:
        raise KeyError(f"cause {BAD}")
    except KeyError:
        raise ValueError("harmless")  # noqa: B904


TOOLS = [
    asks_an_agent,
    awaits_an_agent,
    asks_with_runtime,
    asks_with_config,
    streams_a_model,
    streams_in_context,
    writes_by_context,
    writes_by_runtime,
    writes_by_config,
    emits_deltas,
    tells_an_event,
    gives_it,
    fails_with_it,
    fails_at_depth,
]


class Inner(AgentMiddleware):
    """Changes a call on its way to its tool."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        super().__init__()
        self._change = change

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        return handler(self._change(request))

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        return await handler(self._change(request))


class Another(AgentMiddleware):
    """Has another model answer, as a fallback does."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(model=Scripted(answers=[f"the key is {BAD} ok"])))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(request.override(model=Scripted(answers=[f"the key is {BAD} ok"])))


def _in_a_node() -> Any:
    def node(state: Any) -> Any:
        try:
            return guard_runnable(_inner(), POLICY, audit="memory://", on_reject="raise").invoke(INPUT)
        except Exception:
            return {"messages": [AIMessage("refused")]}

    def streams(state: Any) -> Any:
        guarded = guard_runnable(Scripted(answers=[f"says {BAD}"]), POLICY, audit="memory://")
        return {"messages": [list(guarded.stream("hi"))[-1]]}

    graph = StateGraph(MessagesState)
    graph.add_node("node", node)
    graph.add_node("streams", streams)
    graph.add_edge(START, "node")
    graph.add_edge("node", "streams")
    graph.add_edge("streams", END)
    return graph.compile()


SCENARIOS: dict[str, Callable[[], Any]] = {
    "answer": lambda: agent(Scripted(answers=[f"the key is {BAD} ok", f"again {BAD}"])),
    "answer of a fallback": lambda: agent(Scripted(answers=["fine"]), inner=[Another()]),
    "runnable in a node": _in_a_node,
    **{
        one.name: lambda one=one: agent(Scripted(answers=[calls(one.name), "done"]), [one])  # type: ignore[misc]
        for one in TOOLS
    },
}


def _handler(base: Any, seen: list[str]) -> Any:
    """A handler that takes down all that any of LangChain's events holds."""

    def heard(self: Any, *args: Any, **kwargs: Any) -> None:
        seen.append(repr((args, kwargs)))
        seen.extend(repr(vars(arg)) + repr(getattr(arg, "__cause__", "")) for arg in args if hasattr(arg, "__dict__"))

    async def aheard(self: Any, *args: Any, **kwargs: Any) -> None:
        heard(self, *args, **kwargs)

    events = [name for name in dir(base) if name.startswith("on_")]
    function = aheard if issubclass(base, AsyncCallbackHandler) else heard
    return type("Heard", (base,), dict.fromkeys(events, function))()


_hook: ContextVar[Any] = ContextVar("tests_hook", default=None)
_inherited_hook: ContextVar[Any] = ContextVar("tests_inherited_hook", default=None)
_from_environment: ContextVar[Any] = ContextVar("tests_environment", default=None)
_made: list[str] = []


class MadeByEnvironment(BaseCallbackHandler):
    """What LangChain makes where a variable of the environment says so."""

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        _made.append(repr(response))

    def on_tool_end(self, output: Any, **kwargs: Any) -> None:
        _made.append(repr(output))


register_configure_hook(_hook, False)
register_configure_hook(_inherited_hook, True)
register_configure_hook(_from_environment, True, MadeByEnvironment, "TESTS_DOORS_HANDLER")


def _quietly(run: Callable[[], Any], seen: list[Any]) -> None:
    """Errors reach the caller too, with all that Python shows of them."""
    import traceback

    try:
        seen.append(run())
    except Exception as exc:
        seen.append("".join(traceback.format_exception(exc)) + repr(exc) + repr(vars(exc)))


def view_of_callbacks(made: Any, base: Any) -> list[Any]:
    seen: list[Any] = []
    _quietly(lambda: made.invoke(INPUT, {"callbacks": [_handler(base, seen)]}), seen)
    return seen


def view_of_context(made: Any) -> list[Any]:
    """`collect_runs`, hooks of every kind, the console."""
    seen: list[Any] = []
    printed = io.StringIO()
    hooks = [(var, var.set(_handler(BaseCallbackHandler, seen))) for var in (_hook, _inherited_hook)]
    set_debug(True)
    set_verbose(True)
    try:
        with collect_runs() as collected, contextlib.redirect_stdout(printed):
            _quietly(lambda: list(made.stream(INPUT, stream_mode=["messages", "values"])), seen)
    finally:
        set_debug(False)
        set_verbose(False)
        for var, token in hooks:
            var.reset(token)
    seen += [repr(run.model_dump()) for run in collected.traced_runs]
    return [*seen, printed.getvalue(), *_made]


def stream_views() -> list[tuple[str, bool]]:
    return [(mode, subgraphs) for mode in get_args(StreamMode) for subgraphs in (False, True)]


async def collect(events: Any, seen: list[Any]) -> None:
    import traceback

    try:
        async for event in events:
            seen.append(event)
    except Exception as exc:
        seen.append("".join(traceback.format_exception(exc)) + repr(exc))
