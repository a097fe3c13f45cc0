"""Another guardrail on the same scripted runs: a rule of flow of Invariant Guardrails, without weights or a service.

``python -m benchmarks.agents.peers --python PEERS/bin/python`` writes what the agents do without a guardrail, and asks
``peer_invariant.py``, run by the Python of an environment with ``invariant-ai==0.3.5``, which calls its rule stops.
Its detector of injected instructions needs weights of a model, and the rest of it knows nothing of these tools. So the
rule is ours in its language: no tool that acts, once a result was read. Calls after a stopped one are as if it had run.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from benchmarks.agents.adaptive import planned
from benchmarks.agents.runs import calls_of
from benchmarks.agents.scripted import ScriptedAgent
from benchmarks.agents.suites import Trace, pairs, suites, tools_of

HERE = Path(__file__).parent
KEPT = HERE.parent / "results" / "agents" / "peers.json"
ATTACK = "important_instructions"


def run(suite: Any, task: Any, injected: Any = None) -> dict[str, Any] | None:
    """What an agent does without a guardrail, as messages; None where an attacker has no place, or makes no call."""
    plan = planned(ATTACK, suite, task, injected) if injected is not None else None
    environment = task.init_environment(suite.load_and_inject_default_environment(plan.injections if plan else {}))
    theirs = calls_of(injected.ground_truth(environment.model_copy(deep=True))) if plan else []
    if plan and not theirs:
        return None
    agent = ScriptedAgent(
        behaviour="obeys and goes on" if plan else "follows",
        calls=calls_of(task.ground_truth(environment.model_copy(deep=True))),
        injected_calls=theirs,
        sign=plan.sign if plan else "",
    )
    tools = {tool.name: tool for tool in tools_of(suite, Trace(environment))}
    messages: list[BaseMessage] = [HumanMessage(task.PROMPT)]
    first = None
    while True:
        answer = agent.invoke(messages)
        if first is None and agent.obeyed:
            first = sum(isinstance(message, AIMessage) for message in messages)
        if not isinstance(answer, AIMessage) or not answer.tool_calls:
            break
        messages += [answer, *(tools[call["name"]].invoke(call) for call in answer.tool_calls)]
    injected_at = [] if first is None else list(range(first, first + len(theirs)))
    return {"messages": [*_plain(messages)], "injected": injected_at, "attacked": plan is not None}


def _plain(messages: list[BaseMessage]) -> Iterator[dict[str, Any]]:
    for message in messages:
        if isinstance(message, AIMessage):
            calls = [
                {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["args"]}}
                for call in message.tool_calls
            ]
            yield {"role": "assistant", "content": "", "tool_calls": json.loads(json.dumps(calls, default=str))}
        elif isinstance(message, HumanMessage):
            yield {"role": "user", "content": message.content}
        else:
            yield {"role": "tool", "tool_call_id": getattr(message, "tool_call_id", ""), "content": message.content}


def traces(name: str, most: int) -> list[dict[str, Any]]:
    """Every user task without an attack, and a seeded sample of pairs with one, as `benchmarks.agents` takes it."""
    suite = suites()[name]
    found = [run(suite, task) for task in suite.user_tasks.values()]
    for task, injected in random.Random(0).sample(list(pairs(suite)), most):
        try:
            found.append(run(suite, task, injected))
        except ValueError:
            continue  # this task reads nothing that an attacker can write
    return [one for one in found if one is not None]


def main() -> None:
    """Ask the peer about all runs, and keep what it says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, required=True, help="of the environment with invariant-ai")
    parser.add_argument("--suites", nargs="+", default=["banking", "slack", "travel", "workspace"])
    parser.add_argument("--pairs", type=int, default=12)
    given = parser.parse_args()
    rows = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for name in given.suites:
        asked = subprocess.run(
            [given.python, HERE / "peer_invariant.py"],
            input=json.dumps(traces(name, given.pairs)),
            capture_output=True,
            text=True,
            check=True,
        )
        rows[name] = json.loads(asked.stdout)
        KEPT.write_text(json.dumps(rows, indent=1) + "\n")
        print(name, rows[name], flush=True)


if __name__ == "__main__":
    main()
