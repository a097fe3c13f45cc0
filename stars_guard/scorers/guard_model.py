"""Generative safety models as judges: the exact probability of the word that says "unsafe", never a sampled text."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import SecretStr

from stars_guard.core.segments import Passage
from stars_guard.engines import vllm_process
from stars_guard.engines.loading import load_tokenizer, loading
from stars_guard.engines.vllm_client import parse_options
from stars_guard.errors import BackendError, InputError, MissingExtra, ScorerError, ScorerInputError
from stars_guard.prompting.guard_formats import GuardFormat
from stars_guard.prompting.guard_questions import Encoder, Labels, Questions
from stars_guard.scorers._guard_engines import GuardEngine, ServerGuard, TransformersGuard, VllmGuard
from stars_guard.scorers.base import Rating, Scorer

__all__ = ["GuardModelScorer"]


class GuardModelScorer(Scorer):
    """P(harmful) / (P(harmful) + P(safe)) of the next token after the rendered question. Make it with `load`.

    The probability of a side is the sum over its labels, each counted by its first token. Where a format needs several
    questions they go in one batch, and the score is the highest; ``detail`` is its category.
    """

    cost = 50.0

    def __init__(
        self,
        engine: GuardEngine,
        encoder: Encoder,
        questions: Questions,
        labels: Labels,
        identity: dict[str, str],
        max_length: int,
    ) -> None:
        self.identity = identity
        self._engine = engine
        self._encoder = encoder
        self._questions = questions
        self._labels = labels
        self._max_length = max_length

    @classmethod
    async def load(
        cls,
        model: str,
        form: GuardFormat,
        *,
        categories: Sequence[str] = (),
        controversial: Literal["safe", "unsafe"] = "unsafe",
        revision: str | None = None,
        max_length: int = 4096,
        batch_size: int = 8,
        device: str | None = None,
        base_url: str | None = None,
        api_key: SecretStr | None = None,
        engine: Mapping[str, Any] | None = None,
    ) -> GuardModelScorer:
        """Load a causal language model, start an engine for it, or use a server.

        Args:
            model: a directory or name; of a server, the name under which it serves.
            form: how the model is asked.
            categories: those that are asked; none takes the format's default.
            controversial: which side the format's labels between the two count for.
            max_length: tokens; a longer question is an error.
            batch_size: questions in one pass of transformers.
            base_url: of a vLLM server.
            engine: vLLM's engine arguments; given, vLLM runs in this process.

        Raises:
            ScorerError: there is no such model, labels that cannot be told apart, or the engine did not start.
            MissingExtra: torch, transformers or vLLM is not installed.
        """
        questions = Questions(form, categories, controversial=controversial)
        tokenizer, config = await asyncio.to_thread(
            load_tokenizer, model, revision, ScorerError, what="the judge model", feature="guard_model"
        )
        limit = getattr(config.get_text_config(), "max_position_embeddings", None)
        encoder = Encoder(tokenizer)
        # before the model is loaded, which takes long
        labels = questions.labels(encoder)
        identity = {
            "kind": "guard_model",
            "model": model,
            "revision": revision or "",
            "preset": form.name,
            "categories": ", ".join(categories or form.default),
            "server": base_url or "",
            "format": hashlib.sha256(form.template.encode()).hexdigest()[:12],
        }
        where: GuardEngine
        if base_url is not None:
            where = ServerGuard(model, parse_options({"base_url": base_url, "api_key": api_key}))
        elif engine is not None:
            try:
                where = VllmGuard(await vllm_process.start(model, {"revision": revision, **engine}))
            except (BackendError, InputError) as exc:
                raise ScorerError(f"judge model {model!r}: {exc.message}", hint=exc.hint) from exc
        else:
            where = TransformersGuard(await asyncio.to_thread(_weights, model, revision, device), batch_size)
        return cls(where, encoder, questions, labels, identity, min(max_length, limit or max_length))

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        prompts = await asyncio.to_thread(lambda: [ids for passage in passages for ids in self._encode(passage)])
        rows = await self._engine.labels(prompts, self._labels.ids)
        ratings, width = [], len(self._questions.asked)
        for start in range(0, len(rows), width):
            group = rows[start : start + width]
            value, category = self._questions.verdict([self._chance(logs) for logs, _ in group])
            cached = [count for _, count in group if count is not None]
            ratings.append(Rating(value, category, cached=sum(cached) if cached else None))
        return ratings

    def _encode(self, passage: Passage) -> list[list[int]]:
        asked = self._questions.encode(self._encoder, passage)
        longest = max(map(len, asked))
        if longest > self._max_length:
            raise ScorerInputError(
                f"the judge's question has {longest} tokens, and {self._max_length} fit",
                hint="raise max_length, or set scope",
            )
        return asked

    def _chance(self, logs: Sequence[float]) -> float:
        top = max(logs)
        weights = [math.exp(value - top) for value in logs]
        return sum(weights[: len(self._labels.harmful)]) / sum(weights)

    async def aclose(self) -> None:
        await self._engine.aclose()


def _weights(model: str, revision: str | None, device: str | None) -> Any:
    try:
        import torch
        from transformers import AutoModelForCausalLM
    except ImportError as exc:
        raise MissingExtra("guard_model", "transformers") from exc
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with loading(f"the judge model {model!r}", ScorerError):
        dtype = "auto" if torch.cuda.is_available() else torch.float32
        return AutoModelForCausalLM.from_pretrained(model, revision=revision, dtype=dtype).to(where).eval()
