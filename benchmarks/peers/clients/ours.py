"""stars-guard on the same server, under the default policy's numbers."""

from __future__ import annotations

from collections.abc import AsyncIterator

from common import Task, run

from stars_guard import Guard, Message
from stars_guard.audit import MemoryStore
from stars_guard.core.events import Finished, Released
from stars_guard.guard import CallOptions

_guards: dict[str, Guard] = {}


def guard(task: Task) -> Guard:
    """Made once."""
    if "it" not in _guards:
        policy = {
            "apiVersion": "stars-guard/v1",
            "name": "peers",
            "decoding": task.options["decoding"],
            "judges": [task.options["judge"]],
            "sampling": {"temperature": task.temperature},
        }
        _guards["it"] = Guard(
            policy, model=task.model, backend="vllm-server", options={"base_url": task.base_url}, audit=MemoryStore()
        )
    return _guards["it"]


async def answer(task: Task, prompt: str) -> AsyncIterator[str]:
    """What is released, as it is."""
    finish = ""
    async for event in guard(task).stream([Message("user", prompt)], CallOptions(max_tokens=task.max_tokens)):
        if isinstance(event, Released):
            yield event.text
        elif isinstance(event, Finished):
            finish = event.finish
    if finish == "refused":
        yield "I can't help with that."


run(answer)
