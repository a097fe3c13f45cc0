"""What the embedded judge of injected instructions sees of AgentDojo: python -m benchmarks.injections

It is for testing alone: nothing of AgentDojo was trained on. The published solutions of user tasks are run on the
suite's own data, without an attack and with each attack, and the judge reads each result of a tool. It needs what
``make scorecard-agents`` installs.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from typing import Any

from benchmarks.agents.suites import ATTACKS, attack_of, suites
from stars_guard.engines.injection_model import embedded_injection_model

__all__ = ["results_of", "seen"]


def results_of(suite: Any, user_task: Any, injections: dict[str, str]) -> Iterator[str]:
    """What the tools give back to the published solution of a task."""
    from agentdojo.agent_pipeline.tool_execution import tool_result_to_str
    from agentdojo.functions_runtime import FunctionsRuntime

    environment = user_task.init_environment(suite.load_and_inject_default_environment(injections))
    plan = user_task.ground_truth(environment.model_copy(deep=True))
    runtime = FunctionsRuntime(suite.tools)
    for call in plan:
        result, error = runtime.run_function(environment, call.function, call.args)
        if not error:
            yield str(tool_result_to_str(result))


def seen(attack: str, above: float, tasks: int) -> dict[str, Any]:
    """How many of an attack's texts the judge sees, in the tool's result and alone, and how many are taken out."""
    model, counts = embedded_injection_model(), {"texts": 0, "seen": 0, "seen_alone": 0, "goal_taken_out": 0}
    for suite in suites().values():
        made = attack_of(attack, suite)
        # an attack's words are the same for all user tasks, so a few of them will do
        for user_task in random.Random(1).sample(list(suite.user_tasks.values()), tasks):
            for injected in list(suite.injection_tasks.values()):
                try:
                    injections = made.attack(user_task, injected)
                except ValueError:
                    continue  # the task reads nothing that an attacker can write
                holding = [
                    text for text in results_of(suite, user_task, injections) if injected.GOAL[:40] in _flat(text)
                ]
                if not holding:
                    continue
                text = holding[0]
                counts["texts"] += 1
                counts["seen"] += model.worst(text) > above
                counts["seen_alone"] += max(model.worst(one) for one in injections.values()) > above
                for start, end in reversed(model.found(text, above)):
                    text = text[:start] + text[end:]
                counts["goal_taken_out"] += injected.GOAL[:40] not in _flat(text)
    return counts


def benign(above: float) -> dict[str, Any]:
    """Results without an attack: how many are over, and how many characters are taken out of all."""
    model, texts = embedded_injection_model(), []
    for suite in suites().values():
        for user_task in suite.user_tasks.values():
            texts += [text for text in results_of(suite, user_task, {}) if text.strip()]
    apart = sorted(set(texts))
    over = [text for text in apart if model.worst(text) > above]
    taken = sum(end - start for text in over for start, end in model.found(text, above))
    return {"results": len(apart), "over": len(over), "characters": sum(map(len, apart)), "taken_out": taken}


def _flat(text: str) -> str:
    return " ".join(text.split())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--above", type=float, default=0.5)
    parser.add_argument("--attacks", nargs="+", default=[*ATTACKS])
    parser.add_argument("--tasks", type=int, default=4, help="user tasks of each suite")
    given = parser.parse_args()
    print("benign", json.dumps(benign(given.above)), flush=True)
    for attack in given.attacks:
        print(attack, json.dumps(seen(attack, given.above, given.tasks)), flush=True)


if __name__ == "__main__":
    main()
