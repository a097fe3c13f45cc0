"""How many tool calls a policy lets run, asks about and rejects.

    python -m benchmarks.tool_calls agent-tools CASES.jsonl ...

A line of a case file is ``{"command": "ls"}`` or ``{"tool": "read_file", "args": {"path": "x"}}``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from stars_guard.calling.judge_loading import load_judges
from stars_guard.core.messages import ToolCall
from stars_guard.core.segments import Passage
from stars_guard.policy import load_policy
from stars_guard.prompting.call_rendering import read_call, render_call

__all__ = ["Counts", "counted", "read_calls"]


@dataclass(slots=True)
class Counts:
    """What became of calls.

    Attributes:
        allowed: those that run; ``asked`` wait for a person's word, and ``rejected`` never run.
        seconds: how long each took.
    """

    allowed: list[ToolCall] = field(default_factory=list)
    asked: list[ToolCall] = field(default_factory=list)
    rejected: list[ToolCall] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def total(self) -> int:
        return len(self.allowed) + len(self.asked) + len(self.rejected)

    def share(self, part: Sequence[ToolCall]) -> float:
        """The share of all calls that a part is."""
        return len(part) / self.total if self.total else 0.0


def read_calls(path: Path) -> list[ToolCall]:
    """The calls of a case file."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [
        ToolCall(id="", name=row.get("tool", "shell"), arguments=row.get("args", {"command": row.get("command")}))
        for row in rows
    ]


async def counted(policy: str, calls: Iterable[ToolCall], *, as_text: bool = False) -> Counts:
    """What the judges of ``rails.tool_call`` of a policy say of calls.

    Args:
        as_text: give the judges the calls as texts alone, as a caller does who passes no ``tool_call``.
    """
    cascade = await load_judges(load_policy(policy).rails.tool_call.judges)
    counts = Counts()
    try:
        for index, call in enumerate(calls):
            text = render_call(call.name, call.arguments)
            given = read_call(text) if as_text else call
            passage = Passage(
                call_id=str(index),
                messages=(),
                accepted="",
                segment=text,
                last=True,
                tool_calls=(given,),
                is_call=True,
            )
            began = time.perf_counter()
            (judgement,) = await cascade.judge([passage])
            counts.seconds.append(time.perf_counter() - began)
            part = counts.rejected if judgement.veto else counts.asked if judgement.ask else counts.allowed
            part.append(call)
    finally:
        await cascade.aclose()
    return counts


def main() -> None:
    """Print a line for each case file, and with ``--show`` the calls of one kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("policy")
    parser.add_argument("cases", nargs="+", type=Path)
    parser.add_argument("--as-text", action="store_true", help="give the judges texts alone")
    parser.add_argument("--show", choices=("allowed", "asked", "rejected"), help="print these calls")
    given = parser.parse_args()
    for path in given.cases:
        counts = asyncio.run(counted(given.policy, read_calls(path), as_text=given.as_text))
        parts = {"allowed": counts.allowed, "asked": counts.asked, "rejected": counts.rejected}
        figures = ", ".join(f"{name} {len(part)} ({counts.share(part):.1%})" for name, part in parts.items())
        print(f"{path.stem}: {counts.total} calls, {figures}, p50 {median(counts.seconds) * 1000:.2f} ms")
        for call in parts.get(given.show, ()):
            print(f"  {call.name} {json.dumps(dict(call.arguments), ensure_ascii=False)}")


if __name__ == "__main__":
    main()
