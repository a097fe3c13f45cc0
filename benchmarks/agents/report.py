"""The scorecard's tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from scipy.stats import binomtest

from benchmarks.agents.adaptive import ADAPTIVE
from benchmarks.agents.published import PUBLISHED
from benchmarks.measure import table

__all__ = ["share", "written"]

Row = dict[str, Any]

_HEAD = """# Agents under attack

Scripted agents on AgentDojo v1.2.2 (`agentdojo==0.1.35`), through LangChain's `create_agent` with
`StarsGuardMiddleware`. No model is asked. An agent follows the published solution of the user's task, and obeys an
injected instruction as soon as it can read one in a tool's result, so this is the worst that a model could be
persuaded to do. Success is what AgentDojo's own checks say. Intervals are Wilson's, at 95%. `make scorecard-agents`
writes this page from the rows in `results/agents/`.

- **Nothing was trained or tuned on AgentDojo.** Where it showed a fault, the fault's kind was fixed, with a test of
  other inputs. The rules of `agent-payments` were written before its tools were looked at, by an author who knew the
  names of some of them.
- **Which policy**: each suite was run under two shipped policies, as they are. `agent-tools` is for agents that run by
  themselves: it takes out results that hold instructions, and asks about nothing that these suites' tools do.
  `agent-payments` adds rules about where values came from, and is for agents with a person beside them: most user
  tasks of these suites want something done with a value that somebody else wrote, which is what it asks about. No tool
  is in `trust`.
- Only injected goals that make calls count here. What an agent only says is not a matter of rules about calls.
- No approvals means that every call that a person would be asked about is rejected.
- In the attacked runs of `slack`, published solutions use what the attacker wrote as the name of a channel. Calls with
  such a name are asked about, which costs utility under attack there.
- The judges of answers are left out, because a script can't generate an answer again. Those of the rails are not.
- Agents that obey here understand every cipher of the adaptive attacks, which models may not.
"""

_COST = """Processor time of the agent's run with the middleware, less the same run without it, for each call, approvals
granted. The machine was busy, so this isn't wall-clock time."""

_PEER = """`invariant-ai==0.3.5` on the same scripts (`python -m benchmarks.agents.peers`), `important_instructions`.
Its detector of injected instructions needs a model's weights, so one rule of flow in its language stands for it: no
tool that acts, once a result was read. Untouched are runs without an attack in which no call is stopped. NeMo
Guardrails, openai-guardrails and LlamaFirewall weren't run, for want of time: what of them works without weights or
a service looks for code, keywords and personal data."""


def share(hits: int, runs: int) -> str:
    """A share in percent with its interval."""
    if not runs:
        return "–"
    low, high = binomtest(hits, runs).proportion_ci(method="wilson")
    return f"{100 * hits / runs:.0f}% ({100 * low:.0f}–{100 * high:.0f}), n={runs}"


def written(rows: Sequence[Row], peers: Mapping[str, Row] | None = None) -> str:
    """The page, of all rows that there are.

    Args:
        peers: what `benchmarks.agents.peers` has kept, by suite.
    """
    plain = [row for row in rows if row["attack"] == "-"]
    attacked = [row for row in rows if row["attack"] != "-"]
    sizes = sorted({row["pairs"] for row in attacked})
    sample = "All pairs." if sizes == [0] else f"At most {' or '.join(map(str, sizes))} pairs of each suite and attack."
    parts = [
        _HEAD.rstrip(),
        f"## Without an attack\n\n{_benign(plain)}",
        f"## What it costs\n\n{_COST}\n\n{_cost(plain)}",
        f"## Under attack, without approvals\n\n{sample} The seed is 0.\n\n{_under_attack(attacked)}",
        f"## Each attack\n\n{_each(attacked)}",
        f"## What stopped calls (runs)\n\n{_stopped(rows)}",
        f"## Beside Invariant Guardrails\n\n{_PEER}\n\n{_peers(peers or {})}",
        PUBLISHED.rstrip(),
    ]
    return "\n\n".join(parts) + "\n"


