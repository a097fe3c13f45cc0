"""Where a guard model runs: transformers, vLLM in this process, or a vLLM server; each gives exact probabilities."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from threading import Event
from typing import Any

from stars_guard.engines import vllm_process
from stars_guard.engines.model_thread import ModelThread
from stars_guard.engines.vllm_client import ServerOptions, Servers, by_token_id, token_ids
from stars_guard.engines.vllm_lasting import LastingEngine
from stars_guard.engines.vllm_versions import DIFFERENCES, OLDEST, written
from stars_guard.errors import ScorerError
from stars_guard.scorers._guard_writing import Writing, written_by_transformers
from stars_guard.scorers._together import together

__all__ = ["GuardEngine", "Row", "ServerGuard", "TransformersGuard", "VllmGuard"]

Row = tuple[list[float], int | None]
"""Log probabilities of the labels, up to one constant, and how many tokens came from a cache, where that is known."""


class GuardEngine(ABC):
    """The next token's log probabilities."""

    @abstractmethod
    async def labels(self, prompts: Sequence[list[int]], labels: Sequence[int]) -> list[Row]:
        """Of the tokens ``labels`` after each prompt."""

    @abstractmethod
    async def write(self, prompts: Sequence[list[int]], writing: Writing) -> list[list[int] | None]:
        """Each prompt with what the model writes after it, up to where its label comes; None where it doesn't come."""

    @abstractmethod
    async def aclose(self) -> None:
        """Free the model. May be called twice."""


