"""Any vLLM OpenAI-compatible server, by token ids; one or several replicas of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from stars_guard.backends._streamed import Drawn, Request, StreamedSession, TokenSource
from stars_guard.backends._vocabulary import Prompt, Vocabulary, decoder
from stars_guard.backends.base import Backend, Session
from stars_guard.backends.vllm_engine import TOP, entropy_of
from stars_guard.core.grammar import Grammar
from stars_guard.core.messages import Message
from stars_guard.core.sampling import Sampling
from stars_guard.core.tools import Toolset
from stars_guard.engines.vllm_client import Replica, ServerOptions, Servers
from stars_guard.errors import BackendError, BackendUnavailable

__all__ = ["VllmServerBackend"]


class _Source(TokenSource):
    def __init__(
        self,
        backend: VllmServerBackend,
        replica: Replica,
        prompt: Prompt,
        sampling: Sampling,
        entropies: bool,
        seeded: bool,
    ) -> None:
        self._backend = backend
        self._decode = decoder(backend.vocabulary.tokenizer, prompt.form.shown if prompt.form else None)
        self._replica = replica
        self._seeded = seeded
        self.eos_ids = backend.vocabulary.eos_ids
        options = backend.servers.options
        body: dict[str, Any] = {
            "model": backend.model,
            "stream": True,
            "return_token_ids": True,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "min_p": sampling.min_p,
            "repetition_penalty": sampling.repetition_penalty,
            "stop_token_ids": sorted(self.eos_ids),
            "logprobs": TOP if entropies else None,
            "priority": options.priority,
            "cache_salt": options.cache_salt,
            "structured_outputs": {"structural_tag": prompt.grammar.tag} if prompt.grammar else None,
        }
        self._body = {key: value for key, value in body.items() if value is not None}

    def decode(self, ids: Sequence[int]) -> str:
        return self._decode(ids)

    async def draw(self, request: Request) -> AsyncGenerator[Drawn, None]:
        body = {**self._body, "prompt": list(request.ids), "max_tokens": request.max_tokens}
        if self._seeded:
            body["seed"] = request.seed
        async with self._backend.servers.post(self._replica, "/v1/completions", body) as response:
            done = False
            # read to the end, so that the connection can be used again
            async for line in response.aiter_lines():
                if line == "data: [DONE]":
                    done = True
                elif line.startswith("data: "):
                    yield _drawn(json.loads(line.removeprefix("data: ")))
        if not done:
            raise BackendUnavailable(f"the vLLM server {self._replica.url} broke off", hint="see the server's log")


def _drawn(event: dict[str, Any]) -> Drawn:
    if "error" in event:
        raise BackendError("the vLLM server failed while drawing", hint="see the server's log")
    drawn: list[tuple[int, float | None]] = []
    for choice in event.get("choices", ()):
        ids = choice.get("token_ids")
        if ids is None:
            raise BackendError("the server gives no token ids", hint="it must be vLLM 0.11 or newer")
        tops = (choice.get("logprobs") or {}).get("top_logprobs") or [None] * len(ids)
        entropies = [entropy_of(list(top.values())) if top else None for top in tops]
        drawn += zip(ids, entropies, strict=True)
    return drawn


class _ServerSession(StreamedSession):
    """Stays with one replica, which has the prefix in its cache."""

    def __init__(self, source: _Source, prompt: Prompt, context: int, replica: Replica) -> None:
        super().__init__(source, prompt, context)
        self._replica = replica
        replica.busy += 1

    async def aclose(self) -> None:
        if self._replica is not _GONE:
            self._replica.busy -= 1
            self._replica = _GONE
        await super().aclose()


_GONE = Replica("")


class VllmServerBackend(Backend):
    """One model on one or several servers. Make it with `connect`."""

    row_cost = 0.05
    """Between a GPU's and a CPU's: the client cannot know."""

    def __init__(self, servers: Servers, model: str, vocabulary: Vocabulary, context: int, version: str) -> None:
        self.servers = servers
        self.model = model
        self.vocabulary = vocabulary
        self.context = context
        self.identity = {
            "engine": f"vllm server {version}",
            "model": model,
            "servers": ", ".join(servers.options.base_url),
        }

    @classmethod
    async def connect(cls, model: str, options: ServerOptions) -> VllmServerBackend:
        """Ask a server what it serves, and read the model's tokenizer.

        Args:
            model: as the server names it.

        Raises:
            BackendUnavailable: no server can be reached.
            BackendError: the server does not serve the model, or its tokenizer cannot be read.
        """
        servers = Servers(options)
        try:
            served, version = await _first_answer(servers)
            entry = next((m for m in served if m["id"] == model), None)
            if entry is None:
                raise BackendError(
                    f"the server does not serve {model!r}", hint=f"it serves {', '.join(m['id'] for m in served)}"
                )
            source = options.tokenizer or model
            vocabulary = await asyncio.to_thread(Vocabulary.load, source)
        except BaseException:
            await servers.aclose()
            raise
        return cls(servers, model, vocabulary, int(entry.get("max_model_len") or vocabulary.context), version)

    async def open(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        *,
        entropies: bool = False,
        seeded: bool = False,
        tools: Toolset | None = None,
        grammar: Grammar | None = None,
    ) -> Session:
        prompt = await asyncio.to_thread(Prompt.of, self.vocabulary.tokenizer, messages, self.context, tools, grammar)
        replica = self.servers.pick()
        source = _Source(self, replica, prompt, sampling, entropies, seeded)
        return _ServerSession(source, prompt, self.context, replica)

    async def aclose(self) -> None:
        await self.servers.aclose()


async def _first_answer(servers: Servers) -> tuple[list[dict[str, Any]], str]:
    error: BackendUnavailable | None = None
    for replica in servers.replicas:
        try:
            served = (await servers.get_json(replica, "/v1/models"))["data"]
            version = (await servers.get_json(replica, "/version"))["version"]
        except BackendUnavailable as exc:
            servers.failed(replica)
            error = exc
        else:
            return served, version
    assert error is not None  # noqa: S101
    raise error
