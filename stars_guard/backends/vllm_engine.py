"""vLLM in process: its AsyncLLM on the background loop, shared by all who name the same model."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from stars_guard.backends._streamed import Drawn, Request, StreamedSession, TokenSource
from stars_guard.backends._vocabulary import Prompt, Vocabulary, decoder
from stars_guard.backends.base import Backend, Session
from stars_guard.core.grammar import Grammar
from stars_guard.core.messages import Message
from stars_guard.core.sampling import Sampling
from stars_guard.core.tools import Toolset
from stars_guard.engines import vllm_process

__all__ = ["VllmEngineBackend", "entropy_of"]

TOP = 20
"""Log probabilities asked for where entropies are wanted."""


def entropy_of(logprobs: Sequence[float]) -> float:
    """Entropy in nats from the highest log probabilities.

    A lower bound of the true entropy: what they leave is counted as if each outcome of it were as likely as the least
    likely that is known, and none is likelier. Counted as one more outcome, it would keep the sum below log(21) with 20
    known ones, and so nearly always below CARDS' threshold.
    """
    known = sorted((value for value in logprobs if value > -math.inf), reverse=True)[:TOP]
    rest = max(0.0, 1.0 - sum(math.exp(value) for value in known))
    return -sum(math.exp(value) * value for value in known) - rest * min(known, default=0.0)


class _Source(TokenSource):
    def __init__(
        self, backend: VllmEngineBackend, prompt: Prompt, sampling: Sampling, entropies: bool, seeded: bool
    ) -> None:
        self._backend = backend
        self._grammar = prompt.grammar
        self._decode = decoder(backend.vocabulary.tokenizer, prompt.form.shown if prompt.form else None)
        self._sampling = sampling
        self._entropies = entropies
        self._seeded = seeded
        self.eos_ids = backend.vocabulary.eos_ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._decode(ids)

    async def draw(self, request: Request) -> AsyncGenerator[Drawn, None]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        options = self._sampling
        params = SamplingParams(
            temperature=options.temperature,
            top_p=options.top_p,
            top_k=options.top_k or -1,
            min_p=options.min_p,
            repetition_penalty=options.repetition_penalty,
            seed=request.seed if self._seeded else None,
            max_tokens=request.max_tokens,
            stop_token_ids=sorted(self.eos_ids),
            logprobs=TOP if self._entropies else None,
            detokenize=False,
            structured_outputs=StructuredOutputsParams(structural_tag=self._grammar.tag) if self._grammar else None,
            output_kind=RequestOutputKind.DELTA,
        )
        name = f"stars-guard-{next(self._backend.numbers)}"
        with vllm_process.translated():
            async for output in self._backend.engine.generate(
                {"prompt_token_ids": list(request.ids)}, params, request_id=name
            ):
                completion = output.outputs[0]
                entropies: list[float | None] = [None] * len(completion.token_ids)
                if completion.logprobs is not None:
                    entropies = [
                        entropy_of([entry.logprob for entry in top.values() if (entry.rank or 1) <= TOP])
                        for top in completion.logprobs
                    ]
                yield list(zip(completion.token_ids, entropies, strict=True))


class VllmEngineBackend(Backend):
    """One engine. Make it with `load`."""

    def __init__(self, engine: Any, vocabulary: Vocabulary, identity: dict[str, str]) -> None:
        self.engine = engine
        self.vocabulary = vocabulary
        self.identity = identity
        self.numbers = itertools.count()
        self.context = int(engine.model_config.max_model_len)
        # measured with the embedded model on two cores; on a GPU a guess
        self.row_cost = 0.08 if vllm_process.on_cpu() else 0.01

    @classmethod
    async def load(cls, model: str, options: Mapping[str, Any] | None = None) -> VllmEngineBackend:
        """Start an engine.

        Args:
            model: a Hugging Face directory or name.
            options: vLLM's engine arguments, such as ``tensor_parallel_size``, ``gpu_memory_utilization``,
                ``quantization`` or ``distributed_executor_backend``.

        Raises:
            MissingExtra: vLLM is not installed.
            BackendError: the engine did not start, or there is no such model.
        """
        options = dict(options or {})
        source, revision = options.get("tokenizer") or model, options.get("tokenizer_revision", options.get("revision"))
        vocabulary = await asyncio.to_thread(Vocabulary.load, source, revision)
        engine = await vllm_process.start(model, options)
        from vllm import __version__

        identity = {
            "engine": f"vllm {__version__}",
            "model": model,
            "revision": str(options.get("revision") or ""),
            "dtype": str(engine.model_config.dtype).removeprefix("torch."),
        }
        return cls(engine, vocabulary, identity)

    @property
    def dead(self) -> bool:
        """Whether the engine is lost and must be started anew."""
        return bool(self.engine.errored)

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
        return StreamedSession(_Source(self, prompt, sampling, entropies, seeded), prompt, self.context)

    async def aclose(self) -> None:
        await asyncio.to_thread(self.engine.shutdown)
