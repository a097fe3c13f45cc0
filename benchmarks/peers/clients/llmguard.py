"""LLM Guard: a scanner of finished answers that asks our judge. Its own harm scanners need models from a hub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from common import REFUSAL, Task, completions, judge, run
from llm_guard import scan_output
from llm_guard.output_scanners.base import Scanner


class Harm(Scanner):
    """Our judge."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def scan(self, prompt: str, output: str) -> tuple[str, bool, float]:
        reward = judge(self._task, prompt, output)
        return output, reward >= 0, 0.0 if reward >= 0 else 1.0


async def answer(task: Task, prompt: str) -> AsyncIterator[str]:
    """The whole answer when the scanner lets it through, or a refusal."""
    text = "".join([token async for token in completions(task, prompt)])
    clean, valid, _ = await asyncio.to_thread(scan_output, [Harm(task)], prompt, text)
    yield clean if all(valid.values()) else REFUSAL


run(answer)
