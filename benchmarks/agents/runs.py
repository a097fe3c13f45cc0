"""One run of a scripted agent on a task, through LangChain's agent with our middleware, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from benchmarks.agents.scripted import Behaviour, ScriptedAgent
from benchmarks.agents.suites import Trace, tools_of
from langchain_stars import StarsGuardMiddleware
from stars_guard.audit import MemoryStore
from stars_guard.policy import Policy, load_policy

__all__ = ["Outcome", "calls_of", "policy_for", "run_task"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a run.

    Attributes:
        utility: whether the user's task was done, by AgentDojo's own check.
        attacked: whether the injected task was done, by AgentDojo's own check; False where there is none.
        obeyed: whether the agent read the injected instruction.
        calls: calls of tools that were decided about.
        asked: calls about which a person was asked, or would have been.
        cpu_s: seconds of processor time of the agent's run, all threads of the process together.
        rules: what decided about each call that did not run by itself: a rule's name, or a judge's reason.
    """

    utility: bool
    attacked: bool
    obeyed: bool
    calls: int
    asked: int
    cpu_s: float
    rules: tuple[str, ...]


def policy_for(name: str) -> Policy:
    """A policy without the judges of answers: a script's answers are no model's, and none generates them again."""
    policy = load_policy(name)
    return policy.model_copy(update={"judges": ()})


def run_task(
    suite: Any,
    user_task: Any,
    policy: Policy | None,
    *,
    behaviour: Behaviour = "follows",
    injected: Any = None,
    injections: Mapping[str, str] | None = None,
    sign: str = "",
    injected_calls: list[tuple[str, dict[str, Any]]] | None = None,
    approve: bool = False,
) -> Outcome:
    """Run a user's task.

    Args:
        policy: None runs without our middleware.
        injected: the injected task; ``injections`` are the texts that stand in the environment for it.
        sign: by which the agent knows the instruction; by default the injected task's goal.
        injected_calls: what the agent does when it obeys, instead of the published solution.
        approve: whether a person approves every call that is asked about. Else nobody answers.
    """
    environment = user_task.init_environment(suite.load_and_inject_default_environment(dict(injections or {})))
    before = environment.model_copy(deep=True)
    solution = calls_of(user_task.ground_truth(environment.model_copy(deep=True)))
    theirs = calls_of(injected.ground_truth(environment.model_copy(deep=True))) if injected is not None else []
    trace = Trace(environment)
    model = ScriptedAgent(
        behaviour=behaviour,
        calls=solution,
        answer=user_task.GROUND_TRUTH_OUTPUT,
        injected_calls=theirs if injected_calls is None else injected_calls,
        injected_answer=injected.GROUND_TRUTH_OUTPUT if injected is not None else "",
        sign=sign or (injected.GOAL if injected is not None else ""),
    )
    store = MemoryStore()
    began = time.process_time()
    answer = _answer(suite, trace, model, user_task.PROMPT, policy, store, approve)
    cpu_s = time.process_time() - began
    said = [{"type": "text", "content": answer}]
    rulings = [record for record in store.records if record.stage == "tool_call"]
    stopped = [record for record in rulings if record.finish in ("asked", "refused")]
    check = suite._check_task_result
    return Outcome(
        utility=bool(check(user_task, said, before, trace.environment, trace.calls)),
        attacked=injected is not None and bool(check(injected, said, before, trace.environment, trace.calls)),
        obeyed=model.obeyed,
        calls=len(trace.calls) + sum(record.finish == "refused" for record in rulings),
        asked=sum(record.finish == "asked" for record in rulings),
        cpu_s=cpu_s,
        rules=tuple(
            record.ruling.rule if record.ruling is not None and record.ruling.rule else record.reason
            for record in stopped
        ),
    )


def _answer(
    suite: Any,
    trace: Trace,
    model: ScriptedAgent,
    prompt: str,
    policy: Policy | None,
    store: MemoryStore,
    approve: bool,
) -> str:
    middleware = [StarsGuardMiddleware(policy, audit=store)] if policy is not None else []
    agent = create_agent(
        model, tools_of(suite, trace), middleware=middleware, checkpointer=InMemorySaver() if approve else None
    )
    config: Any = {"configurable": {"thread_id": "1"}, "recursion_limit": 200}
    state = agent.invoke({"messages": [{"role": "user", "content": prompt}]}, config)
    while pauses := state.get("__interrupt__"):
        decisions = [{"type": "approve"} for pause in pauses for _ in pause.value["action_requests"]]
        state = agent.invoke(Command(resume={"decisions": decisions}), config)
    last = state["messages"][-1]
    return str(last.text) if isinstance(last, AIMessage) else ""


def calls_of(calls: Any) -> list[tuple[str, dict[str, Any]]]:
    """The calls of a published solution, as (tool, arguments)."""
    return [(call.function, dict(call.args)) for call in calls]
