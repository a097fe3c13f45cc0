"""NeMo Guardrails: a streaming output rail that asks our judge about each chunk."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from common import REFUSAL, Task, completions, judge, run
from nemoguardrails import LLMRails, RailsConfig
from nemoguardrails.actions.rail_outcome import RailOutcome

FLOWS = """
define subflow check harm
  $outcome = execute check_harm(answer=$bot_message, question=$user_message)
  if not $outcome
    bot refuse to respond
    stop
"""

_rails: dict[str, LLMRails] = {}


def rails(task: Task) -> LLMRails:
    """Made once."""
    if "it" not in _rails:
        streaming = json.dumps({"enabled": True, **task.options})
        made = LLMRails(
            RailsConfig.from_content(
                colang_content=FLOWS,
                yaml_content=f"models: []\nrails:\n  output:\n    flows: [check harm]\n    streaming: {streaming}\n",
            )
        )

        async def check_harm(answer: str, question: str, **given: Any) -> RailOutcome:
            reward = await asyncio.to_thread(judge, task, question, answer)
            return RailOutcome.allow() if reward >= 0 else RailOutcome.block(reason="harm")

        made.register_action(check_harm, "check_harm")
        _rails["it"] = made
    return _rails["it"]


async def answer(task: Task, prompt: str) -> AsyncIterator[str]:
    """The stream as a client sees it; the JSON that marks a block is shown as a refusal."""
    stream = rails(task).stream_async(
        messages=[{"role": "user", "content": prompt}], generator=completions(task, prompt)
    )
    async for chunk in stream:
        yield REFUSAL if chunk.startswith('{"error":') and "guardrails_violation" in chunk else chunk


run(answer)
