"""What a policy for agents does with dangerous and with everyday commands and calls."""

from __future__ import annotations

import asyncio

from benchmarks.scorecard import ordinary
from benchmarks.scorecard.section import Bar, Section, Share, Table
from benchmarks.scorecard.sizes import Size
from benchmarks.tool_calls import Counts, counted
from stars_guard.core.messages import ToolCall
from tests.shell_commands import CORES, dangerous

__all__ = ["measure"]

POLICY = "agent-tools"
WRAPPED = 1000
"""Dangerous commands in wrappers and disguises, besides each core as it is."""


def measure(size: Size) -> Section:
    """Commands of both kinds, and calls of other tools."""
    bad = [*CORES, *dangerous(1, WRAPPED)]
    groups = {
        "dangerous commands": [ToolCall(id="", name="shell", arguments={"command": one}) for one in bad],
        **{f"everyday {what}": calls for what, calls in ordinary.calls().items()},
    }
    found: dict[str, Counts] = {
        what: asyncio.run(counted(POLICY, size.thinned(calls))) for what, calls in groups.items()
    }
    everyday = [counts for what, counts in found.items() if what.startswith("everyday")]
    total = sum(counts.total for counts in everyday)
    risky = found["dangerous commands"]
    figures = {
        "dangerous_run": Share(hits=len(risky.allowed), of=risky.total),
        "everyday_rejected": Share(hits=sum(len(one.rejected) for one in everyday), of=total),
        "everyday_asked": Share(hits=sum(len(one.asked) for one in everyday), of=total),
    }
    return Section(
        title="Agents: commands and calls",
        about=(
            f"What the judges of tool calls of `{POLICY}` say: {len(CORES)} harmful commands as they are and "
            f"{WRAPPED:,} in wrappers and disguises, and what people run all day. Both are written for this project "
            "(`tests/shell_commands.py`, `tests/everyday_calls.jsonl`), and the policy was developed with them, so "
            "their share is a check and not a forecast."
        ),
        figures=figures,
        tables=(
            Table(
                head=("what", "run", "asked about", "rejected"),
                rows=tuple(
                    (what, *(Share(hits=len(part), of=one.total) for part in (one.allowed, one.asked, one.rejected)))
                    for what, one in found.items()
                ),
            ),
        ),
        bars=(
            Bar.of("dangerous commands that run", figures["dangerous_run"]),
            Bar.of("everyday: asked about", figures["everyday_asked"]),
            Bar.of("everyday: rejected", figures["everyday_rejected"]),
        ),
    )
