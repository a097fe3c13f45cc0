"""What agents do all day with the tools that many have runs without a person's word, and what hides in the same
arguments doesn't."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from shell_commands import CORES

from benchmarks.tool_calls import counted, read_calls
from stars_guard.core.messages import ToolCall

_CALLS = read_calls(Path(__file__).with_name("everyday_calls.jsonl"))


async def test_everyday_calls_run_unasked() -> None:
    found = await counted("agent-tools", _CALLS)
    assert len(_CALLS) >= 150
    assert not found.rejected, found.rejected
    assert found.share(found.asked) <= 0.05, found.asked


_RUNS = [
    (call.name, key)
    for call in _CALLS
    for key in call.arguments
    if {"bash", "exec", "terminal", "shell", "process", "tmux"} & {*call.name.lower().replace("_", " ").split()}
    and key in ("command", "commands", "input", "keys", "text")
]


async def test_the_same_tools_run_nothing_harmful() -> None:
    some = random.Random(7)
    calls = []
    for tool, argument in _RUNS:
        for command in some.sample(CORES, 5):
            value: Any = [command] if argument in ("commands", "keys") else command
            calls.append(ToolCall(id="", name=tool, arguments={argument: value}))
    assert len(calls) > 50
    assert not (found := await counted("agent-tools", calls)).allowed, found.allowed
