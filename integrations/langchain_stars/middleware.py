"""StarsGuardMiddleware: every stage of a LangChain agent under one policy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from langchain.agents.middleware.types import (
    AgentMiddleware,
    AgentState,
    ModelRequest,
    ModelResponse,
    ToolCallRequest,
    TracePolicy,
    hook_config,
    omit_payload,
)
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.runtime import Runtime
from langgraph.types import Command

from langchain_stars._current_guard import LiveGuard, current_run_id
from langchain_stars._hidden_runs import KeptAnswer
from langchain_stars._hidden_tool_run import atold, told
from langchain_stars._regeneration import Redraw
from langchain_stars._texts import last_turn, message_of_refusal, text_of_message, transcript
from langchain_stars._tool_stream import ToolOutputFilter, withholds_results
from langchain_stars.chat_model import ChatStars
from stars_guard.calling.checks import Checked
from stars_guard.core.messages import Message
from stars_guard.guard import Guard
from stars_guard.policy import Policy
from stars_guard.prompting.call_rendering import render_call

__all__ = ["StarsGuardMiddleware"]


class StarsGuardMiddleware(AgentMiddleware[AgentState[Any], Any, Any]):
    """Puts an agent under a policy: user input, model calls, tool calls, tool results and the final answer.

    ``create_agent(model, tools, middleware=[StarsGuardMiddleware(policy="agent-tools")])``. List it first: then it sees
    the input before, and the answer after, every other middleware. The judges of each stage are those of the policy's
    ``rails:``. A `ChatStars` draws its answers under this policy, segment by segment; of any other model whole answers
    are judged, up to ``decoding.attempts`` of them, and none is streamed or traced before it has been kept.

    Args:
        policy: a shipped policy's name, a path, a mapping or a `Policy`. A file that changes is read again.
        model: draws the answers in the place of the agent's own model.
        audit: the audit log's URL or a store, instead of the policy's.
        allow_python: whether the policy's judges may name Python code to run.

    Raises:
        PolicyError: the policy cannot be used.
    """

    trace_policy = TracePolicy(process_inputs=omit_payload)

    def __init__(
        self,
        policy: str | Path | Mapping[str, Any] | Policy = "agent-tools",
        *,
        model: ChatStars | None = None,
        audit: Any = None,
        allow_python: bool = False,
    ) -> None:
        super().__init__()
        self._guards = LiveGuard(policy, audit=audit, allow_python=allow_python)
        self._audit = audit
        self._model = model
        self._swapped: dict[int, tuple[Policy, ChatStars, ChatStars]] = {}
        self.transformers = (partial(ToolOutputFilter, guards=self._guards),)

    # --- what the user says

    @hook_config(can_jump_to=["end"])
    def before_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Judge the user's new messages; a rejected one is taken out and the agent ends with the refusal."""
        guard, start = self._guards.current, last_turn(state["messages"])
        for index, text, context in _inputs(state["messages"], start):
            checked = guard.blocking.check("input", text, messages=context, run_id=current_run_id())
            if not checked.allowed:
                return _refuse_input(guard, state["messages"][index], checked)
        return None

    @hook_config(can_jump_to=["end"])
    async def abefore_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """As `before_agent`."""
        guard, start = self._guards.current, last_turn(state["messages"])
        for index, text, context in _inputs(state["messages"], start):
            checked = await guard.check("input", text, messages=context, run_id=current_run_id())
            if not checked.allowed:
                return _refuse_input(guard, state["messages"][index], checked)
        return None

    # --- what the model says

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Draw the answer under the policy."""
        guard = self._guards.current
        if (swapped := self._chat_stars(request, guard)) is not None:
            return handler(request.override(model=swapped))
        drawn = _redraw(guard, request)
        kept = drawn.run(lambda: handler(request))
        response = _released(guard, drawn, kept)
        _say(response, request).invoke(request.messages)
        return response

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """As `wrap_model_call`."""
        guard = self._guards.current
        if (swapped := self._chat_stars(request, guard)) is not None:
            return await handler(request.override(model=swapped))
        drawn = _redraw(guard, request)
        kept = await drawn.arun(lambda: handler(request))
        response = _released(guard, drawn, kept)
        await _say(response, request).ainvoke(request.messages)
        return response

    def _chat_stars(self, request: ModelRequest[Any], guard: Guard) -> ChatStars | None:
        """The model that draws under this policy, or None where the agent's cannot."""
        model = self._model or request.model
        if not isinstance(model, ChatStars):
            return None
        known = self._swapped.get(id(model))
        if known is None or known[0] is not guard.policy:
            audit = self._audit if isinstance(self._audit, str) else model.audit
            ours = ChatStars.model_validate({**_fields(model), "policy": guard.policy, "audit": audit})
            known = self._swapped[id(model)] = (guard.policy, model, ours)
        return known[2]

    # --- tools

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        """Judge the call before the tool runs, and what it gives back before the model reads it."""
        guard, context, run_id = self._guards.current, _context(request), current_run_id()
        checked = guard.blocking.check("tool_call", _call(request), messages=context, run_id=run_id)
        if not checked.allowed:
            return _not_run(guard, request, checked)
        with told(request, hidden=withholds_results(guard.policy)) as run:
            result = _Results(handler(run.request))
            for index, text in result.texts():
                found = guard.blocking.check("tool_result", text, messages=context, run_id=run_id)
                result.put(guard, index, found)
            run.result = result.whole()
        return run.result

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        """As `wrap_tool_call`."""
        guard, context, run_id = self._guards.current, _context(request), current_run_id()
        checked = await guard.check("tool_call", _call(request), messages=context, run_id=run_id)
        if not checked.allowed:
            return _not_run(guard, request, checked)
        async with atold(request, hidden=withholds_results(guard.policy)) as run:
            result = _Results(await handler(run.request))
            for index, text in result.texts():
                found = await guard.check("tool_result", text, messages=context, run_id=run_id)
                result.put(guard, index, found)
            run.result = result.whole()
        return run.result

    # --- what goes out

    def after_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Judge the final answer, whoever put it there; a rejected one is replaced by the refusal."""
        guard = self._guards.current
        if (text := _final(guard, state)) is None:
            return None
        context, run_id = transcript(state["messages"][:-1]), current_run_id()
        return _refuse_output(guard, state, guard.blocking.check("output", text, messages=context, run_id=run_id))

    async def aafter_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """As `after_agent`."""
        guard = self._guards.current
        if (text := _final(guard, state)) is None:
            return None
        context, run_id = transcript(state["messages"][:-1]), current_run_id()
        return _refuse_output(guard, state, await guard.check("output", text, messages=context, run_id=run_id))


def _inputs(messages: Sequence[BaseMessage], start: int) -> Iterator[tuple[int, str, list[Message]]]:
    for index in range(start, len(messages)):
        yield index, text_of_message(messages[index]), transcript(messages[:index])


def _refuse_input(guard: Guard, message: BaseMessage, checked: Checked) -> dict[str, Any]:
    # what was rejected must not be read at the next turn, which judges only what is new
    taken_out = HumanMessage(content="[removed by policy]", id=message.id)
    refusal = message_of_refusal(guard, checked.reason, checked.audit_id)
    return {"messages": [taken_out, refusal], "jump_to": "end"}


def _fields(model: ChatStars) -> dict[str, Any]:
    return {name: getattr(model, name) for name in type(model).model_fields}


def _judged_text(response: ModelResponse[Any]) -> str:
    """The text of an answer; of a structured one also its values. Calls of tools are judged before the tools run."""
    texts = [text_of_message(message) for message in response.result if isinstance(message, AIMessage)]
    if response.structured_response is not None:
        calls = [call for message in response.result if isinstance(message, AIMessage) for call in message.tool_calls]
        texts += [render_call(call["name"], call["args"]) for call in calls]
    return "\n".join(text for text in texts if text)


def _redraw(guard: Guard, request: ModelRequest[Any]) -> Redraw[ModelResponse[Any]]:
    system = [request.system_message] if request.system_message else []
    name = getattr(request.model, "model_name", None) or getattr(request.model, "model", None)
    return Redraw(
        guard, transcript([*system, *request.messages]), str(name or type(request.model).__name__), _judged_text
    )


def _released(guard: Guard, drawn: Redraw[ModelResponse[Any]], kept: ModelResponse[Any] | None) -> ModelResponse[Any]:
    if kept is not None:
        return kept
    done = drawn.done
    reason, audit_id = (done.reason, done.call_id) if done else ("", None)
    return ModelResponse(result=[message_of_refusal(guard, reason, audit_id)])


def _say(response: ModelResponse[Any], request: ModelRequest[Any]) -> Any:
    message = next(message for message in response.result if isinstance(message, AIMessage))
    if message.id is None:
        message.id = f"stars-guard-{uuid4()}"
    name = type(request.model).__name__
    return KeptAnswer(message=message, provider=request.model._llm_type).with_config(run_name=name)


def _context(request: ToolCallRequest) -> list[Message]:
    state = request.state
    messages = state.get("messages", []) if isinstance(state, dict) else getattr(state, "messages", [])
    return transcript(messages)


def _call(request: ToolCallRequest) -> str:
    return render_call(request.tool_call["name"], request.tool_call["args"])


def _not_run(guard: Guard, request: ToolCallRequest, checked: Checked) -> ToolMessage:
    return ToolMessage(
        content=f"The tool was not run: policy {guard.policy.name!r} does not allow this call ({checked.reason}).",
        tool_call_id=str(request.tool_call["id"]),
        name=request.tool_call["name"],
        status="error",
        response_metadata={"stars_guard": {"audit_id": checked.audit_id, "reason": checked.reason}},
    )


class _Results:
    """The tool messages in what a tool call gave back: a message, a `Command` that updates messages, or a list."""

    def __init__(self, given: Any) -> None:
        self._given = given
        self._new: dict[int, ToolMessage] = {}

    def _parts(self) -> list[Any]:
        return list(self._given) if isinstance(self._given, list) else [self._given]

    def _messages(self) -> Iterator[ToolMessage]:
        for part in self._parts():
            for message in [part] if isinstance(part, ToolMessage) else _updated(part):
                if isinstance(message, ToolMessage):
                    yield message

    def texts(self) -> list[tuple[int, str]]:
        return [(id(message), text_of_message(message)) for message in self._messages()]

    def put(self, guard: Guard, index: int, checked: Checked) -> None:
        if checked.allowed:
            return
        note = f"[The tool's result was withheld by policy {guard.policy.name!r}: {checked.reason}]"
        message = next(message for message in self._messages() if id(message) == index)
        about = {**message.response_metadata, "stars_guard": {"audit_id": checked.audit_id, "reason": checked.reason}}
        self._new[index] = message.model_copy(
            update={"content": checked.text or note, "artifact": None, "response_metadata": about}
        )

    def whole(self) -> Any:
        if not self._new:
            return self._given
        parts = [self._replaced(part) for part in self._parts()]
        return parts if isinstance(self._given, list) else parts[0]

    def _replaced(self, part: Any) -> Any:
        if not isinstance(part, Command):
            return self._new.get(id(part), part)
        update = part.update
        if isinstance(update, Mapping):
            return replace(part, update={key: self._in(value) for key, value in update.items()})
        return replace(part, update=self._in(update))

    def _in(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(self._in(item) for item in value)
        return self._new.get(id(value), value)


def _updated(part: Any) -> Iterator[Any]:
    """Every value in the update of a `Command`, lists opened."""
    if not isinstance(part, Command) or part.update is None:
        return
    waiting = list(part.update.values()) if isinstance(part.update, Mapping) else [part.update]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list | tuple):
            waiting += value
        else:
            yield value


def _final(guard: Guard, state: AgentState[Any]) -> str | None:
    """The text of the final answer, or None where there is none but the policy's own refusal."""
    message = state["messages"][-1] if state["messages"] else None
    text = text_of_message(message) if isinstance(message, AIMessage) else ""
    return text if text and text != guard.policy.refusal.message else None


def _refuse_output(guard: Guard, state: AgentState[Any], checked: Checked) -> dict[str, Any] | None:
    if checked.allowed:
        return None
    refusal = message_of_refusal(guard, checked.reason, checked.audit_id, id=state["messages"][-1].id)
    cleared = {"structured_response": None} if state.get("structured_response") is not None else {}
    return {"messages": [refusal], **cleared}