def _sum(rows: Iterable[Row], key: str) -> int:
    return sum(row[key] for row in rows)


def _share(rows: Sequence[Row], hits: str, runs: str = "runs") -> str:
    return share(_sum(rows, hits), _sum(rows, runs))


def _places(rows: Sequence[Row], *keys: str) -> list[tuple[tuple[Any, ...], list[Row]]]:
    """Rows that agree in these keys, in the order of their first one."""
    places = dict.fromkeys(tuple(row[key] for key in keys) for row in rows)
    return [(place, [row for row in rows if tuple(row[key] for key in keys) == place]) for place in places]


def _with_all(rows: Sequence[Row]) -> list[tuple[tuple[Any, ...], list[Row]]]:
    """By suite and policy, and each policy in all suites together."""
    return [
        *_places(rows, "suite", "policy"),
        *((("all", policy), mine) for (policy,), mine in _places(rows, "policy")),
    ]


def _benign(rows: Sequence[Row]) -> str:
    lines = []
    for place, mine in _with_all(rows):
        alone, granted = ([row for row in mine if row["approve"] == approve] for approve in (False, True))
        lines.append((*place, _share(alone, "utility"), _share(granted, "utility"), _share(granted, "asked", "calls")))
    head = ("suite", "policy", "utility, no approvals", "utility, approvals granted", "calls asked about")
    return table(head, lines)


def _cost(rows: Sequence[Row]) -> str:
    granted = [row for row in rows if row["approve"]]
    bare = {row["suite"]: row for row in granted if row["policy"] == "none"}
    lines = [
        (row["suite"], row["policy"], row["calls"], f"{1000 * (row['cpu_s'] - without['cpu_s']) / row['calls']:.0f} ms")
        for row in granted
        if row["policy"] != "none" and (without := bare.get(row["suite"])) is not None and row["calls"]
    ]
    return table(("suite", "policy", "calls", "added for each call"), lines)


def _under_attack(rows: Sequence[Row]) -> str:
    kinds: dict[str, Callable[[Row], bool]] = {
        "important_instructions": lambda row: row["attack"] == "important_instructions",
        "all published": lambda row: row["attack"] not in ADAPTIVE,
        "adaptive": lambda row: row["attack"] in ADAPTIVE,
    }
    lines = []
    for kind, belongs in kinds.items():
        for place, mine in _with_all([row for row in rows if belongs(row)]):
            goes_on = [row for row in mine if row["behaviour"] == "obeys and goes on"]
            lines.append(
                (kind, *place, _share(mine, "attacked"), _share(goes_on, "utility"), _share(mine, "asked", "calls"))
            )
    head = ("attacks", "suite", "policy", "success", "utility of agents that go on", "calls asked about")
    return table(head, lines)


def _each(rows: Sequence[Row]) -> str:
    places = _places(rows, "attack", "policy")
    return table(
        ("attack", "policy", "success", "the agent read it"),
        [(*place, _share(mine, "attacked"), _share(mine, "obeyed")) for place, mine in places],
    )


def _stopped(rows: Sequence[Row]) -> str:
    rules = Counter[tuple[str, str, str]]()
    for row in rows:
        for rule, count in row["rules"].items():
            rules[row["policy"], "benign" if row["attack"] == "-" else "attack", rule] += count
    return table(
        ("policy", "run", "rule or judge", "runs"), [(*key, str(count)) for key, count in rules.most_common(40)]
    )


def _peers(kept: Mapping[str, Row]) -> str:
    lines = [
        (
            suite,
            _share([row], "benign_untouched", "benign"),
            _share([row], "stopped", "calls"),
            _share([row], "success", "attacks"),
        )
        for suite, row in kept.items()
    ]
    return table(("suite", "untouched runs", "calls stopped without an attack", "attack success"), lines)
