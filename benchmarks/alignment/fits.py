"""r_star and beta of the methods that have them: found once on the tuning prompts, and kept in books."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.alignment.book import Book
from benchmarks.alignment.drawing import Bench, calibrate, unguarded
from benchmarks.alignment.methods import Method
from benchmarks.alignment.plans import Plan
from benchmarks.alignment.prompts import Prompt
from stars_guard.calibration.thresholds import Answer

__all__ = ["Fits"]

VALUES = ("r_star", "beta", "thresholds")


class Fits:
    """Calibration that goes on where it was.

    Attributes:
        free: unguarded answers to the tuning prompts, by how they are cut.
        found: rows of r_star, beta, the rate aimed for and the level reached, by method.
    """

    def __init__(self, plan: Plan, tuning: Sequence[Prompt], out: Path) -> None:
        self._plan = plan
        self._tuning = tuning
        self._frees = Book(out / "unguarded.jsonl", ("cut",))
        self._book = Book(out / "calibration.jsonl", ("method",))
        self._locks: dict[str, asyncio.Lock] = {}
        self.free: dict[str, list[Answer]] = {}
        self.found: dict[str, dict[str, Any]] = {}

    def known(self, method: Method) -> Method | None:
        """The method with its values; None where it has not been calibrated."""
        if not method.fitted:
            return method
        entry, answers = self._book.get(method.name), self._frees.get(self._cut(method))
        if entry is None or answers is None:
            return None
        self.found[method.name] = entry
        self.free[self._cut(method)] = _answers(answers)
        return method.with_(**{name: entry[name] for name in VALUES if name in entry})

    async def ready(self, bench: Bench, method: Method) -> Method:
        """The method with its values, calibrated if it has not been."""
        cut = self._cut(method)
        if (ready := self.known(method)) is not None:
            return ready
        async with self._locks.setdefault(cut, asyncio.Lock()):
            row = self._frees.get(cut)
            if row is None:
                drawn = await unguarded(bench, method, self._tuning)
                row = {"cut": cut, "answers": [asdict(answer) for answer in drawn]}
                self._frees.add(row)
        entry = await calibrate(bench, method, self._tuning, _answers(row), self._plan.rounds)
        self._book.add({"method": method.name, **entry})
        return await self.ready(bench, method)

    def _cut(self, method: Method) -> str:
        longest = method.decoding.get("segment_tokens") or self._plan.max_tokens
        if "entropy_threshold" in method.decoding:
            return f"entropy of {method.decoding['entropy_threshold']}, {longest} tokens at most"
        return f"B={longest}"


def _answers(row: dict[str, Any]) -> list[Answer]:
    return [Answer(a["prompt_reward"], tuple(a["tokens"]), tuple(a["rewards"])) for a in row["answers"]]
