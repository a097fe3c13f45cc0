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

__all__ = ["CHECKS", "POLICY", "main", "measured"]

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


async def measured(checks: int = CHECKS, repeats: int = REPEATS) -> dict[tuple[str, str], float]:
    """Seconds of a check, by what is checked and the store of its record: the median of medians of so many checks."""
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as opened:
            cases: dict[str, Callable[[], Awaitable[float]]] = {}
            for store, url in (("memory", "memory://"), ("SQLite", f"sqlite:///{Path(folder) / 'log.db'}")):
                ours = await opened.enter_async_context(Guard(POLICY, audit=url))
                for name, text in TEXTS.items():
                    cases[f"{name} | {store}"] = partial(_median, partial(ours.check, "input", text), checks)
                agents = await opened.enter_async_context(Guard("agent-tools", audit=url))
                call = partial(_median, partial(agents.check_call, *CALL), checks)
                cases[f"a shell command, agent-tools | {store}"] = call
            for work in cases.values():
                await work()
            found = await medians("rails", cases, repeats)
    return {tuple(name.split(" | ")): seconds for name, seconds in found.items()}  # type: ignore[misc]


async def main() -> None:
    """Measure, and write a section of RESULTS.md."""
    rows = [[*name, 1000 * seconds] for name, seconds in (await measured()).items()]
    write_section(
        "rails: a check without a model",
        table(["what is checked", "store of the record", "ms, p50"], rows),
        how=f"`python -m benchmarks rails`: the median of {REPEATS} medians of {CHECKS} checks one after the other, in "
        "turns. Each check ends with its record handed to the store. No model is asked.",
    )


async def _median(check: Callable[[], Awaitable[Any]], checks: int) -> float:
    taken = []
    for _ in range(checks):
        began = time.perf_counter()
        checked = await check()
        taken.append(time.perf_counter() - began)
        assert checked.allowed
    return statistics.median(taken)