class TransformersGuard(GuardEngine):
    """One forward pass for ``batch_size`` prompts of like length."""

    def __init__(self, model: Any, batch_size: int) -> None:
        self._model = model
        self._batch_size = batch_size
        self._worker = ModelThread("judge")
        self._closed = False

    async def labels(self, prompts: Sequence[list[int]], labels: Sequence[int]) -> list[Row]:
        if self._closed:
            raise ScorerError("the judge's model is closed")
        return await self._worker.run(partial(self._pass, prompts, labels))

    async def write(self, prompts: Sequence[list[int]], writing: Writing) -> list[list[int] | None]:
        if self._closed:
            raise ScorerError("the judge's model is closed")
        given_up = Event()
        try:
            return await self._worker.run(partial(self._write, prompts, writing, given_up))
        finally:
            # the thread can't be cancelled, and goes on until it sees this
            given_up.set()

    def _write(self, prompts: Sequence[list[int]], writing: Writing, given_up: Event) -> list[list[int] | None]:
        found: list[list[int] | None] = []
        for start in range(0, len(prompts), self._batch_size):
            part = prompts[start : start + self._batch_size]
            found += written_by_transformers(self._model, part, writing, given_up)
        return found

    def _pass(self, prompts: Sequence[list[int]], labels: Sequence[int]) -> list[Row]:
        import torch

        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        found: dict[int, Row] = {}
        device = self._model.device
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            width = max(len(prompts[i]) for i in rows)
            # padded on the left, so that the label's place is the last one of each row
            padded = [[0] * (width - len(prompts[i])) + prompts[i] for i in rows]
            mask = torch.tensor([[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in rows], device=device)
            with torch.inference_mode():
                output = self._model(
                    input_ids=torch.tensor(padded, device=device),
                    attention_mask=mask,
                    position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
                    logits_to_keep=1,
                    use_cache=False,
                )
            logits = output.logits[:, -1, list(labels)].float().tolist()
            found |= {i: ([float(value) for value in row], None) for i, row in zip(rows, logits, strict=True)}
        return [found[i] for i in range(len(prompts))]

    async def aclose(self) -> None:
        self._closed = True
        await self._worker.aclose()
        self._model = None


class VllmGuard(GuardEngine):
    """An engine of its own. What it has read before comes from its prefix cache."""

    def __init__(self, engine: LastingEngine) -> None:
        self._engine = engine
        self._numbers = itertools.count()

    async def labels(self, prompts: Sequence[list[int]], labels: Sequence[int]) -> list[Row]:
        return await together(self._one(ids, labels) for ids in prompts)

    async def _one(self, ids: list[int], labels: Sequence[int]) -> Row:
        from vllm import SamplingParams

        engine = await self._engine.ready()
        params = SamplingParams(max_tokens=1, temperature=0.0, logprob_token_ids=list(labels), detokenize=False)
        found, cached = None, None
        with vllm_process.translated():
            async for output in engine.generate(
                {"prompt_token_ids": ids}, params, request_id=f"stars-guard-judge-{next(self._numbers)}"
            ):
                found, cached = output.outputs[0].logprobs, output.num_cached_tokens
        if not found:
            raise ScorerError(
                "the vLLM engine gave no probabilities", hint=f"it must be vLLM {written(OLDEST)} or newer"
            )
        return [found[0][label].logprob for label in labels], cached

    async def write(self, prompts: Sequence[list[int]], writing: Writing) -> list[list[int] | None]:
        return await together(self._written(ids, writing) for ids in prompts)

    async def _written(self, ids: list[int], writing: Writing) -> list[int] | None:
        from vllm import SamplingParams

        engine = await self._engine.ready()
        params = SamplingParams(
            max_tokens=writing.limit,
            temperature=writing.temperature,
            seed=writing.seed_of(ids),
            stop=[writing.until],
            include_stop_str_in_output=True,
            skip_special_tokens=False,
        )
        written: list[int] = []
        with vllm_process.translated():
            async for output in engine.generate(
                {"prompt_token_ids": ids}, params, request_id=f"stars-guard-judge-{next(self._numbers)}"
            ):
                written = list(output.outputs[0].token_ids)
        return ids + written if writing.is_over(written) else None

    async def aclose(self) -> None:
        await self._engine.aclose()


TOP = 20
"""Probabilities that a vLLM server gives at most, unless it was started with another ``--max-logprobs``."""


class ServerGuard(GuardEngine):
    """``/v1/completions`` of a vLLM server, by token ids. It does not report what came from its cache.

    A server gives the probabilities of the tokens that are asked for, since the version that `vllm_versions` says. An
    older one passes over the request and gives those of the likeliest tokens, where the labels nearly always are.
    """

    def __init__(self, model: str, options: ServerOptions) -> None:
        self._model = model
        self._servers = Servers(options)
        self._by_label = True

    async def labels(self, prompts: Sequence[list[int]], labels: Sequence[int]) -> list[Row]:
        if self._by_label:
            rows = _rows(
                await self._tops(prompts, {"logprobs": len(labels), "logprob_token_ids": list(labels)}), labels
            )
            if rows is not None:
                return rows
        rows = _rows(await self._tops(prompts, {"logprobs": max(TOP, len(labels))}), labels)
        if rows is None:
            since = written(DIFFERENCES["server labels"].since)
            raise ScorerError(
                "the server gives no probabilities of the labels", hint=f"it should be vLLM {since} or newer"
            )
        self._by_label = False
        return rows

    async def write(self, prompts: Sequence[list[int]], writing: Writing) -> list[list[int] | None]:
        return await together(self._written(ids, writing) for ids in prompts)

    async def _written(self, ids: list[int], writing: Writing) -> list[int] | None:
        body = {
            "model": self._model,
            "prompt": list(ids),
            "max_tokens": writing.limit,
            "temperature": writing.temperature,
            "seed": writing.seed_of(ids),
            "stop": [writing.until],
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
            "logprobs": 1,
            "return_tokens_as_token_ids": True,
        }
        async with self._servers.post("/v1/completions", body) as (response, _):
            await response.aread()
            (choice,) = response.json()["choices"]
        written = token_ids(choice["logprobs"]["tokens"])
        return ids + written if writing.is_over(written) else None

    async def _tops(self, prompts: Sequence[list[int]], asked: Mapping[str, Any]) -> list[dict[int, float]]:
        """The log probabilities of each prompt's next token, by id. Empty where there are none."""
        body = {
            "model": self._model,
            "prompt": [list(ids) for ids in prompts],
            "max_tokens": 1,
            "temperature": 0.0,
            # two tokens may read the same
            "return_tokens_as_token_ids": True,
            **asked,
        }
        async with self._servers.post("/v1/completions", body) as (response, _):
            await response.aread()
            choices = sorted(response.json()["choices"], key=lambda choice: choice["index"])
        tops = [((choice.get("logprobs") or {}).get("top_logprobs") or [{}])[0] or {} for choice in choices]
        return [by_token_id(top) for top in tops]

    async def aclose(self) -> None:
        await self._servers.aclose()


def _rows(tops: Sequence[Mapping[int, float]], labels: Sequence[int]) -> list[Row] | None:
    """The labels' log probabilities, or None where one is missing."""
    try:
        return [([float(top[label]) for label in labels], None) for top in tops]
    except KeyError:
        return None
