"""Any vLLM OpenAI-compatible server, by token ids; one or several replicas of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from stars_guard.backends._output_rows import OutputRows
from stars_guard.backends._streamed import Chunk, Request, StreamedBackend, TokenSource
from stars_guard.backends.base import OpenRequest
from stars_guard.backends.vllm_engine import TOP, entropy_of
from stars_guard.engines.checkpoints import installed_probes
from stars_guard.engines.loading import Vocabulary, load_vocabulary
from stars_guard.engines.vllm_client import Seat, ServerOptions, Servers, by_token_id
from stars_guard.engines.vllm_versions import OLDEST, written
from stars_guard.errors import BackendError
from stars_guard.prompting.chat_templates import shown_template
from stars_guard.prompting.detokenizer import decoder
from stars_guard.prompting.prompt import Prompt

__all__ = ["VllmServerBackend"]


class _Source(TokenSource):
    """Stays with one replica, which has the prefix in its cache, for as long as that serves it."""

    def __init__(self, backend: VllmServerBackend, prompt: Prompt, request: OpenRequest) -> None:
        self._backend = backend
        self._decode = decoder(backend.vocabulary.tokenizer, prompt.shown)
        self._seat = Seat(backend.servers)
        self._seeded = request.seeded
        self.eos_ids = backend.vocabulary.eos_ids
        self.streams = backend.streams
        self._rows = backend.rows
        self._asked = request
        ids = backend.rows.ids(request.directions)
        sampling = request.sampling
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
            "logprobs": TOP if request.entropies else 1 if ids else None,
            "logprob_token_ids": ids or None,
            "return_tokens_as_token_ids": True if ids else None,
            "logit_bias": backend.rows.bias,
            "priority": options.priority,
            "cache_salt": options.cache_salt,
            "structured_outputs": {"structural_tag": prompt.grammar.tag} if prompt.grammar else None,
        }
        self._body = {key: value for key, value in body.items() if value is not None}

    def decode(self, ids: Sequence[int]) -> str:
        return self._decode(ids)

    def leave(self) -> None:
        self._seat.leave()

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        body = {**self._body, "prompt": list(request.ids), "max_tokens": request.max_tokens}
        if self._seeded:
            body["seed"] = request.seed
        done = False
        async with self._backend.servers.post("/v1/completions", body, seat=self._seat) as (response, replica):
            # read to the end, so that the connection can be used again
            async for line in response.aiter_lines():
                if line == "data: [DONE]":
                    done = True
                elif line.startswith("data: "):
                    yield self._chunk_of(json.loads(line.removeprefix("data: ")))
        if not done:
            raise replica.broke_off()

    def _chunk_of(self, event: dict[str, Any]) -> Chunk:
        if "error" in event:
            raise BackendError("the vLLM server failed while it generated", hint="see the server's log")
        chunk: list[tuple[int, float | None, tuple[float, ...]]] = []
        for choice in event.get("choices", ()):
            ids = choice.get("token_ids")
            if ids is None:
                raise BackendError("the server gives no token ids", hint=f"it must be vLLM {written(OLDEST)} or newer")
            tops = (choice.get("logprobs") or {}).get("top_logprobs") or [None] * len(ids)
            chunk += [(token, *self._read(top or {})) for token, top in zip(ids, tops, strict=True)]
        return chunk

    def _read(self, top: Mapping[str, float]) -> tuple[float | None, tuple[float, ...]]:
        """Entropy and projections from the log probabilities that come with a token."""
        entropy = entropy_of(list(top.values())) if top and self._asked.entropies else None
        if not self._asked.directions:
            return entropy, ()
        return entropy, self._rows.values(self._asked.directions, by_token_id(top))


class VllmServerOptions(ServerOptions):
    """How servers are reached, and what the chat template is given.

    Attributes:
        chat_template: for a model that has none, or in the place of its own: the path of a file with a Jinja template,
            the text of one, or ``plain``, which writes each message under its role's name.
        chat_template_kwargs: variables of the model's chat template, such as ``enable_thinking``.
    """

    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)


class VllmServerBackend(StreamedBackend[VllmServerOptions]):
    """One model on one or several servers. Make it with `load`."""

    options_model = VllmServerOptions
    auto_rank = 3
    measurable = False
    """Others use it too, so what a step takes now says little about the next, and they would wait for the measuring."""
    row_cost = 0.05
    """Between a GPU's and a CPU's."""

    def __init__(
        self,
        servers: Servers,
        model: str,
        vocabulary: Vocabulary,
        context: int,
        version: str,
        rows: OutputRows | None = None,
    ) -> None:
        super().__init__(vocabulary, context, rows)
        self.servers = servers
        self.model = model
        self.identity = {
            "engine": f"vllm server {version}",
            "model": model,
            "servers": servers.shown,
        }

    @classmethod
    def objection(cls, model: str, options: Mapping[str, Any]) -> str:
        return "" if "base_url" in options else "there is no base_url"

    @classmethod
    async def load(cls, model: str, options: VllmServerOptions) -> VllmServerBackend:
        """Ask a server what it serves, and read the model's tokenizer.

        Args:
            model: as the server names it.

        Raises:
            InputError: the model has no chat template and none was given.
            BackendUnavailable: no server can be reached.
            BackendError: the server does not serve the model, or its tokenizer cannot be read.
        """
        servers = await asyncio.to_thread(Servers, options)
        try:
            served = (await servers.get_json("/v1/models"))["data"]
            version = (await servers.get_json("/version"))["version"]
            entry = next((m for m in served if m["id"] == model), None)
            if entry is None:
                raise BackendError(
                    f"the server does not serve {model!r}", hint=f"it serves {', '.join(m['id'] for m in served)}"
                )
            source = options.tokenizer or model
            vocabulary = await asyncio.to_thread(load_vocabulary, source, None, options.chat_template)
            rows = OutputRows(await asyncio.to_thread(installed_probes, Path(source)))
        except BaseException:
            await servers.aclose()
            raise
        context = int(entry.get("max_model_len") or vocabulary.context)
        made = cls(servers, model, vocabulary, context, version, rows)
        made.use_template(options.chat_template_kwargs, shown_template(options.chat_template, vocabulary.tokenizer))
        return made

    def _source(self, prompt: Prompt, request: OpenRequest) -> TokenSource:
        return _Source(self, prompt, request)

    async def _free_engine(self) -> None:
        await self.servers.aclose()
