"""Any REST classifier as a judge."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import httpx
from pydantic import Field, JsonValue, SecretStr, field_validator
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.engines.addresses import Address, quiet_about
from stars_guard.errors import ScorerError, ScorerInputError
from stars_guard.prompting.plain_text import as_text, text_of
from stars_guard.scorers._reply_expressions import ReplyExpression
from stars_guard.scorers._together import together
from stars_guard.scorers.base import Rating, Scorer
from stars_guard.scorers.options import JudgeOptions

__all__ = ["HttpOptions", "HttpScorer"]

BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may be sent again."""

_FIELD = re.compile(r"(\{(?:prompt|answer|segment|role)\})")
REFUSED = frozenset({400, 413, 422})
"""What a service says about one request, not about itself."""
_SECRET_HEADER = re.compile("(?i)auth|key|token|secret|cookie|session|pass")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"|[!-~]|[!-~][ -~]*[!-~]")


class HttpOptions(JudgeOptions):
    """Any REST classifier: one POST a passage."""

    free: ClassVar[frozenset[str]] = frozenset({"retries", "connections"})

    url: str = Field(pattern="^https?://", description="where the texts are posted")
    body: JsonValue = Field(
        description="{prompt}, {answer}, {segment}, {role} in texts are filled in; {messages} is a list"
    )
    score: str = Field(description="JMESPath to the number in the reply, such as results[0].score")
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="never shown; write ${NAME} for secrets")
    retries: int = Field(1, ge=0, le=10, description="how often a request that failed is sent again")
    connections: int = Field(16, ge=1, le=1024, description="requests at once")

    @field_validator("url")
    @classmethod
    def _has_host(cls, url: str) -> str:
        Address.of(url)
        return url

    @field_validator("score")
    @classmethod
    def _finds_a_number(cls, score: str) -> str:
        ReplyExpression(score)
        return score

    @field_validator("headers")
    @classmethod
    def _can_be_sent(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"a header cannot be named {name!r}")
            if not _HEADER_VALUE.fullmatch(value.get_secret_value()):
                raise ValueError(f"the value of {name} has a line break, spaces at an end, or is not ASCII")
        return headers

    @field_validator("body")
    @classmethod
    def _shows_the_answer(cls, body: JsonValue) -> JsonValue:
        if _filled(body, _passage("a")) == _filled(body, _passage("b")):
            raise ValueError("{answer}, {segment} or {messages} is missing, so every answer would get the same score")
        return body

    async def load(self) -> Scorer:
        # a client reads certificates from files
        return await asyncio.to_thread(
            HttpScorer,
            self.url,
            self.body,
            self.score,
            headers=self.headers,
            retries=self.retries,
            connections=self.connections,
            timeout=self.timeout,
        )


class HttpScorer(Scorer):
    """One POST a passage.

    Args:
        body: JSON; in its texts ``{prompt}``, ``{answer}`` (the judged text), ``{segment}`` and ``{role}``
            (assistant, user or tool: who wrote it) are filled in, and a text that is only ``{messages}`` becomes the
            list of role and content, the judged text last. What a tool gave is the user's there.
        score: a JMESPath expression that finds the score in the reply: a number, or true for 1 and false for 0.
        headers: their values are never shown.
        retries: how often a request is sent again when the service is busy or cannot be reached.
        connections: requests at once.
        timeout: seconds for each step of a request, such as connecting or waiting for the next bytes.
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
        shown = httpx.URL(url).copy_with(username=None, password=None, query=None, fragment=None)
        self.identity = {"kind": "http", "url": str(shown), "score": score}
        self._address = Address.of(url)
        sent = {name: value.get_secret_value() for name, value in (headers or {}).items()}
        quiet_about(*(value for name, value in sent.items() if _SECRET_HEADER.search(name)))
        self._body = body
        self.reads_turns = any(field in json.dumps(body) for field in ("{prompt}", "{messages}"))
        self._score = ReplyExpression(score)
        self._retries = retries
        self._slots = asyncio.Semaphore(connections)
        self._client = httpx.AsyncClient(
            headers=sent,
            timeout=timeout,
            limits=httpx.Limits(max_connections=connections),
        )

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        return await together(self._one(passage) for passage in passages)

    async def _one(self, passage: Passage) -> Rating:
        body = json.dumps(_filled(self._body, passage))
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._retries + 1),
            wait=wait_random_exponential(0.1, 1.0),
            retry=retry_if_exception(lambda exc: isinstance(exc, ScorerError) and exc.retryable),
            reraise=True,
        )
        async with self._slots:
            async for attempt in retrying:
                with attempt:
                    reply = await self._send(body)
        return Rating(self._score.number(reply))

    async def _send(self, body: str) -> Any:
        try:
            request = self._address.request()
            request["headers"]["Content-Type"] = "application/json"
            reply = await self._client.post(content=body, **request)
        except httpx.TransportError as exc:
            raise _unavailable(f"cannot be reached: {type(exc).__name__}") from None
        if reply.status_code in BUSY:
            raise _unavailable(f"answered {reply.status_code}")
        if reply.status_code in REFUSED:
            raise ScorerInputError(f"the classifier answered {reply.status_code}", hint="it does not take this text")
        if not reply.is_success:
            raise ScorerError(f"the classifier answered {reply.status_code}", hint="check url, headers and body")
        try:
            return reply.json()
        except (ValueError, RecursionError) as exc:
            raise ScorerError("the classifier's answer is not JSON, or nested too deeply") from exc

    async def aclose(self) -> None:
        await self._client.aclose()


def _unavailable(text: str) -> ScorerError:
    """The service may answer the same request later."""
    error = ScorerError(f"the classifier {text}", hint="start it, or check url")
    error.retryable = True
    return error


def _passage(answer: str) -> Passage:
    return Passage(call_id="", messages=(Message("user", "?"),), accepted="", segment=answer)


def _filled(value: Any, passage: Passage) -> Any:
    if isinstance(value, Mapping):
        return {key: _filled(item, passage) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(item, passage) for item in value]
    if value == "{messages}":
        turns = [{"role": message.role, "content": message.content} for message in as_text(passage.messages)]
        return [*turns, {"role": passage.role if passage.role == "assistant" else "user", "content": passage.answer}]
    if isinstance(value, str):
        prompt = "\n".join(text_of(message) for message in passage.messages if message.role != "system")
        # split first: what is filled in is not looked at again
        parts = {"{prompt}": prompt, "{answer}": passage.answer, "{segment}": passage.segment, "{role}": passage.role}
        return "".join(parts.get(piece, piece) for piece in _FIELD.split(value))
    return value
