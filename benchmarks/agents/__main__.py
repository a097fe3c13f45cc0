"""``python -m benchmarks.agents``: the scorecard of rules for agents on AgentDojo, into benchmarks/AGENTS.md.

What was measured is kept in ``benchmarks/results/agents/``, a file for each suite. A run that was stopped goes on, and
processes with different ``--suites`` can run side by side. A row is measured again when its policy or the judge of
injected instructions has changed, so delete the files after another change of code.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, get_args

from benchmarks.agents.adaptive import ADAPTIVE, planned
from benchmarks.agents.kept import KeptRows, peers_in, read_all
from benchmarks.agents.report import written
from benchmarks.agents.runs import Outcome, calls_of, policy_for, run_task
from benchmarks.agents.scripted import Behaviour
from benchmarks.agents.suites import ATTACKS, pairs, suites
from stars_guard.engines.injection_model import embedded_injection_model
from stars_guard.policy import Policy

HERE = Path(__file__).parent.parent
KEPT = HERE / "results" / "agents"
POLICIES = ("none", "agent-tools", "agent-payments")
COUNTED = ("utility", "attacked", "obeyed", "calls", "asked")


def benign(suite: Any, policy: Policy | None, *, approve: bool) -> list[Outcome]:
    """Every user task without an attack."""
    return [run_task(suite, task, policy, approve=approve) for task in suite.user_tasks.values()]


def attacked(suite: Any, policy: Policy | None, attack: str, behaviour: Behaviour, most: int) -> list[Outcome]:
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


def measure(name: str, policies: Sequence[str], attacks: Sequence[str], most: int, until: float) -> bool:
    """Measure all rows of a suite that aren't kept.

    Args:
        until: of the monotonic clock; no row is begun after it.

    Returns:
        Whether all rows are there.
    """
    suite, kept = suites()[name], KeptRows(KEPT / f"{name}.jsonl")
    with kept.mine():
        for chosen in policies:
            policy = policy_for(chosen) if chosen != "none" else None
            judged_by = {
                "sha256": policy.sha256 if policy is not None else "",
                "injection": embedded_injection_model().digest if policy is not None else "",
            }
            for attack, behaviour, approve in _places(attacks):
                if time.monotonic() > until:
                    return False
                key: dict[str, Any] = {"suite": name, "policy": chosen, "attack": attack, "behaviour": behaviour}
                key |= {"approve": approve, "pairs": 0 if attack == "-" else most, **judged_by}
                measured = (
                    partial(benign, suite, policy, approve=approve)
                    if attack == "-"
                    else partial(attacked, suite, policy, attack, behaviour, most)
                )
                kept.row(key, partial(_counts, measured))
            print(f"{name}: {chosen} is done", flush=True)
    return True


def _places(attacks: Sequence[str]) -> Iterator[tuple[str, Behaviour, bool]]:
    """Attack, behaviour and whether a person approves, of each row of a policy."""
    yield from (("-", "follows", approve) for approve in (False, True))
    yield from ((attack, behaviour, False) for attack in attacks for behaviour in get_args(Behaviour)[1:])


def _counts(measured: Callable[[], Sequence[Outcome]]) -> dict[str, Any]:
    found = measured()
    return {
        "runs": len(found),
        "cpu_s": round(sum(one.cpu_s for one in found), 3),
        "rules": dict(Counter(rule for one in found for rule in set(one.rules))),
        **{key: sum(asdict(one)[key] for one in found) for key in COUNTED},
    }


def main() -> None:
    """Run, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suites", nargs="+", default=["banking", "slack", "travel", "workspace"])
    parser.add_argument("--policies", nargs="+", default=list(POLICIES))
    parser.add_argument("--attacks", nargs="+", default=[*ATTACKS, *ADAPTIVE])
    parser.add_argument("--pairs", type=int, default=40, help="of each suite and attack; 0 for all")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no row after this time")
    parser.add_argument("--out", type=Path, default=HERE / "AGENTS.md")
    given = parser.parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + given.seconds
    done = [measure(name, given.policies, given.attacks, given.pairs, until) for name in given.suites]
    given.out.write_text(written(read_all(KEPT), peers_in(KEPT)))
    print("all rows are there" if all(done) else "the time is over; run it again to go on", flush=True)


if __name__ == "__main__":
    main()
