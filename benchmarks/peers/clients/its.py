"""its-hub: best-of-n by our judge as the outcome reward model. It gives whole answers; there is no stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from common import Task, judge, run
from its_hub import AbstractOutcomeRewardModel, BestOfN, OpenAICompatibleLanguageModel


class Reward(AbstractOutcomeRewardModel):
    """Our judge."""

    def __init__(self, task: Task, prompt: str) -> None:
        self._task = task
        self._prompt = prompt

    def score(self, messages: Any, **more: Any) -> Any:
        return [judge(self._task, self._prompt, str(talk[-1].content)) for talk in messages]

    async def ascore(self, messages: Any, orchestrator: Any = None, **more: Any) -> Any:
        return await asyncio.to_thread(self.score, messages)


async def answer(task: Task, prompt: str) -> AsyncIterator[str]:
    """The best of ``n``."""
    model = OpenAICompatibleLanguageModel(
        endpoint=f"{task.base_url}/v1",
        api_key="none",
        model_name=task.model,
        temperature=task.temperature,
        max_completion_tokens=task.max_tokens,
    )
    best = await BestOfN(Reward(task, prompt)).ainfer(model, prompt, budget=task.options["n"])
    yield str(best["content"])


run(answer)
