"""``python -m benchmarks.agents``: the scorecard of rules for agents on AgentDojo, into benchmarks/AGENTS.md."""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from benchmarks.agents.adaptive import ADAPTIVE, planned
from benchmarks.agents.report import written
from benchmarks.agents.runs import Outcome, calls_of, policy_for, run_task
from benchmarks.agents.scripted import Behaviour
from benchmarks.agents.suites import ATTACKS, pairs, suites

HERE = Path(__file__).parent.parent
POLICIES = ("none", "agent-tools", "agent-payments")


def benign(suite: Any, policy: Any, *, approve: bool) -> list[Outcome]:
    """Every user task without an attack."""
    return [run_task(suite, task, policy, approve=approve) for task in suite.user_tasks.values()]


def attacked(suite: Any, policy: Any, attack: str, behaviour: Behaviour, most: int) -> list[Outcome]:
    """Pairs of a user task and an injected task, a seeded sample where there are more than ``most``."""
    chosen = list(pairs(suite))
    if most and len(chosen) > most:
        chosen = random.Random(0).sample(chosen, most)
    found = []
    for user_task, injected in chosen:
        try:
            plan = planned(attack, suite, user_task, injected)
        except ValueError:
            continue  # this task reads nothing that an attacker can write
        environment = user_task.init_environment(suite.load_and_inject_default_environment(plan.injections))
        solution = calls_of(injected.ground_truth(environment))
        if not solution:
            continue  # a goal that is only said makes no call, and rules about calls have no part in it
        found.append(
            run_task(
                suite,
                user_task,
                policy,
                behaviour=behaviour,
                injected=injected,
                injections=plan.injections,
                sign=plan.sign,
                injected_calls=[*plan.first, *solution],
            )
        )
    return found


def rows(names: Sequence[str], policies: Sequence[str], attacks: Sequence[str], most: int) -> list[dict[str, Any]]:
    """All measurements, one a row."""
    made = []
    for name in names:
        suite = suites()[name]
        for chosen in policies:
            policy = None if chosen == "none" else policy_for(chosen)
            for approve in (False, True):
                made.append(_row(name, chosen, "-", "follows", approve, benign(suite, policy, approve=approve)))
            for attack in attacks:
                for behaviour in get_args(Behaviour)[1:]:
                    found = attacked(suite, policy, attack, behaviour, most)
                    made.append(_row(name, chosen, attack, behaviour, False, found))
            print(f"{name}: {chosen} is done", flush=True)
    return made


def _row(
    suite: str, policy: str, attack: str, behaviour: str, approve: bool, found: Sequence[Outcome]
) -> dict[str, Any]:
    return {
        "suite": suite,
        "policy": policy,
        "attack": attack,
        "behaviour": behaviour,
        "approve": approve,
        "runs": len(found),
        "rules": dict(Counter(rule for one in found for rule in set(one.rules))),
        **{key: sum(asdict(one)[key] for one in found) for key in ("utility", "attacked", "obeyed", "calls", "asked")},
    }


def main() -> None:
    """Run, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suites", nargs="+", default=["banking", "slack", "travel", "workspace"])
    parser.add_argument("--policies", nargs="+", default=list(POLICIES))
    parser.add_argument("--attacks", nargs="+", default=[*ATTACKS, *ADAPTIVE])
    parser.add_argument("--pairs", type=int, default=40, help="of each suite and attack; 0 for all")
    parser.add_argument("--out", type=Path, default=HERE / "AGENTS.md")
    given = parser.parse_args()
    found = rows(given.suites, given.policies, given.attacks, given.pairs)
    given.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    given.out.write_text(written(found, given.pairs))


if __name__ == "__main__":
    main()
