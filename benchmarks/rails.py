"""A rail's check without a model: what it adds to a message or a tool call, by the store that its record goes to."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import REPEATS, medians, table, write_section
from stars_guard.guard import Guard

__all__ = ["POLICY", "main"]

POLICY: Mapping[str, Any] = {
    "apiVersion": "stars-guard/v1",
    "name": "patterns",
    "rails": {
        "input": {
            "judges": [
                {
                    "name": "secrets",
                    "type": "patterns",
                    "patterns": [
                        {"name": "key", "regex": r"\bAKIA[0-9A-Z]{16}\b"},
                        {"name": "orders", "regex": "(?i:ignore (all )?previous instructions)"},
                        {"name": "private key", "regex": "-----BEGIN [A-Z ]*PRIVATE KEY-----"},
                        {"name": "sql", "regex": r"(?i:\bdrop\s+table\b)"},
                    ],
                }
            ]
        }
    },
}
TEXTS = {
    "a message of 2,000 characters, 4 patterns": (
        "The lake is deep and its water is cold. We went there in the summer, and the children swam. " * 22
    )[:2000],
    "the same in Cyrillic": ("Озеро глубокое, и вода в нём холодная. Летом мы ездили туда, и дети купались. " * 26)[
        :2000
    ],
}
CALL = ("shell", {"command": "git log --oneline -n 20 | grep fix"})
CHECKS = 100


async def main() -> None:
    """Measure, and write a section of RESULTS.md."""
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as opened:
            cases: dict[str, Callable[[], Awaitable[float]]] = {}
            for store, url in (("memory", "memory://"), ("SQLite", f"sqlite:///{Path(folder) / 'log.db'}")):
                ours = await opened.enter_async_context(Guard(POLICY, audit=url))
                for name, text in TEXTS.items():
                    cases[f"{name} | {store}"] = partial(_median, partial(ours.check, "input", text))
                agents = await opened.enter_async_context(Guard("agent-tools", audit=url))
                cases[f"a shell command, agent-tools | {store}"] = partial(_median, partial(agents.check_call, *CALL))
            for work in cases.values():
                await work()
            found = await medians("rails", cases)
    rows = [[*name.split(" | "), 1000 * seconds] for name, seconds in found.items()]
    write_section(
        "rails: a check without a model",
        table(["what is checked", "store of the record", "ms, p50"], rows),
        how=f"`python -m benchmarks rails`: the median of {REPEATS} medians of {CHECKS} checks one after the other, in "
        "turns. Each check ends with its record handed to the store. No model is asked.",
    )


async def _median(check: Callable[[], Awaitable[Any]]) -> float:
    taken = []
    for _ in range(CHECKS):
        began = time.perf_counter()
        checked = await check()
        taken.append(time.perf_counter() - began)
        assert checked.allowed
    return statistics.median(taken)
