"""vLLM in process: its AsyncLLM on the background loop, shared by all who name the same model."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from stars_guard.backends._output_rows import OutputRows
from stars_guard.backends._streamed import Chunk, Request, StreamedBackend, TokenSource
from stars_guard.backends.base import OpenRequest
from stars_guard.engines import vllm_process
from stars_guard.engines.checkpoints import installed_probes
from stars_guard.engines.loading import Vocabulary, load_vocabulary
from stars_guard.engines.options import Plain
from stars_guard.errors import BackendError
from stars_guard.prompting.chat_templates import shown_template
from stars_guard.prompting.detokenizer import decoder
from stars_guard.prompting.prompt import Prompt

logger = logging.getLogger("stars_guard.engines")

__all__ = ["VllmEngineBackend", "VllmOptions", "entropy_of"]

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


class VllmOptions(BaseModel):
    """vLLM's engine arguments, such as ``tensor_parallel_size``, ``gpu_memory_utilization``, ``quantization`` or
    ``distributed_executor_backend``, and our own options. vLLM itself knows which arguments there are.

    Attributes:
        dtype: of the weights. vLLM's choice is the default, and float32 on a processor without bfloat16.
        tokenizer: directory or name, where it is not the model's.
        revision: of the model on the hub; ``tokenizer_revision`` that of the tokenizer.
        start_timeout: seconds that the engine's start may take, downloads included.
        chat_template: for a model that has none, or in the place of its own: the path of a file with a Jinja template,
            the text of one, or ``plain``, which writes each message under its role's name.
        chat_template_kwargs: variables of the model's chat template, such as ``enable_thinking``.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    dtype: Annotated[Literal["auto", "half", "float16", "bfloat16", "float", "float32"], Plain] | None = None
    tokenizer: str | None = None
    revision: str | None = None
    tokenizer_revision: str | None = None
    start_timeout: float = Field(vllm_process.START_LIMIT, gt=0)
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)

    @property
    def engine_arguments(self) -> dict[str, Any]:
        """Those that were given, without our own options."""
        return self.model_dump(exclude={"start_timeout", "chat_template", "chat_template_kwargs"}, exclude_unset=True)


class _Source(TokenSource):
    def __init__(self, backend: VllmEngineBackend, prompt: Prompt, request: OpenRequest) -> None:
        self._backend = backend
        self._grammar = prompt.grammar
        self._decode = decoder(backend.vocabulary.tokenizer, prompt.shown)
        self._asked = request
        self._rows = backend.rows
        self.eos_ids = backend.vocabulary.eos_ids
        self.streams = backend.streams

    def decode(self, ids: Sequence[int]) -> str:
        return self._decode(ids)

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        options = self._asked.sampling
        params = SamplingParams(
            temperature=options.temperature,
            top_p=options.top_p,
            top_k=options.top_k or -1,
            min_p=options.min_p,
            repetition_penalty=options.repetition_penalty,
            seed=request.seed if self._asked.seeded else None,
            max_tokens=request.max_tokens,
            stop_token_ids=sorted(self.eos_ids),
            logprobs=TOP if self._asked.entropies else None,
            logprob_token_ids=self._rows.ids(self._asked.directions) or None,
            logit_bias=self._rows.bias,
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
                tops = completion.logprobs or [{} for _ in completion.token_ids]
                yield [self._read(token, top) for token, top in zip(completion.token_ids, tops, strict=True)]

    def _read(self, token: int, top: Mapping[int, Any]) -> tuple[int, float | None, tuple[float, ...]]:
        """A token with what its log probabilities say.

        Args:
            top: of vLLM, by id.
        """
        entropy = None
        if self._asked.entropies:
            entropy = entropy_of([entry.logprob for entry in top.values() if (entry.rank or 1) <= TOP])
        directions = self._asked.directions
        if not directions:
            return token, entropy, ()
        return token, entropy, self._rows.values(directions, {one: entry.logprob for one, entry in top.items()})


async def _warm_up(engine: Any, model: str, limit: float) -> None:
    """Generate a token, because the first of an engine may take much longer than any later one.

    Raises:
        BackendError: the engine failed, or took longer than so many seconds.
    """
    from vllm import SamplingParams

    logger.info("the vLLM engine of %r is warming up", model)
    params = SamplingParams(max_tokens=1, detokenize=False)
    try:
        async with asyncio.timeout(limit):
            with vllm_process.translated():
                async for _ in engine.generate({"prompt_token_ids": [0]}, params, request_id="stars-guard-warm-up"):
                    pass
    except TimeoutError as exc:
        raise BackendError(
            f"vLLM started for {model!r}, and generated nothing within {limit:g} s",
            hint="set VLLM_LOGGING_LEVEL=INFO to see where it stands; a large model may need a longer start_timeout",
        ) from exc


class VllmEngineBackend(StreamedBackend[VllmOptions]):
    """One engine. Make it with `load`."""

    options_model = VllmOptions
    auto_rank = 2

    def __init__(
        self, engine: Any, vocabulary: Vocabulary, identity: dict[str, str], rows: OutputRows | None = None
    ) -> None:
        super().__init__(vocabulary, int(engine.model_config.max_model_len), rows)
        self.engine = engine
        self.identity = identity
        self.numbers = itertools.count()

    @classmethod
    def objection(cls, model: str, options: Mapping[str, Any]) -> str:
        return vllm_process.no_reason_against(model)

    @classmethod
    async def load(cls, model: str, options: VllmOptions = VllmOptions()) -> VllmEngineBackend:  # noqa: B008
        """Start an engine.

        Args:
            model: a Hugging Face directory or name.

        Raises:
            MissingExtra: vLLM is not installed.
            InputError: vLLM has no such engine argument, or the model has no chat template and none was given.
            BackendError: the engine did not start in time, or there is no such model.
        """
        source, revision = options.tokenizer or model, options.tokenizer_revision or options.revision
        vocabulary = await asyncio.to_thread(load_vocabulary, source, revision, options.chat_template)
        rows = OutputRows(await asyncio.to_thread(installed_probes, Path(model)))
        engine = await vllm_process.start(model, options.engine_arguments, limit=options.start_timeout)
        try:
            await _warm_up(engine, model, options.start_timeout)
        except BaseException:
            await vllm_process.stop(engine)
            raise
        from vllm import __version__

        identity = {
            "engine": f"vllm {__version__}",
            "model": model,
            "revision": options.revision or "",
            "dtype": str(engine.model_config.dtype).removeprefix("torch."),
        }
        made = cls(engine, vocabulary, identity, rows)
        made.use_template(options.chat_template_kwargs, shown_template(options.chat_template, vocabulary.tokenizer))
        return made

    @property
    def dead(self) -> bool:
        return super().dead or bool(self.engine.errored)

    def _source(self, prompt: Prompt, request: OpenRequest) -> TokenSource:
        return _Source(self, prompt, request)

    async def _free_engine(self) -> None:
        await vllm_process.stop(self.engine)
