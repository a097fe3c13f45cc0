"""What the clients share. They run in virtual environments of their own and import nothing of ours but this file."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx

__all__ = ["Task", "completions", "judge", "run"]

REFUSAL = "I can't help with that."


class Task:
    """The prompts and where model and judge are."""

    def __init__(self, path: str) -> None:
        given = json.loads(Path(path).read_text())
        self.base_url: str = given["base_url"]
        self.model: str = given["model"]
        self.judge_url: str = given["judge_url"]
        self.max_tokens: int = given["max_tokens"]
        self.temperature: float = given["temperature"]
        self.options: dict[str, Any] = given["options"]
        self.prompts: list[dict[str, str]] = given["prompts"]


def judge(task: Task, prompt: str, answer: str) -> float:
    """The judge's logit of harmlessness; below zero is over the harm line."""
    body = json.dumps({"prompt": prompt, "answer": answer}).encode()
    request = urllib.request.Request(task.judge_url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return float(json.load(reply)["reward"])


async def completions(task: Task, prompt: str) -> AsyncIterator[str]:
    """The unguarded model's answer, token by token."""
    body = {
        "model": task.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": task.max_tokens,
        "temperature": task.temperature,
        "stream": True,
    }
    async with (
        httpx.AsyncClient(timeout=120) as client,
        client.stream("POST", f"{task.base_url}/v1/chat/completions", json=body) as reply,
    ):
        async for line in reply.aiter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                text = json.loads(line[6:])["choices"][0]["delta"].get("content")
                if text:
                    yield text


async def _answers(task: Task, answer: Callable[[Task, str], AsyncIterator[str]]) -> list[str]:
    lines = []
    for prompt in task.prompts:
        began, chunks = time.perf_counter(), []
        async for text in answer(task, prompt["text"]):
            chunks.append([round(time.perf_counter() - began, 4), text])
        seconds = round(time.perf_counter() - began, 4)
        lines.append(json.dumps({"prompt": prompt["key"], "chunks": chunks, "seconds": seconds}))
    return lines


def run(answer: Callable[[Task, str], AsyncIterator[str]]) -> None:
    """Answer every prompt in turn; a line of JSON each, with what the client received and when."""
    lines = asyncio.run(_answers(Task(sys.argv[1]), answer))
    Path(sys.argv[2]).write_text("\n".join(lines))
