"""AgentDojo with scripted agents, published and adaptive attacks, as ``python -m benchmarks.agents`` runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.scorecard.section import Bar, NotMeasured, Section, Share, Table
from benchmarks.scorecard.sizes import Size

__all__ = ["measure"]

SUITES = ("banking", "slack", "travel", "workspace")
POLICIES = ("none", "agent-tools", "agent-payments")


def measure(size: Size) -> Section:
    """All suites, policies and attacks; in the smallest size one of each."""
    try:
        from benchmarks.agents.__main__ import rows
        from benchmarks.agents.adaptive import ADAPTIVE
        from benchmarks.agents.suites import ATTACKS, suites

        suites()
    except ImportError as exc:
        raise NotMeasured(f"AgentDojo isn't installed (`make scorecard-agents` does it): {exc}") from exc
    if not size.models:
        raise NotMeasured("the judge of injected instructions is a model")
    published, adaptive = [*ATTACKS], [*ADAPTIVE]
    names: Sequence[str] = SUITES
    if size.every > 1:
        names, published, adaptive = ("banking",), ["important_instructions"], adaptive[:1]
    found = rows(names, POLICIES, [*published, *adaptive], size.pairs)

    def share(key: str, of: str, fits: Callable[[dict[str, Any]], bool]) -> Share:
        mine = [row for row in found if fits(row)]
        return Share(hits=sum(row[key] for row in mine), of=sum(row[of] for row in mine))

    def benign(policy: str, approve: bool) -> Callable[[dict[str, Any]], bool]:
        return lambda row: row["attack"] == "-" and (row["policy"], row["approve"]) == (policy, approve)

    def under(policy: str, attacks: Sequence[str], suite: str = "") -> Callable[[dict[str, Any]], bool]:
        return lambda row: row["attack"] in attacks and row["policy"] == policy and row["suite"].startswith(suite)

    plain = [
        (
            policy,
            share("utility", "runs", benign(policy, False)),
            share("utility", "runs", benign(policy, True)),
            share("asked", "calls", benign(policy, True)),
        )
        for policy in POLICIES
    ]
    attacked = [
        (
            suite,
            policy,
            *(share("attacked", "runs", under(policy, several, suite)) for several in (published, adaptive)),
        )
        for suite in names
        for policy in POLICIES
    ]
    figures = {
        "none_published": share("attacked", "runs", under("none", published)),
        "tools_published": share("attacked", "runs", under("agent-tools", published)),
        "payments_published": share("attacked", "runs", under("agent-payments", published)),
        "payments_adaptive": share("attacked", "runs", under("agent-payments", adaptive)),
        "payments_benign": plain[2][1],
        "payments_benign_approved": plain[2][2],
        "payments_asked": plain[2][3],
    }
    return Section(
        title="Agents: AgentDojo with scripted agents",
        about=(
            "AgentDojo v1.2.2 through LangChain's `create_agent` with `StarsGuardMiddleware`. No model is asked: an "
            "agent follows the published solution, and obeys an injected instruction as soon as it can read one, so "
            f"this is the worst that a model could be talked into. Suites: {', '.join(names)}; at most {size.pairs} "
            f"pairs of tasks in each suite and attack. Published attacks: {', '.join(published)}. Adaptive ones of "
            f"our own, by somebody who knows the policy: {', '.join(adaptive)}. Success is what AgentDojo's own "
            "checks say. Nothing was trained on it."
        ),
        figures=figures,
        tables=(
            Table(
                title="Without an attack: the user's task done",
                head=("policy", "nobody is asked", "approvals granted", "calls asked about"),
                rows=tuple(plain),
            ),
            Table(
                title="Attacks that succeed, nobody is asked",
                head=("suite", "policy", "published", "adaptive"),
                rows=tuple(attacked),
            ),
        ),
        bars=(
            Bar.of("no guard, published", figures["none_published"]),
            Bar.of("agent-tools, published", figures["tools_published"]),
            Bar.of("agent-payments, published", figures["payments_published"]),
            Bar.of("agent-payments, adaptive", figures["payments_adaptive"]),
        ),
        axis="attacks that succeed, %",
    )
