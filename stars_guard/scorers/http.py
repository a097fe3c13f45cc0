"""Any REST classifier as a judge."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import jmespath
from pydantic import SecretStr
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from stars_guard.core.segments import Passage
from stars_guard.errors import ScorerError, ScorerInputError
from stars_guard.prompting.plain_text import as_text, text_of
from stars_guard.scorers.base import Rating, Scorer

__all__ = ["HttpScorer"]

_FIELD = re.compile(r"(\{(?:prompt|answer|segment)\})")
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
REFUSED = frozenset({400, 413, 422})
"""What a service says about one request, not about itself."""


class _Busy(Exception):
    """The service may answer the same request later."""


class HttpScorer(Scorer):
    """One POST a passage.

    Args:
        body: JSON; in its texts ``{prompt}``, ``{answer}`` and ``{segment}`` are filled in, and a text that is only
            ``{messages}`` becomes the list of role and content, the answer last.
        score: a JMESPath expression that finds the score in the reply: a number, or true for 1 and false for 0.
        headers: their values are never shown.
        retries: how often a request is sent again when the service is busy or cannot be reached.
        connections: requests at once.
    """

    cost = 50.0

    def __init__(
        self,
        url: str,
        body: Any,
        score: str,
        *,
        headers: Mapping[str, SecretStr] | None = None,
        retries: int = 1,
        connections: int = 16,
        timeout: float = 30.0,
    ) -> None:
        # userinfo and query of a URL may hold a key
        shown = httpx.URL(url).copy_with(username=None, password=None, query=None)
        self.identity = {"kind": "http", "url": str(shown), "score": score}
        self._url = url
        self._body = body
        self._find = jmespath.compile(score)
        self._retries = retries
        self._slots = asyncio.Semaphore(connections)
        self._client = httpx.AsyncClient(
            headers={name: value.get_secret_value() for name, value in (headers or {}).items()},
            timeout=timeout,
            limits=httpx.Limits(max_connections=connections),
        )

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._one(passage)) for passage in passages]
        return [task.result() for task in tasks]

    async def _one(self, passage: Passage) -> Rating:
        body = json.dumps(_filled(self._body, passage))
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._retries + 1),
            wait=wait_random_exponential(0.1, 1.0),
            retry=retry_if_exception_type(_Busy),
            reraise=True,
        )
        async with self._slots:
            async for attempt in retrying:
                with attempt:
                    reply = await self._send(body)
        return Rating(self._value(reply))

    async def _send(self, body: str) -> Any:
        try:
            reply = await self._client.post(self._url, content=body, headers={"Content-Type": "application/json"})
        except httpx.TransportError as exc:
            raise _Busy(type(exc).__name__) from None
        if reply.status_code in BUSY:
            raise _Busy(str(reply.status_code))
        if reply.status_code in REFUSED:
            raise ScorerInputError(f"the classifier answered {reply.status_code}", hint="it does not take this text")
        if not reply.is_success:
            raise ScorerError(f"the classifier answered {reply.status_code}", hint="check url, headers and body")
        try:
            return reply.json()
        except (ValueError, RecursionError) as exc:
            raise ScorerError("the classifier's answer is not JSON, or nested too deeply") from exc

    def _value(self, reply: Any) -> float:
        value = self._find.search(reply)
        if not isinstance(value, bool | int | float):
            raise ScorerError("the classifier's answer has no number where score says", hint="check score")
        return float(value)

    async def aclose(self) -> None:
        await self._client.aclose()


def _filled(value: Any, passage: Passage) -> Any:
    if isinstance(value, Mapping):
        return {key: _filled(item, passage) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(item, passage) for item in value]
    if value == "{messages}":
        turns = [{"role": message.role, "content": message.content} for message in as_text(passage.messages)]
        return [*turns, {"role": "assistant", "content": passage.answer}]
    if isinstance(value, str):
        prompt = "\n".join(text_of(message) for message in passage.messages if message.role != "system")
        # split first: what is filled in is not looked at again
        parts = {"{prompt}": prompt, "{answer}": passage.answer, "{segment}": passage.segment}
        return "".join(parts.get(piece, piece) for piece in _FIELD.split(value))
    return value
