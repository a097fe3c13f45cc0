"""Reward models and classifiers on vLLM: a pooling engine in process, or ``/classify`` of a server.

Both keep the keys and values of what they have read, so judging one more segment costs about one segment.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import SecretStr

from stars_guard import vllm_runtime
from stars_guard.chat import encode_chat
from stars_guard.errors import BackendError, MissingExtra, ScorerError
from stars_guard.hub import quiet
from stars_guard.scorers.base import Rating, Scorer
from stars_guard.segments import Passage
from stars_guard.vllm_http import ServerOptions, Servers, parse_options

__all__ = ["VllmPoolingScorer"]


class _Classifier(ABC):
    """Raw logits of token id sequences, and how many tokens of each came from the cache."""

    @abstractmethod
    async def logits(self, prompts: Sequence[list[int]]) -> list[tuple[list[float], int | None]]: ...

    @abstractmethod
    async def aclose(self) -> None: ...


class _InProcess(_Classifier):
    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._numbers = itertools.count()

    async def logits(self, prompts: Sequence[list[int]]) -> list[tuple[list[float], int | None]]:
        return list(await asyncio.gather(*(self._one(ids) for ids in prompts)))

    async def _one(self, ids: list[int]) -> tuple[list[float], int | None]:
        from vllm import PoolingParams

        params = PoolingParams(task="classify", use_activation=False)
        name, data, cached = f"stars-guard-judge-{next(self._numbers)}", None, None
        with vllm_runtime.translated():
            async for output in self._engine.encode({"prompt_token_ids": ids}, params, request_id=name):
                data, cached = output.outputs.data, output.num_cached_tokens
        if data is None:
            raise ScorerError("the vLLM engine gave no score")
        return [float(value) for value in data.float().reshape(-1).tolist()], cached

    async def aclose(self) -> None:
        await asyncio.to_thread(self._engine.shutdown)


class _Server(_Classifier):
    def __init__(self, model: str, options: ServerOptions) -> None:
        self._model = model
        self._servers = Servers(options)

    async def logits(self, prompts: Sequence[list[int]]) -> list[tuple[list[float], int | None]]:
        body = {"model": self._model, "input": [list(ids) for ids in prompts], "use_activation": False}
        async with self._servers.post(self._servers.pick(), "/classify", body) as response:
            await response.aread()
            rows = sorted(response.json()["data"], key=lambda row: row["index"])
        return [([float(value) for value in row["probs"]], None) for row in rows]

    async def aclose(self) -> None:
        await self._servers.aclose()


class VllmPoolingScorer(Scorer):
    """Make it with `load`."""

    cost = 10.0

    def __init__(
        self, classifier: _Classifier, tokenizer: Any, config: Any, identity: dict[str, str], label: str | None,
        max_length: int,
    ) -> None:  # fmt: skip
        self.identity = identity
        self._classifier = classifier
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._multi = getattr(config, "problem_type", None) == "multi_label_classification"
        names = [str(name) for _, name in sorted(config.id2label.items())]
        if label is not None and label not in names:
            raise ScorerError(f"the judge model has no label {label!r}", hint=f"use one of {', '.join(names)}")
        if label is None and len(names) > 1:
            raise ScorerError(f"the judge model has {len(names)} labels", hint=f"set label: one of {', '.join(names)}")
        self._label = None if label is None else names.index(label)

    @classmethod
    async def load(
        cls,
        model: str,
        *,
        base_url: str | None = None,
        api_key: SecretStr | None = None,
        revision: str | None = None,
        label: str | None = None,
        max_length: int = 4096,
        engine: Mapping[str, Any] | None = None,
    ) -> VllmPoolingScorer:
        """Start an engine, or use a server.

        Args:
            model: a classifier's directory or name; of a server, the name under which it serves.
            base_url: of the server.
            label: score is this label's probability; None takes the one raw logit of a reward model.
            max_length: tokens; what is too long is cut from the prompt's front.
            engine: vLLM's engine arguments.

        Raises:
            ScorerError: there is no such model or label, or the engine did not start.
            MissingExtra: vLLM or transformers is not installed.
        """
        tokenizer, config = await asyncio.to_thread(_read, model, revision)
        limit = int(getattr(config.get_text_config(), "max_position_embeddings", max_length))
        identity = {"kind": "vllm_pooling", "model": model, "revision": revision or "", "label": label or "",
                    "server": base_url or ""}  # fmt: skip
        classifier: _Classifier
        if base_url is not None:
            classifier = _Server(model, parse_options({"base_url": base_url, "api_key": api_key}))
        else:
            options = {"runner": "pooling", "revision": revision, **(engine or {})}
            try:
                classifier = _InProcess(await vllm_runtime.start(model, options))
            except BackendError as exc:
                raise ScorerError(f"judge model {model!r}: {exc.message}", hint=exc.hint) from exc
        return cls(classifier, tokenizer, config, identity, label, min(max_length, limit))

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        encoded = await asyncio.to_thread(lambda: [self._encode(passage) for passage in passages])
        rows = await self._classifier.logits(encoded)
        return [Rating(self._value(row), cached=cached) for row, cached in rows]

    def _encode(self, passage: Passage) -> list[int]:
        return encode_chat(self._tokenizer, passage.messages, answer=passage.answer)[-self._max_length :]

    def _value(self, logits: Sequence[float]) -> float:
        if self._label is None:
            return logits[0]
        if self._multi or len(logits) == 1:
            return 1 / (1 + math.exp(-logits[self._label]))
        top = max(logits)
        return math.exp(logits[self._label] - top) / sum(math.exp(value - top) for value in logits)

    async def aclose(self) -> None:
        await self._classifier.aclose()


def _read(model: str, revision: str | None) -> tuple[Any, Any]:
    try:
        from transformers import AutoConfig, AutoTokenizer
    except ImportError as exc:
        raise MissingExtra("vllm_pooling", "vllm") from exc
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
            return tokenizer, AutoConfig.from_pretrained(model, revision=revision)
    except Exception as exc:
        raise ScorerError(
            f"cannot read the judge model {model!r}: {type(exc).__name__}", hint="pass a Hugging Face directory or name"
        ) from exc
