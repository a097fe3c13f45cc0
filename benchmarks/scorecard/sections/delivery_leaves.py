"""A forbidden text in every string of every message type, by every way into and out of chains and agents."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from rich.progress import track

from benchmarks.scorecard.section import Bar, Section, Share, Table
from benchmarks.scorecard.sizes import Size
from tests.security import marked_ways as ways

__all__ = ["measure"]

WAYS: dict[str, tuple[Callable[..., list[str]], Sequence[tuple[str, Any]]]] = {
    "into a chain": (ways.into_a_chain, ways.CASES),
    "out of a chain": (ways.out_of_a_chain, ways.ANSWERS),
    "into an agent": (ways.into_an_agent, ways.CASES),
    "out of an agent": (ways.out_of_an_agent, ways.ANSWERS),
    "out of a tool": (ways.out_of_a_tool, [*ways.RESULTS, *ways.commands()]),
}
CALLS = {
    "invoke": ways.sync,
    "ainvoke": ways.in_loop,
    "stream": ways.streamed,
    "astream": ways.streamed_in_loop,
}


def measure(size: Size) -> Section:
    """Every place by every way and every call."""
    rows: list[tuple[str, str, Share]] = []
    for way, (leaks, cases) in track(WAYS.items(), description="leaves"):
        for number, (call, run) in enumerate(CALLS.items()):
            tried = size.thinned(cases, number)
            with warnings.catch_warnings(action="ignore"):
                rows.append((way, call, Share(hits=len(leaks(run, tried)), of=len(tried))))
    total = Share(hits=sum(row[2].hits for row in rows), of=sum(row[2].of for row in rows))
    return Section(
        title="Delivery: every string of every message",
        about=(
            "A forbidden word in each string of each message and block type that langchain-core defines, found by "
            "looking at the types: content, blocks, keyword arguments, tool calls, metadata, keys, values inside "
            "values, JSON and base64. Each is the input, the answer or a tool's result of a chain with "
            "`guard_runnable` and of an agent with `StarsGuardMiddleware`. It leaks if the word reaches the model "
            "or the caller."
        ),
        figures={"leaked": total, "places": len(ways.CASES)},
        tables=(Table(head=("way", "called by", "leaks"), rows=tuple(rows)),),
        bars=(Bar.of("leaks", total),),
    )
