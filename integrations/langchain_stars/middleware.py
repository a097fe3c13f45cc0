"""StarsGuardMiddleware: every stage of a LangChain agent under one policy."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from uuid import uuid4

from langchain.agents.middleware.types import (
    AgentMiddleware,
    AgentState,
    ExtendedModelResponse,
    ModelRequest,
    ModelResponse,
    ToolCallRequest,
    TracePolicy,
    hook_config,
    omit_payload,
)
from langchain_core.messages import AIMessage, BaseMessage, ToolCall
from langchain_core.runnables import Runnable
from langgraph.runtime import Runtime
from langgraph.types import Command

from langchain_stars._agent_facts import AgentFacts, facts_of, known_facts, seconds_of, tools_of
from langchain_stars._answer_failures import AnswerFailures
from langchain_stars._approval import settled_calls
from langchain_stars._call_decisions import CallDecisions, context_of
from langchain_stars._call_door import refusal_to_run
from langchain_stars._conversation import message_of_refusal, messages_in_state, transcript
from langchain_stars._final_answer import judged_end
from langchain_stars._guards import GuardRecipe, OpenGuards, OpensGuards, PolicySource
from langchain_stars._hidden_runs import current_run_id
from langchain_stars._hidden_tool_run import tool_run, withholds_results
from langchain_stars._keywords import check_keywords
from langchain_stars._model_answers import Answer, answer_or_failure, reading_of_answer
from langchain_stars._model_door import ModelDoor, RejectedBeforeModel
from langchain_stars._plain import Unreadable
from langchain_stars._quiet_models import QuietModels
from langchain_stars._reading import read
from langchain_stars._regeneration import regenerate_until_kept
from langchain_stars._released_answer import ReleasedAnswer
from langchain_stars._shown_answers import ShownAnswers
from langchain_stars._tool_door import ToolDoor
from langchain_stars._tool_failures import judged_failure
from langchain_stars._tool_results import judged_result
from langchain_stars._trust import remember
from langchain_stars._unjudged import GuardedState, check_reading, judged_input, judged_so_far, rejected_before_model
from langchain_stars._waiting import AWAITING, BLOCKING, Waiting, run
from langchain_stars._withheld_calls import without_rejected_calls
from langchain_stars.chat_model import ChatStars
from stars_guard.audit import AuditStore
from stars_guard.calling.checks import Checked
from stars_guard.guard import Guard

__all__ = ["StarsGuardMiddleware"]


class StarsGuardMiddleware(OpensGuards, AgentMiddleware[AgentState[Any], Any, Any]):
    """Puts an agent under a policy: user input, model calls, tool calls, tool results and the final answer.

    ``create_agent(model, tools, middleware=[StarsGuardMiddleware(policy="agent-tools")])``. List it first: then it sees
    the input before every other middleware, and the answer after them. The judges of each stage are those of the
    policy's ``rails:``. A `ChatStars` generates its answers under this policy, segment by segment. Of any other model,
    whole answers are judged, up to ``decoding.attempts`` of them, and none is streamed or traced before it is kept.

    Args:
        policy: a shipped policy's name, a path, a mapping or a `Policy`. A file that changes is read again.
        model: generates the answers instead of the agent's own model.
        audit: a store or its URL, instead of the policy's, for all records of the agent's run.
        allow_python: whether the policy's judges may name Python code to run.
        name: tells it from another one in the same agent; the default is the class's name.

    Raises:
        InputError: a keyword is not known.
        PolicyError: the policy cannot be used.
    """

    state_schema = GuardedState
    trace_policy = TracePolicy(process_inputs=omit_payload)

    def __init__(
        self,
        policy: PolicySource = "agent-tools",
        *,
        model: ChatStars | None = None,
        audit: str | AuditStore | None = None,
        allow_python: bool = False,
        name: str | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        check_keywords(unknown, ("policy", "model", "audit", "allow_python", "name"), type(self).__name__)
        self._name = name
        self._recipe = GuardRecipe(policy=policy, audit=audit, allow_python=allow_python)
        self._model = model
        self._quiet = QuietModels()
        self._guards = OpenGuards()
        self._guards.policy(policy)  # a policy that cannot be used is an error now

    @property
    def name(self) -> str:
        """What the agent's graph calls it. No two middlewares of an agent may have the same name."""
        return self._name or super().name

    @property
    def _mark(self) -> str:
        """Whose judging a conversation's state takes note of."""
        return "" if self.name == StarsGuardMiddleware.__name__ else self.name

    # --- LangChain's hooks, for callers that block and callers that await

    @hook_config(can_jump_to=["end"])
    def before_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Judge the user's new messages. A rejected one is taken out, and the agent ends with the refusal."""
        return run(self._judge_input(BLOCKING, state))

    @hook_config(can_jump_to=["end"])
    async def abefore_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """As `before_agent`."""
        return await self._judge_input(AWAITING, state)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """Have the answer generated under the policy."""
        return run(self._call_model(BLOCKING, request, handler))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """As `wrap_model_call`."""
        return await self._call_model(AWAITING, request, handler)

    def after_model(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Ask a person about the calls of which a rule says so. The run pauses here until it is resumed."""
        return run(self._ask_person(BLOCKING, state, runtime))

    async def aafter_model(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """As `after_model`."""
        return await self._ask_person(AWAITING, state, runtime)

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        """Judge the call before the tool runs, and what it gives back before the model reads it."""
        return run(self._run_tool(BLOCKING, request, handler))

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        """As `wrap_tool_call`."""
        return await self._run_tool(AWAITING, request, handler)

    def after_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Judge the final answer, whoever put it there. A rejected one is replaced by the refusal."""
        return run(self._judge_output(BLOCKING, state))

    async def aafter_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """As `after_agent`."""
        return await self._judge_output(AWAITING, state)

    # --- what happens behind them

    async def _judge_input(self, waiting: Waiting, state: AgentState[Any]) -> dict[str, Any] | None:
        guard = await self._guards.current(waiting, self._recipe)
        began = {"stars_guard_began": time.time()} if guard.policy.rails.tool_call.needs_facts else {}
        return {**began, **(await judged_input(waiting, guard, state, by=self._mark) or {})} or None

    async def _ask_person(
        self, waiting: Waiting, state: AgentState[Any], runtime: Runtime[Any]
    ) -> dict[str, Any] | None:
        guard = await self._guards.current(waiting, self._recipe)
        return await settled_calls(waiting, guard, state, runtime, by=self._mark)

    async def _call_model(
        self, waiting: Waiting, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        guard = await self._guards.current(waiting, self._recipe)
        facts = known = known_facts(request.state)
        if guard.policy.rails.tool_call.needs_facts:
            tools = tools_of(request)
            guard.check_tools(tools)
            facts = facts_of(request, tools)
        response = await self._answer(waiting, guard, request, handler, facts)
        if facts == known:
            return response
        return ExtendedModelResponse(response, Command(update={"stars_guard_agent": facts}))

    async def _answer(
        self,
        waiting: Waiting,
        guard: Guard,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Any],
        facts: AgentFacts,
    ) -> ModelResponse[Any]:
        shown = ShownAnswers()
        found = await rejected_before_model(waiting, guard, request.messages, request.state, by=self._mark)
        if found is not None:
            return ModelResponse(result=[message_of_refusal(guard, found.reason, found.audit_id, said=found.refusal)])
        model = self._model or request.model
        if isinstance(model, ChatStars):
            ours = await waiting.call(lambda: model._under(self._recipe, self._guards))
            request = request.override(model=ours._shown_to(shown))
        request = self._quiet.request(request)
        context = transcript([*([request.system_message] if request.system_message else []), *request.messages])
        decisions = CallDecisions(
            waiting,
            guard,
            messages_in_state(request.state) or request.messages,
            context=context_of(request.runtime),
            facts=facts,
            seconds=seconds_of(request.state),
        )
        failures = AnswerFailures(waiting, guard, context, model=_name_of(request.model))
        door = ModelDoor(guard, request.state, by=self._mark)

        async def generate() -> Answer:
            with door.closed():
                answer = await answer_or_failure(waiting, lambda: handler(request))
            if shown.holds_all_of(answer):
                return answer
            names = {getattr(tool, "name", "") for tool in request.tools}
            return await without_rejected_calls(waiting, guard, answer, decisions=decisions, tools=names)

        failure: Exception | None = None
        try:
            judged = await regenerate_until_kept(
                waiting,
                guard,
                generate,
                messages=context,
                model=_name_of(request.model),
                reading_of=partial(reading_of_answer, calls=not guard.policy.rails.tool_call.is_used),
                is_judged=shown.holds_all_of,
            )
        except Unreadable as exc:
            return ModelResponse(result=[message_of_refusal(guard, exc.message, None)])
        except RejectedBeforeModel as exc:
            return ModelResponse(result=[message_of_refusal(guard, exc.reason, exc.audit_id, said=exc.refusal)])
        except Exception as exc:
            failure = exc
        if failure is not None:  # outside of the clause, so that no error has the other one as its context
            raise await failures.judged(failure)
        if (ended := judged.rejected) is not None:
            response = ModelResponse(
                result=[message_of_refusal(guard, ended.reason, ended.call_id, said=ended.refusal)]
            )
        elif isinstance(judged.answer, Exception):
            raise judged.answer
        elif (veto := await failures.veto(read(*shown.not_shown_in(judged.answer)))) is not None:
            response = ModelResponse(result=[message_of_refusal(guard, veto.reason, veto.audit_id, said=veto.refusal)])
        else:
            response = judged.answer
        for message in response.result:
            remember(message, guard.policy)
            if isinstance(message, AIMessage) and not shown.has(message):
                await waiting.invoke(_run_of_release(message, model), request.messages)
        return response

    async def _run_tool(
        self, waiting: Waiting, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]
    ) -> Any:
        guard, run_id = await self._guards.current(waiting, self._recipe), current_run_id()
        context, call = transcript(messages_in_state(request.state)), request.tool_call

        async def refusal(waiting: Waiting, call: ToolCall) -> BaseMessage | None:
            return await refusal_to_run(waiting, guard, request, call, by=self._mark, run_id=run_id)

        async def judged_text(text: str) -> Checked:
            return await check_reading(waiting, guard, "tool_result", text, messages=context, run_id=run_id)

        async def judged(result: Any) -> Any:
            return await judged_result(waiting, guard, call, result, messages=context, run_id=run_id)

        if (refused := await refusal(waiting, call)) is not None:
            return refused
        door = ToolDoor(refusal, call, hidden=withholds_results(guard.policy))
        async with tool_run(waiting, request, hidden=door.hidden) as shown:
            failure: BaseException | None = None
            try:
                with door.hiding():
                    given = await waiting.result(handler(door.request(request)))
            except BaseException as exc:
                failure = exc
            if failure is not None:  # outside of the handler, so that no error has the tool's as its context
                raise await judged_failure(failure, judged_text, judged)
            shown.result = await judged(given)
        return shown.result

    async def _judge_output(self, waiting: Waiting, state: AgentState[Any]) -> dict[str, Any] | None:
        guard = await self._guards.current(waiting, self._recipe)
        update = await judged_end(waiting, guard, state, by=self._mark)
        return {**(update or {}), **judged_so_far(guard, state, by=self._mark)} or None


def _name_of(model: Any) -> str:
    return str(getattr(model, "model_name", None) or getattr(model, "model", None) or type(model).__name__)


def _run_of_release(message: AIMessage, model: Any) -> Runnable[Any, Any]:
    """A run that shows the answer to streams, traces and callbacks, which did not see the model's own run."""
    if message.id is None:
        message.id = f"stars-guard-{uuid4()}"
    released = ReleasedAnswer(message=message, provider=model._llm_type, callbacks=model.callbacks)
    return released.with_config(run_name=type(model).__name__)
