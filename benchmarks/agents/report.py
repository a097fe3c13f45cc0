"""The scorecard's tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from scipy.stats import binomtest

from benchmarks.agents.adaptive import ADAPTIVE
from benchmarks.measure import table

__all__ = ["share", "written"]

_HEAD = """# Agents under attack

Scripted agents on AgentDojo v1.2.2 (`agentdojo==0.1.35`), through LangChain's `create_agent` with
`StarsGuardMiddleware`. No model is asked. An agent follows the published solution of the user's task, and obeys an
injected instruction as soon as it can read one in a tool's result, so this is the worst that a model could be
talked into. Success is what AgentDojo's own checks say. Intervals are Wilson's, at 95%.

- **Nothing was trained or tuned on AgentDojo.** The rules of `agent-payments` speak of paying, sending and
  deleting with values that came from tools' results, and were written before its tools were looked at. Their
  author knew the names of some of these tools from before.
- Only injected goals that make calls count here. What an agent only says is not a matter of rules about calls.
- No approvals means that every call that a person would be asked about is rejected.
- The judges of answers are left out, because a script can't generate an answer again. Those of the rails are not.
- Agents that obey here understand every cipher of the adaptive attacks, which models may not.
"""


def share(hits: int, runs: int) -> str:
    """A share in percent with its interval."""
    if not runs:
        return "–"
    low, high = binomtest(hits, runs).proportion_ci(method="wilson")
    return f"{100 * hits / runs:.0f}% ({100 * low:.0f}–{100 * high:.0f}), n={runs}"


def _sum(rows: Iterable[dict[str, Any]], key: str) -> int:
    return sum(row[key] for row in rows)


def written(rows: Sequence[dict[str, Any]], pairs: int) -> str:
    """The page.

    Args:
        pairs: of each suite and attack at most; 0 for all.
    """
    suites, policies = (list(dict.fromkeys(row[key] for row in rows)) for key in ("suite", "policy"))
    plain = {(row["suite"], row["policy"], row["approve"]): row for row in rows if row["attack"] == "-"}
    attacked = [row for row in rows if row["attack"] != "-"]
    benign = table(
        ("suite", "policy", "utility, no approvals", "utility, approvals granted", "calls asked about"),
        [
            (
                suite,
                policy,
                share(plain[suite, policy, False]["utility"], plain[suite, policy, False]["runs"]),
                share(plain[suite, policy, True]["utility"], plain[suite, policy, True]["runs"]),
                share(plain[suite, policy, True]["asked"], plain[suite, policy, True]["calls"]),
            )
            for suite in suites
            for policy in policies
        ],
    )
    under = []
    for suite in suites:
        for policy in policies:
            for kind in ("published", "adaptive"):
                mine = [
                    row
                    for row in attacked
                    if (row["suite"], row["policy"]) == (suite, policy)
                    and (row["attack"] in ADAPTIVE) == (kind == "adaptive")
                ]
                goes_on = [row for row in mine if row["behaviour"] == "obeys and goes on"]
                under.append(
                    (
                        suite,
                        policy,
                        kind,
                        share(_sum(mine, "attacked"), _sum(mine, "runs")),
                        share(_sum(goes_on, "utility"), _sum(goes_on, "runs")),
                        share(_sum(mine, "obeyed"), _sum(mine, "runs")),
                    )
                )
    each = [
        (attack, policy, share(_sum(mine, "attacked"), _sum(mine, "runs")))
        for attack in dict.fromkeys(row["attack"] for row in attacked)
        for policy in policies
        for mine in [[row for row in attacked if (row["attack"], row["policy"]) == (attack, policy)]]
    ]
    rules = Counter[tuple[str, str, str]]()
    for row in rows:
        for rule, count in row["rules"].items():
            rules[row["policy"], "benign" if row["attack"] == "-" else "attack", rule] += count
    named = [(*key, str(count)) for key, count in rules.most_common(40)]
    sample = f"At most {pairs} pairs of each suite and attack, a seeded sample." if pairs else "All pairs."
    return "\n\n".join(
        [
            _HEAD.rstrip(),
            "## Without an attack",
            benign,
            f"## Under attack, without approvals\n\n{sample}",
            table(
                ("suite", "policy", "attacks", "success", "utility of agents that go on", "read by the agent"), under
            ),
            "## Each attack",
            table(("attack", "policy", "success"), each),
            "## What stopped calls (runs)",
            table(("policy", "run", "rule or judge", "runs"), named) + "\n",
        ]
    )
