"""Generative safety models as judges: the exact probability of the word that says "unsafe", never a sampled text."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jinja2 import StrictUndefined, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from stars_guard.chat import encode_marked, mark
from stars_guard.errors import MissingExtra, ScorerError
from stars_guard.hub import quiet
from stars_guard.scorers.base import Rating, Scorer
from stars_guard.segments import Passage
from stars_guard.turns import as_text

__all__ = ["GuardModelScorer"]


class GuardModelScorer(Scorer):
    """P(harmful) / (P(harmful) + P(safe)) of the next token after the rendered question. Make it with `load`.

    The probability of a side is the sum over its labels, each counted by its first token.
    """

    cost = 50.0

    def __init__(
        self, model: Any, tokenizer: Any, template: str, harmful: Sequence[str], safe: Sequence[str],
        identity: dict[str, str], *, max_length: int, batch_size: int,
    ) -> None:  # fmt: skip
        self.identity = identity
        self._model = model
        self._tokenizer = tokenizer
        self._template = _compiled(template)
        self._harmful, self._safe = (_first_tokens(tokenizer, labels) for labels in (harmful, safe))
        if both := set(self._harmful) & set(self._safe):
            shared = tokenizer.convert_ids_to_tokens(sorted(both))
            raise ScorerError(
                f"labels of both sides begin with the same token: {', '.join(shared)}",
                hint="write the labels as the model does, a leading space or line break included",
            )
        self._max_length = min(max_length, int(getattr(model.config, "max_position_embeddings", max_length)))
        self._batch_size = batch_size
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="stars-guard-judge")

    @classmethod
    async def load(
        cls,
        model: str,
        template: str,
        harmful: Sequence[str],
        safe: Sequence[str],
        *,
        revision: str | None = None,
        max_length: int = 4096,
        batch_size: int = 8,
        device: str | None = None,
    ) -> GuardModelScorer:
        """Load a causal language model.

        Args:
            template: Jinja2; has ``prompt``, ``answer``, ``segment`` and ``messages`` (role and content, the answer
                last). It holds the control tokens that the model was trained with, up to where the label comes.
            harmful: labels that say "unsafe", as the model writes them; ``safe`` likewise.
            max_length: tokens; a longer question is an error.

        Raises:
            ScorerError: there is no such model, or labels that cannot be told apart.
            MissingExtra: torch or transformers is not installed.
        """

        def build() -> GuardModelScorer:
            try:
                import torch
                from transformers import AutoModelForCausalLM, AutoTokenizer
            except ImportError as exc:
                raise MissingExtra("guard_model", "transformers") from exc
            try:
                with quiet():
                    tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
                    dtype = "auto" if torch.cuda.is_available() else torch.float32
                    loaded = AutoModelForCausalLM.from_pretrained(model, revision=revision, dtype=dtype)
            except Exception as exc:
                raise ScorerError(
                    f"cannot load the judge model {model!r}: {type(exc).__name__}",
                    hint="pass a Hugging Face directory or name",
                ) from exc
            where = device or ("cuda" if torch.cuda.is_available() else "cpu")
            identity = {"kind": "guard_model", "model": model, "revision": revision or ""}
            return cls(loaded.to(where).eval(), tokenizer, template, harmful, safe, identity,
                       max_length=max_length, batch_size=batch_size)  # fmt: skip

        return await asyncio.to_thread(build)

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        values = await asyncio.get_running_loop().run_in_executor(self._worker, self._score, passages)
        return [Rating(value) for value in values]

    def _encode(self, passage: Passage) -> list[int]:
        turns = as_text(passage.messages)
        texts = [message.content for message in turns]
        prompt = "\n".join(message.content for message in passage.messages if message.role == "user")
        fields = {"answer": passage.answer, "segment": passage.segment, "prompt": prompt}
        marks = {name: mark(len(texts) + i) for i, name in enumerate(fields)}
        messages = [{"role": turn.role, "content": mark(i)} for i, turn in enumerate(turns)]
        messages.append({"role": "assistant", "content": marks["answer"]})
        rendered = self._template.render(messages=messages, **marks)
        ids = encode_marked(self._tokenizer, rendered, [*texts, *fields.values()])
        if len(ids) > self._max_length:
            raise ScorerError(f"the judge's question has {len(ids)} tokens", hint="raise max_length, or set scope")
        return ids

    def _score(self, passages: Sequence[Passage]) -> list[float]:
        import torch

        encoded = [self._encode(passage) for passage in passages]
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        values = [0.0] * len(encoded)
        device = self._model.device
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            width = max(len(encoded[i]) for i in rows)
            # padded on the left, so that the label's place is the last one of each row
            padded = [[0] * (width - len(encoded[i])) + encoded[i] for i in rows]
            mask = torch.tensor([[0] * (width - len(encoded[i])) + [1] * len(encoded[i]) for i in rows], device=device)
            with torch.inference_mode():
                logits = (
                    self._model(
                        input_ids=torch.tensor(padded, device=device),
                        attention_mask=mask,
                        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
                        logits_to_keep=1,
                        use_cache=False,
                    )
                    .logits[:, -1]
                    .float()
                )
            odds = logits[:, self._harmful].logsumexp(-1) - logits[:, self._safe].logsumexp(-1)
            for i, value in zip(rows, odds.sigmoid().tolist(), strict=True):
                values[i] = float(value)
        return values

    async def aclose(self) -> None:
        await asyncio.to_thread(self._worker.shutdown)


def _compiled(template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(template)


def _first_tokens(tokenizer: Any, labels: Sequence[str]) -> list[int]:
    found = []
    for label in labels:
        ids = tokenizer(label, add_special_tokens=False)["input_ids"]
        if not ids:
            raise ScorerError(f"the label {label!r} has no token")
        found.append(int(ids[0]))
    return sorted(set(found))
