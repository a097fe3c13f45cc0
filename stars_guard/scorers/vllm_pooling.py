"""Reward models and classifiers on vLLM: a pooling engine in process, or ``/classify`` of a server.

Both keep the keys and values of what they have read, so judging one more segment costs about one segment.
"""

from __future__ import annotations

import asyncio
import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, SecretStr

from stars_guard.core.segments import Passage
from stars_guard.engines import vllm_process
from stars_guard.engines.addresses import Address
from stars_guard.engines.embedded_models import resolve_model
from stars_guard.engines.loading import load_tokenizer
from stars_guard.engines.vllm_client import ServerOptions, Servers, parse_options
from stars_guard.engines.vllm_lasting import LastingEngine
from stars_guard.errors import BackendError, InputError, ScorerError
from stars_guard.scorers._classifier import Classifier, ClassifierOptions, ClassifierScorer, Row
from stars_guard.scorers._reading import Reader, Reading, places
from stars_guard.scorers._together import together
from stars_guard.scorers._windows import MOST_WINDOWS
from stars_guard.scorers.model_options import ServedModelOptions

__all__ = ["VllmClassifier", "VllmPoolingOptions", "VllmPoolingScorer"]


class VllmPoolingOptions(ClassifierOptions, ServedModelOptions):
    """A reward model or classifier on vLLM: an engine in process, or a server that was started with --runner pooling.

    A prefix that was judged before is not read again.
    """

    free: ClassVar[frozenset[str]] = ClassifierOptions.free | {"engine"}
    serve_arguments: ClassVar[str] = "--runner pooling"
    vllm_only: ClassVar[bool] = True

    max_length: int = Field(4096, ge=16, description="tokens")
    engine: dict[str, Any] = Field(default_factory=dict, description="vLLM's engine arguments, in process")

    async def load_classifier(self) -> Classifier:
        return await VllmClassifier.load(
            await asyncio.to_thread(resolve_model, self.model),
            base_url=self.base_url,
            api_key=self.api_key(),
            revision=self.revision,
            template=self.template,
            max_length=self.max_length,
            engine=self.engine,
        )


class _Engine(ABC):
    """Raw logits of token id sequences, and how many tokens of each came from the cache."""

    @abstractmethod
    async def logits(self, prompts: Sequence[list[int]]) -> list[tuple[list[float], int | None]]: ...

    @abstractmethod
    async def aclose(self) -> None: ...


class _InProcess(_Engine):
    def __init__(self, engine: LastingEngine) -> None:
        self._engine = engine
        self._numbers = itertools.count()

    async def logits(self, prompts: Sequence[list[int]]) -> list[tuple[list[float], int | None]]:
        return await together(self._one(ids) for ids in prompts)

    async def _one(self, ids: list[int]) -> tuple[list[float], int | None]:
        from vllm import PoolingParams

        engine = await self._engine.ready()
        params = PoolingParams(task="classify", use_activation=False)
        name, data, cached = f"stars-guard-judge-{next(self._numbers)}", None, None
        with vllm_process.translated():
            async for output in engine.encode({"prompt_token_ids": ids}, params, request_id=name):
                data, cached = output.outputs.data, output.num_cached_tokens
        if data is None:
            raise ScorerError("the vLLM engine gave no score")
        return [float(value) for value in data.float().reshape(-1).tolist()], cached

    async def aclose(self) -> None:
        await self._engine.aclose()


class _Server(_Engine):
    def __init__(self, model: str, options: ServerOptions) -> None:
        self._model = model
        self._servers = Servers(options)

    async def logits(self, prompts: Sequence[list[int]]) -> list[tuple[list[float], int | None]]:
        body = {"model": self._model, "input": [list(ids) for ids in prompts], "use_activation": False}
        async with self._servers.post("/classify", body) as (response, _):
            await response.aread()
            rows = sorted(response.json()["data"], key=lambda row: row["index"])
        return [([float(value) for value in row["probs"]], None) for row in rows]

    async def aclose(self) -> None:
        await self._servers.aclose()


class VllmClassifier(Classifier):
    """One model on vLLM. Make it with `load`; `VllmPoolingScorer` takes it."""

    cost = 10.0

    def __init__(self, engine: _Engine, reader: Reader, config: Any, identity: dict[str, str]) -> None:
        super().__init__()
        self.identity = identity
        self.config = config
        self._engine = engine
        self._reader = reader

    @classmethod
    async def load(
        cls,
        model: str,
        *,
        base_url: str | None = None,
        api_key: SecretStr | None = None,
        revision: str | None = None,
        template: str | None = None,
        max_length: int = 4096,
        engine: Mapping[str, Any] | None = None,
    ) -> VllmClassifier:
        """Start an engine, or use a server.

        Args:
            model: a classifier's directory or name; of a server, the name under which it serves.
            base_url: of the server.
            template: format string with ``{prompt}`` and ``{answer}``; None uses the tokenizer's chat template, or
                else the pair of texts.
            max_length: tokens; what is too long is cut from the front of the prompt, down to a quarter. What is then
                too long of the judged text is read in windows, or cut from its front (see `ClassifierScorer`).
            engine: vLLM's engine arguments.

        Raises:
            ScorerError: there is no such model, or the engine did not start.
            MissingExtra: vLLM or transformers is not installed.
        """
        tokenizer, config = await asyncio.to_thread(
            load_tokenizer,
            model,
            revision,
            ScorerError,
            what="the judge model",
            feature="vllm_pooling",
            extra="vllm",
        )
        text = config.get_text_config()
        limit = places(text) or max_length
        reader = Reader(
            tokenizer, template=template, max_length=min(max_length, limit), coarse=True, unread=text.pad_token_id
        )
        identity = {
            "kind": "vllm_pooling",
            "model": model,
            "revision": revision or "",
            "server": Address.of(base_url).shown if base_url else "",
        }
        if base_url is not None:
            served = await asyncio.to_thread(_Server, model, parse_options({"base_url": base_url, "api_key": api_key}))
            return cls(served, reader, config, identity)
        options = {"runner": "pooling", "revision": revision, **(engine or {})}
        try:
            return cls(_InProcess(await LastingEngine.begin(model, options)), reader, config, identity)
        except (BackendError, InputError) as exc:
            raise ScorerError(f"judge model {model!r}: {exc.message}", hint=exc.hint) from exc

    async def readings(self, passages: Sequence[Passage], most: int | None) -> list[list[Reading]]:
        def read(passage: Passage) -> list[Reading]:
            return [self._reader.read(passage)] if most is None else self._reader.windows(passage, most)

        return await asyncio.to_thread(lambda: [read(passage) for passage in passages])

    async def rows(self, calls: Sequence[str], readings: Sequence[Reading]) -> list[Row]:
        return await self._engine.logits([reading.ids for reading in readings]) if readings else []

    async def forget(self, call_id: str) -> None:
        await super().forget(call_id)
        self._reader.forget(call_id)

    async def aclose(self) -> None:
        await self._engine.aclose()


class VllmPoolingScorer(ClassifierScorer):
    """A classifier on vLLM and the labels that make its score. Make it with `load`."""

    @classmethod
    async def load(
        cls,
        model: str,
        *,
        label: str | None = None,
        labels: Sequence[str] | Mapping[str, float] | None = None,
        windows: int | None = MOST_WINDOWS,
        **options: Any,
    ) -> VllmPoolingScorer:
        """Load a model for this scorer alone. ``options`` are those of `VllmClassifier.load`."""
        return await cls.over(await VllmClassifier.load(model, **options), label, labels, windows=windows)
